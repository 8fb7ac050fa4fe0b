"""Windows of an episode: starts the members, unrolls them by one window, and differentiates a window.

`UnrolledProblem` calls these functions. They do what the library promises its authors: staggered phases, shared resets,
and losses that are scaled to the objective of a full episode.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.evaluation import Evaluation, Groups, checked_aux, total_steps
from zoo.core.grouping import check_population_size, group_keys, number_groups
from zoo.core.population import map_members, take_member
from zoo.core.problem import Statistics
from zoo.core.sensitivity import Carried, Inner, Sensitivity
from zoo.core.settings import PytreeDataclass, leaf, static
from zoo.core.solution import Solution, check_solution
from zoo.core.surrogate import SurrogateGradient
from zoo.core.unroll import Place, Unroll, check_step, select, start, unroll


class Window(PytreeDataclass):
    """How an evaluation unrolls the members. It is part of the compiled program.

    Attributes:
        length: The number of steps.
        sensitivity: How the derivatives of the inner states are followed. With `None`, they are not.
    """

    length: int = static(at_least=1)
    sensitivity: Sensitivity | None = leaf(default=None)


class UnrolledState(NamedTuple):
    """State of an unrolled problem.

    Attributes:
        window: How to unroll. Its length is the problem's window, or the horizon if the strategy requires whole
            episodes. Its sensitivity is the sensitivity of the groups.
        groups: `[population_size]` group of each member, numbered 0 to num_groups - 1.
        members: `[num_groups]` one member of each group, whose inner state stands for the group.
        parents: `[population_size]` the member from whose inner state each member continues. With `None`, each
            continues from its own.
        statistics: See `Problem.init_statistics`.
        inner: `[population_size, ...]` inner states.
        time: `[population_size]` current inner step of each member.
        terminated: `[population_size]` whether the member's episode terminated before its horizon.
        carried: `[population_size, ...]` carried derivatives of the inner states; `()` without a sensitivity.
        pending_steps: Scalar. Steps that staggering took and that no evaluation has counted yet.
    """

    window: Window
    groups: jax.Array
    members: jax.Array
    parents: jax.Array | None
    statistics: Statistics
    inner: Inner
    time: jax.Array
    terminated: jax.Array
    carried: Carried
    pending_steps: jax.Array

    @property
    def places(self) -> Place:
        """The places of the members in their episodes, `[population_size, ...]`."""
        return Place(self.inner, self.time, self.terminated, self.carried)


def start_members(problem: Any, key: jax.Array, groups: Groups, solution: Solution) -> UnrolledState:
    """Returns the initial state of an `UnrolledProblem` with staggered groups; see `UnrolledProblem.init`."""
    group_of, members = number_groups(groups)
    parents = None if groups.parents is None else jnp.asarray(groups.parents, jnp.int32)
    solution = check_solution(solution)
    key_phase, key_reset, key_steps = jax.random.split(key, 3)
    statistics = problem.init_statistics()
    current = problem.with_statistics(statistics)
    num_groups = members.shape[0]
    rule = groups.sensitivity
    places = _starts(current, group_keys(key_reset, num_groups), solution, rule)
    check_step(current, solution, jax.tree.map(lambda x: x[0], places.inner))
    steps = jnp.zeros((), jnp.int32)
    if problem._num_windows > 1 and num_groups > 1:
        phase = jnp.asarray(problem._window * _stagger(problem, key_phase, num_groups), jnp.int32)

        def warm_up(k: jax.Array, phase: jax.Array, place: Place) -> Unroll:
            return unroll_window(current, k, solution, place, length=phase, rule=rule)

        end = jax.vmap(warm_up)(group_keys(key_steps, num_groups), phase, places)
        steps = total_steps(end.steps)
        # Pooled now, because later each member of a group has a copy of the group's values.
        statistics, inner = problem.pool_statistics(statistics, end.inner)
        # The time of a terminated group goes on.
        places = end.place._replace(inner=inner, time=phase)
    places = jax.tree.map(lambda x: x[group_of], places)
    window = Window(length=problem._window, sensitivity=rule)
    return UnrolledState(window, group_of, members, parents, statistics, *places, pending_steps=steps)


def window_gradient(problem: Any, key: jax.Array, state: UnrolledState) -> SurrogateGradient:
    """Returns the gradient of the fitness of the next window, by backpropagation from each group's inner state."""
    current = _as_started(problem, state)

    def keys() -> jax.Array:
        return _keys(key, state.members.shape[0])[0]

    def fitness(x: Solution, k: jax.Array, place: Place) -> jax.Array:
        return _scale(current) * unroll_window(current, k, x, place, length=current._window).loss

    def gradient(solution: Solution) -> Solution:
        of_groups = jax.tree.map(lambda x: x[state.members], state.places)

        def mean_fitness(x: Solution) -> jax.Array:
            return jnp.mean(jax.vmap(fitness, in_axes=(None, 0, 0))(x, keys(), of_groups))

        return jax.grad(mean_fitness)(check_solution(solution))

    def members(population: Any) -> Any:
        parents = slice(None) if state.parents is None else state.parents
        of_members = jax.tree.map(lambda x: x[parents], state.places)
        arguments = (population, keys()[state.groups], of_members)
        return map_members(jax.grad(fitness), *arguments, batch_size=problem.member_batch_size)

    return SurrogateGradient(gradient, members)


def evaluate_window(problem: Any, key: jax.Array, population: Any, state: UnrolledState) -> tuple[Evaluation, Any]:
    """Unrolls every member of a population by one window; see `Problem.evaluate`."""
    check_population_size(problem, population, state.groups)
    current = _as_started(problem, state)
    num_groups = state.members.shape[0]
    keys, reset_keys = _keys(key, num_groups)
    rule, places = state.window.sensitivity, state.places
    if state.parents is not None:
        places = jax.tree.map(lambda x: x[state.parents], places)

    def unroll_one(solution: Solution, place: Place, key: jax.Array = keys[0]) -> Unroll:
        return unroll_window(current, key, solution, place, length=current._window, rule=rule)

    members = (places,) if num_groups == 1 else (places, keys[state.groups])
    end = map_members(unroll_one, population, *members, batch_size=problem.member_batch_size)
    aux = jax.vmap(lambda inner: checked_aux(problem.aux(inner)))(end.inner)
    # The time of a terminated member goes on, so that all members of a group end together.
    time = state.time + current._window
    done = jnp.zeros(time.shape, bool) if problem.horizon is None else time >= problem.horizon
    statistics, inner = problem.pool_statistics(state.statistics, end.inner)
    places = end.place._replace(inner=inner, time=time)
    if problem.horizon is not None:
        current = current.with_statistics(statistics)
        fresh = _starts(current, reset_keys, take_member(population, 0), rule)
        fresh = jax.tree.map(lambda x: x[state.groups], fresh)
        places = fresh if current._num_windows == 1 else jax.vmap(select)(done, fresh, places)
    steps = total_steps(end.steps) + state.pending_steps
    gradient = None if rule is None else jax.tree.map(lambda g: g * _scale(current), end.gradient)
    evaluation = Evaluation(_scale(current) * end.loss, done, steps, aux=aux, gradient=gradient)
    state = state._replace(**places._asdict(), statistics=statistics, pending_steps=jnp.zeros((), jnp.int32))
    return evaluation, state


def unroll_window(
    problem: Any,
    key: jax.Array,
    solution: Solution,
    place: Place,
    *,
    length: int | jax.Array,
    rule: Sensitivity | None = None,
) -> Unroll:
    """Unrolls one member by `length` steps; see `zoo.core.unroll.unroll`."""
    # If windows tile the horizon, the last one ends with it, and members pause only if they terminate.
    pauses = problem.horizon is not None and problem.horizon % problem._window != 0
    return unroll(problem, key, solution, place, length=length, pauses=pauses, rule=rule)


def _keys(key: jax.Array, num_groups: int) -> jax.Array:
    """Returns `[2, num_groups]` keys of an evaluation: one row for the steps, one for the resets."""
    # Derived together, because each derivation of keys takes a tenth of a second to compile.
    return jax.vmap(group_keys, in_axes=(0, None))(group_keys(key, 2), num_groups)


def _stagger(problem: Any, key: jax.Array, num_groups: int) -> jax.Array:
    """Returns the number of the window that each group begins with: evenly spread from a random offset, shuffled."""
    key_offset, key_order = jax.random.split(key)
    even = np.arange(num_groups) * problem._num_windows // num_groups
    offset = jax.random.randint(key_offset, (), 0, problem._num_windows)
    return jax.random.permutation(key_order, (jnp.asarray(even) + offset) % problem._num_windows)


def _as_started(problem: Any, state: UnrolledState) -> Any:
    """Returns the problem with the statistics and the window length of a state."""
    current = problem.with_statistics(state.statistics)
    return current if state.window.length == problem._window else current.replace(window=state.window.length)


def _scale(problem: Any) -> float:
    """Returns the factor that turns the loss of a window into a fitness."""
    # Mean over the n phases of scale * (loss of the phase's window) = objective of the episode.
    if problem.horizon is None:
        return 1.0 / problem._window if problem.objective == "mean" else 1.0
    return problem._num_windows / problem.horizon if problem.objective == "mean" else float(problem._num_windows)


def _starts(problem: Any, keys: jax.Array, solution: Solution, rule: Sensitivity | None) -> Place:
    return jax.vmap(start, in_axes=(None, 0, None, None))(problem, keys, solution, rule)
