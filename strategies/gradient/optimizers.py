"""Optimizers of optax as settings: a factory or a name, the transformation that it makes, and a step of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from zoo.core import Solution, in_single
from zoo.core.promotion import promotion_of_others
from zoo.strategies.gradient.clip_up import clip_up

OptimizerFactory = Callable[[Any], optax.GradientTransformation]
"""From a learning rate to a transformation, such as `optax.adam`."""


def check_optimizer(optimizer: Any, name: str) -> None:
    """Raises an error if the setting of that name is no optimizer.

    Raises:
        ValueError: If it is a name, but not of an optimizer.
        TypeError: If it is no function of a learning rate.
    """
    if isinstance(optimizer, str):
        if not callable(_by_name(optimizer)):
            raise ValueError(f"{name} {optimizer!r} is not the name of an optax optimizer.")
    elif isinstance(optimizer, optax.GradientTransformation) or not callable(optimizer):
        raise TypeError(
            f"{name} must be a function from a learning rate to an optax transformation, such as "
            f"optax.adam (not optax.adam(1e-3): give the rate as learning_rate=1e-3), got {optimizer!r}."
        )


def transformation(optimizer: OptimizerFactory | str, learning_rate: Any) -> optax.GradientTransformation:
    """Returns the transformation of an optimizer at a learning rate."""
    return (_by_name(optimizer) if isinstance(optimizer, str) else optimizer)(learning_rate)


def _by_name(name: str) -> Any:
    return clip_up if name == "clip_up" else getattr(optax, name, None)


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
