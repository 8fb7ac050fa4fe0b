"""ClipUp: normalised gradients, momentum, a speed limit; an optimizer for the noisy gradients of evolution strategies.

Reference: Toklu, Liskowski, Srivastava 2020, "ClipUp: A Simple and Powerful Optimizer for Distribution-based Policy
Evolution", arXiv 2008.02387, Algorithm 1.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from zoo.core import unit


class ClipUpState(NamedTuple):
    """State of `clip_up`."""

    velocity: Any  # in the structure of the solution: the last step, uphill


def clip_up(
    learning_rate: Any, momentum: float = 0.9, max_speed: float | jax.Array | None = None
) -> optax.GradientTransformation:
    """Returns the ClipUp optimizer: v <- clip(momentum v + learning_rate g / |g|), and a step of -v.

    How far a step goes does not depend on the size of the gradient, so both settings are distances in solution space.

    Args:
        learning_rate: Length that a gradient adds to the velocity.
        momentum: Part of the velocity that is kept.
        max_speed: Length that the velocity is clipped to. Default: twice the learning rate, as the paper recommends.

    References:
        Toklu et al. 2020, arXiv 2008.02387.
    """

    def init(params: Any) -> ClipUpState:
        return ClipUpState(jax.tree.map(jnp.zeros_like, params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ClipUpState]:
        del params
        limit = 2 * learning_rate if max_speed is None else max_speed
        velocity = jax.tree.map(
            lambda v, g: (momentum * v + learning_rate * g).astype(v.dtype), state.velocity, unit(updates)
        )
        speed = optax.tree.norm(velocity)
        factor = jnp.where(speed > limit, limit / jnp.where(speed > 0, speed, 1), 1)
        velocity = jax.tree.map(lambda v: (factor * v).astype(v.dtype), velocity)
        return jax.tree.map(jnp.negative, velocity), ClipUpState(velocity)

    return optax.GradientTransformation(init, update)
