"""Unrolls one member of an `UnrolledProblem` by a number of steps."""

import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from zoo.core.sensitivity import Carried, Inner, Sensitivity
from zoo.core.solution import Solution


class Episode(Protocol):
    """The part of the interface of `UnrolledProblem` that this module needs."""

    @property
    def horizon(self) -> int | None: ...  # noqa: D102
    @property
    def differentiable(self) -> bool: ...  # noqa: D102
    def reset(self, key: jax.Array) -> Inner: ...  # noqa: D102
    def step(self, key: jax.Array, solution: Solution, inner: Inner) -> tuple[Inner, jax.Array, Any]: ...  # noqa: D102
    def step_cost(self, inner: Inner) -> jax.Array | int: ...  # noqa: D102


class Place(NamedTuple):
    """The place of a member in its episode.

    Attributes:
        inner: The inner state.
        time: The current inner step.
        terminated: Whether the episode terminated before its horizon.
        carried: The carried derivative of the inner state with respect to the solution; `()` without a `Sensitivity`.
    """

    inner: Inner
    time: jax.Array
    terminated: jax.Array
    carried: Carried


class Unroll(NamedTuple):
    """The end of an unroll of one member.

    Attributes:
        place: The member's place in its episode.
        loss: The sum of the losses of all steps taken.
        steps: The number of problem steps taken.
        gradient: The sum of the gradients of all steps; `()` without a `Sensitivity`.
    """

    place: Place
    loss: jax.Array
    steps: jax.Array
    gradient: Any

    @property
    def inner(self) -> Inner:
        """The inner state at the end."""
        return self.place.inner

    @property
    def time(self) -> jax.Array:
        """The inner step at the end."""
        return self.place.time

    @property
    def terminated(self) -> jax.Array:
        """Whether the episode terminated."""
        return self.place.terminated


def start(problem: Episode, key: jax.Array, solution: Solution, rule: Sensitivity | None) -> Place:
    """Returns the place at the start of an episode."""
    inner = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), problem.reset(key))
    carried = () if rule is None else rule.start(jax.random.fold_in(key, 1), solution, inner)
    return Place(inner, jnp.zeros((), jnp.int32), jnp.zeros((), bool), carried)


def unroll(
    problem: Episode,
    key: jax.Array,
    solution: Solution,
    place: Place,
    *,
    length: int | jax.Array,
    pauses: bool,
    rule: Sensitivity | None = None,
) -> Unroll:
    """Unrolls one member by `length` steps. The member pauses after it has terminated or reached the horizon.

    Args:
        problem: The problem.
        key: JAX random key.
        solution: The member's solution.
        place: The member's place in its episode.
        length: The number of steps.
        pauses: Whether the member may reach the horizon before the last step.
        rule: How to follow the derivative of the inner state. With `None`, follows no derivative.
    """
    loss_dtype, terminates = _probe_step(problem, key, solution, place.inner)
    pauses = terminates or pauses

    def is_active(end: Unroll) -> jax.Array:
        within = True if problem.horizon is None else end.place.time < problem.horizon
        return jnp.logical_and(~end.place.terminated, within)

    def advance(i: jax.Array, end: Unroll) -> Unroll:
        key_step = jax.random.fold_in(key, i)
        inner, _, terminated, carried = end.place
        time = end.place.time if pauses else place.time + jnp.asarray(i, jnp.int32)
        step = functools.partial(problem.step, key_step)
        gradient = end.gradient
        if rule is None:
            new_inner, loss, terminated = step(solution, inner)
        else:
            arguments = (jax.random.fold_in(key_step, 1), step, time, solution, inner, carried)
            (new_inner, loss, terminated), carried, share = rule.step(*arguments)
            gradient = jax.tree.map(jnp.add, gradient, share)
        cost = problem.step_cost(inner)
        steps = end.steps if isinstance(cost, int) else end.steps + cost.astype(jnp.int32)
        loss = end.loss + loss
        if not pauses:
            return Unroll(end.place._replace(inner=new_inner, carried=carried), loss, steps, gradient)
        new_place = Place(new_inner, time + 1, jnp.asarray(terminated, bool), carried)
        return select(is_active(end), Unroll(new_place, loss, steps, gradient), end)

    gradient = () if rule is None else jax.tree.map(jnp.zeros_like, solution)
    begin = Unroll(place, jnp.zeros((), loss_dtype), jnp.zeros((), jnp.int32), gradient)
    if not pauses:
        end = jax.lax.fori_loop(0, length, advance, begin)
        end = end._replace(place=end.place._replace(time=place.time + length))
    elif problem.differentiable and isinstance(length, int):  # reverse-mode autodiff needs a fixed number of steps
        end = jax.lax.fori_loop(0, length, advance, begin)
    else:  # stops as soon as no member is active
        _, end = jax.lax.while_loop(
            lambda loop: (loop[0] < length) & is_active(loop[1]),
            lambda loop: (loop[0] + 1, advance(*loop)),
            (jnp.zeros((), jnp.int32), begin),
        )
    cost = problem.step_cost(place.inner)
    # A constant cost is not counted in the loop, because the time already tells how many steps were taken.
    return end._replace(steps=(end.place.time - place.time) * cost) if isinstance(cost, int) else end


def check_step(problem: Episode, solution: Solution, inner: Inner) -> None:
    """Checks the result of `step` at trace time.

    Raises:
        TypeError: If `step` does not return a triple of the right structure, shapes and dtypes.
    """
    result = jax.eval_shape(problem.step, jax.random.key(0), solution, inner)
    name = f"{type(problem).__name__}.step"
    if not isinstance(result, tuple) or len(result) != 3:
        raise TypeError(f"{name} must return (inner, loss, terminated), got {type(result).__name__}.")
    new_inner, loss, terminated = result

    def signature(tree: Any) -> Any:
        leaves, structure = jax.tree.flatten(tree)
        return structure, [(tuple(jnp.shape(x)), jnp.result_type(x)) for x in leaves]

    if signature(new_inner) != signature(inner):
        raise TypeError(
            f"{name} must return an inner state with the structure, shapes and dtypes that `reset` returns: expected "
            f"{signature(inner)}, got {signature(new_inner)}."
        )
    if loss.shape != () or not jnp.issubdtype(loss.dtype, jnp.floating):
        raise TypeError(f"{name} must return a scalar floating-point loss, got {loss.dtype}{list(loss.shape)}.")
    if terminated.shape != () or terminated.dtype != bool:
        raise TypeError(
            f"{name} must return a scalar boolean `terminated`, got {terminated.dtype}{list(terminated.shape)}."
        )


def select(predicate: jax.Array, on_true: Any, on_false: Any) -> Any:
    """Returns `on_true` where the predicate holds, and `on_false` elsewhere."""
    return jax.tree.map(lambda a, b: jnp.where(predicate, a, b), on_true, on_false)


def _probe_step(problem: Episode, key: jax.Array, solution: Solution, inner: Inner) -> tuple[Any, bool]:
    """Returns the dtype of a step's loss, and whether a step may terminate the episode."""
    never = []

    def probe(*arguments: Any) -> Any:
        result = problem.step(*arguments)
        never.append(result[2] is False)
        return result

    return jax.eval_shape(probe, key, solution, inner)[1].dtype, not never[0]
