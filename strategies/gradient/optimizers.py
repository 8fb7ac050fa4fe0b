"""Optax optimizers as settings: checking a function or a name, making its transformation, and taking a step."""

import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from zoo.core import Solution, in_single
from zoo.core.checks import shown
from zoo.core.promotion import promotion_of_others
from zoo.strategies.gradient.clip_up import clip_up

OptimizerFactory = Callable[[Any], optax.GradientTransformation]
"""A function from a learning rate to a transformation, such as `optax.adam`."""
Schedule = Callable[[jax.Array], Any]
"""A function from the generation, counted from 0, to a factor."""


def check_optimizer(optimizer: Any, name: str) -> None:
    """Checks that a setting is an optimizer that needs nothing but a gradient.

    Args:
        optimizer: The value of the setting.
        name: The name of the setting, for messages.

    Raises:
        ValueError: If it is a name, but not of an optimizer, or if the optimizer needs more than a gradient.
        TypeError: If it is not a function from a learning rate to a transformation.
    """
    if isinstance(optimizer, str) and _by_name(optimizer) is None:
        known = _names()
        near = difflib.get_close_matches(optimizer, known, n=3)
        hint = f"Did you mean {', '.join(map(repr, near))}?" if near else f"Known names: {', '.join(known)}."
        raise ValueError(f"{name} {optimizer!r} is not the name of an optax optimizer. {hint}")
    is_factory = isinstance(optimizer, str) or (
        callable(optimizer) and not isinstance(optimizer, optax.GradientTransformation)
    )
    fault = _fault(optimizer) if is_factory else "is none"
    if fault == "is none":
        raise TypeError(
            f"{name} must be a function from a learning rate to an optax transformation, such as "
            f"optax.adam (not optax.adam(1e-3): give the rate as learning_rate=1e-3), got {shown(optimizer)}."
        )
    if fault:
        raise ValueError(
            f"{name} {getattr(optimizer, '__name__', optimizer)!r} cannot be used: an evolution strategy has only a "
            f"gradient, and this optimizer needs more ({fault}). Choose another one, such as 'adam' or 'sgd'."
        )


def transformation(
    optimizer: OptimizerFactory | str, learning_rate: Any, schedule: Schedule | None, generation: Any
) -> optax.GradientTransformation:
    """Returns the transformation of an optimizer with its learning rate in a generation."""
    rate = scheduled(learning_rate, schedule, generation)
    return (_by_name(optimizer) if isinstance(optimizer, str) else optimizer)(rate)


def scheduled(number: Any, schedule: Schedule | None, generation: Any) -> Any:
    """Returns a number times the factor of its schedule. Without a schedule, returns the number."""
    if schedule is None:
        return number
    with promotion_of_others():  # optax's schedules multiply the generation, an integer, by floats
        return number * schedule(generation)


@functools.cache
def _names() -> list[str]:
    """Returns the names of optimizers: `clip_up`, and the public functions of optax that take a learning rate."""
    found = ["clip_up"]
    public = {name: value for name, value in vars(optax).items() if not name.startswith("_")}
    found += [name for name, value in public.items() if inspect.isfunction(value) and _takes_rate(value)]
    return sorted(found)


def _takes_rate(function: Any) -> bool:
    """Whether the first argument of a function is called a learning rate."""
    return "learning_rate" in next(iter(inspect.signature(function).parameters), "")


def _by_name(name: str) -> Any:
    if name not in _names():
        return None
    return clip_up if name == "clip_up" else getattr(optax, name)


@functools.lru_cache(maxsize=64)
def _fault(optimizer: Any) -> str | None:
    """Returns what is wrong with an optimizer.

    Returns "is none" if it is not an optimizer, what it needs besides a gradient, or `None` if nothing is wrong.
    """
    if str(getattr(optimizer, "__module__", "")).startswith("optax.") and not _takes_rate(optimizer):
        return "is none"
    try:
        made = (_by_name(optimizer) if isinstance(optimizer, str) else optimizer)(0.01)
    except TypeError:
        return "is none"
    if not isinstance(made, optax.GradientTransformation):
        return "is none"

    def one_step(x: jax.Array) -> Any:
        return made.update(x, made.init(x), x)

    try:
        with promotion_of_others():
            jax.eval_shape(one_step, jax.ShapeDtypeStruct((2,), jnp.float32))
    except TypeError as error:
        words = str(error)
        return words.partition("missing ")[2] if "required" in words and "missing " in words else None
    except Exception:  # it may be made for solutions of another structure
        return None
    return None


class Rounded(NamedTuple):
    """State of an optimizer that steps a solution in half precision.

    It steps in single precision, and keeps what rounding takes off the solution. Otherwise small steps would be lost.
    """

    state: optax.OptState
    rest: Solution  # what the solution lost by rounding


def start(transformation: optax.GradientTransformation, solution: Solution) -> optax.OptState:
    """Returns the initial state of an optimizer."""
    single = in_single(solution)
    state = transformation.init(single)
    if all(x.dtype == y.dtype for x, y in zip(jax.tree.leaves(solution), jax.tree.leaves(single), strict=True)):
        return state
    return Rounded(state, jax.tree.map(jnp.zeros_like, single))


def step(
    transformation: optax.GradientTransformation, gradient: Solution, state: optax.OptState, solution: Solution
) -> tuple[Solution, optax.OptState]:
    """Returns the solution after a step along a gradient, and the optimizer's state.

    A step is skipped if the gradient or its squared norm is not finite. Optimizers keep such numbers in their state,
    and would never move again.
    """
    if isinstance(state, Rounded):
        exact = jax.tree.map(jnp.add, in_single(solution), state.rest)
        new, new_state = step(transformation, in_single(gradient), state.state, exact)
        rounded = jax.tree.map(lambda x, old: x.astype(old.dtype), new, solution)
        return rounded, Rounded(new_state, jax.tree.map(jnp.subtract, new, in_single(rounded)))
    with promotion_of_others():  # Adam, for example, raises a float to the power of an integer array
        updates, new_state = transformation.update(gradient, state, solution)
        new = optax.apply_updates(solution, updates), new_state
    usable = jnp.all(jnp.stack([jnp.all(has_finite_square(g)) for g in jax.tree.leaves(gradient)]))
    return jax.tree.map(lambda after, before: jnp.where(usable, after, before), new, (solution, state))


def has_finite_square(x: jax.Array) -> jax.Array:
    """Returns for each entry whether it is finite, and so small that the squares of all such entries of `x` add up.

    Their sum cannot overflow.
    """
    return jnp.abs(x) < (float(jnp.finfo(x.dtype).max) / max(x.size, 1)) ** 0.5
