"""Optimizers of optax as settings: a factory or a name, the transformation that it makes, and a step of it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from zoo.core import Solution
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


def step(
    transformation: optax.GradientTransformation, gradient: Solution, state: optax.OptState, solution: Solution
) -> tuple[Solution, optax.OptState]:
    """Returns the solution after a step along a gradient, and the optimizer's state."""
    with promotion_of_others():  # Adam, for one, raises a float to the power of an integer array
        updates, state = transformation.update(gradient, state, solution)
        return optax.apply_updates(solution, updates), state


def has_finite_square(x: jax.Array) -> jax.Array:
    """Whether each entry is finite, and small enough to be squared."""
    return jnp.abs(x) < float(jnp.finfo(x.dtype).max) ** 0.5


def skip_non_finite(transformation: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns the transformation, leaving out steps whose gradient is not finite, as one not sampled may be.

    Nor is one let through whose square, which optimizers keep, would not be finite.
    """

    def mark_huge(updates: Any, params: Any = None) -> Any:
        del params
        return jax.tree.map(lambda g: jnp.where(has_finite_square(g), g, jnp.nan), updates)

    finite = optax.apply_if_finite(transformation, max_consecutive_errors=np.iinfo(np.int32).max)
    return optax.chain(optax.stateless(mark_huge), finite)
