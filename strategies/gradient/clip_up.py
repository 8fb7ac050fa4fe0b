"""ClipUp: an optimizer for noisy gradients, with normalised gradients, momentum and a speed limit.

The gradient is scaled to the length of the learning rate and added to a velocity. The velocity keeps a part of itself
from step to step, and is clipped to a largest length. The length of a step thus does not depend on the size of the
gradient, which is hardly known where gradients are estimated from noisy fitness.

Reference: Toklu, Liskowski, Srivastava 2020, "ClipUp: A Simple and Powerful Optimizer for Distribution-based Policy
Evolution", arXiv 2008.02387, Algorithm 1. The paper climbs the gradient; this optimizer, as all of optax, descends it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from zoo.core import unit


class ClipUpState(NamedTuple):
    """State of `clip_up`."""

    velocity: Any  # in the structure of the solution: minus the last step


def clip_up(
    learning_rate: Any, momentum: float = 0.9, max_speed: float | jax.Array | None = None
) -> optax.GradientTransformation:
    """Returns the ClipUp optimizer: v <- clip(momentum v + learning_rate g / |g|), and a step of -v.

    The length of a step does not depend on the size of the gradient, so `learning_rate` and `max_speed` are distances
    in solution space.

    Args:
        learning_rate: Length that a gradient adds to the velocity.
        momentum: Fraction of the velocity that is kept.
        max_speed: Length that the velocity is clipped to. Defaults to twice the learning rate, as the paper recommends.

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
