"""Optimizers of optax as settings: a factory or a name, the transformation that it makes, and a step of it."""

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
"""From a learning rate to a transformation, such as `optax.adam`."""
Schedule = Callable[[jax.Array], Any]
"""From the generation, counted from 0, to a factor."""


def check_optimizer(optimizer: Any, name: str) -> None:
    """Raises an error if the setting of that name is no optimizer, or one that wants more than a gradient.

    Raises:
        ValueError: If it is a name, but not of an optimizer, or wants more than a gradient.
        TypeError: If it is no function of a learning rate.
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
            f"{name} {getattr(optimizer, '__name__', optimizer)!r} wants more than a gradient ({fault}), and an "
            "evolution strategy has nothing else to give. Choose one such as 'adam' or 'sgd'."
        )


def transformation(
    optimizer: OptimizerFactory | str, learning_rate: Any, schedule: Schedule | None, generation: Any
) -> optax.GradientTransformation:
    """Returns the transformation of an optimizer at its learning rate in a generation."""
    rate = scheduled(learning_rate, schedule, generation)
    return (_by_name(optimizer) if isinstance(optimizer, str) else optimizer)(rate)


def scheduled(number: Any, schedule: Schedule | None, generation: Any) -> Any:
    """Returns a number times the factor of its schedule, if it has one."""
    if schedule is None:
        return number
    with promotion_of_others():  # those of optax multiply the integer that counts generations by floats
        return number * schedule(generation)


@functools.cache
def _names() -> list[str]:
    """Returns the names that stand for optimizers: what of optax is a function of a learning rate."""
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
    """Returns what is wrong with an optimizer: "is none", or what it misses beside a gradient; `None`: nothing."""
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
    """State of an optimizer of a solution in half precision, which steps in single: small ones would be lost."""

    state: optax.OptState
    rest: Solution  # what rounding took off the solution


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

    A step along a gradient that is not finite is left out, and so is one whose squared norm is not, which optimizers
    keep: they would never move again.
    """
    if isinstance(state, Rounded):
        exact = jax.tree.map(jnp.add, in_single(solution), state.rest)
        new, new_state = step(transformation, in_single(gradient), state.state, exact)
        rounded = jax.tree.map(lambda x, old: x.astype(old.dtype), new, solution)
        return rounded, Rounded(new_state, jax.tree.map(jnp.subtract, new, in_single(rounded)))
    with promotion_of_others():  # Adam, for one, raises a float to the power of an integer array
        updates, new_state = transformation.update(gradient, state, solution)
        new = optax.apply_updates(solution, updates), new_state
    usable = jnp.all(jnp.stack([jnp.all(has_finite_square(g)) for g in jax.tree.leaves(gradient)]))
    return jax.tree.map(lambda after, before: jnp.where(usable, after, before), new, (solution, state))


def has_finite_square(x: jax.Array) -> jax.Array:
    """Whether each entry is finite, and small enough that the sum of all squares is."""
    return jnp.abs(x) < (float(jnp.finfo(x.dtype).max) / max(x.size, 1)) ** 0.5
