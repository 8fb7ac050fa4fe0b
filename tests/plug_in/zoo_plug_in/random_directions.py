"""Augmented random search (Mania et al. 2018, arXiv 1803.07055): steps along the best directions.

A direction is a perturbation z that two members share, the mean plus sigma z and the mean minus sigma z. The step is
the mean over the best directions of z times the difference of their fitness, over the standard deviation of fitness.
"""

import jax
import jax.numpy as jnp

import zoo
from zoo.core import clip_std
from zoo.strategies.gradient.base import GradientStrategy


class RandomDirections(GradientStrategy):
    """Steps along the best directions, over the spread of their fitness.

    Attributes:
        num_top: How many directions the step is made of. With `None`, it is made of all.
    """

    optimizer: str = zoo.static("sgd")
    shaping: str = zoo.static("none")  # it replaces fitness that is not finite
    num_top: int | None = zoo.static(None, at_least=1)

    def weights(self, state, fitness: jax.Array) -> jax.Array:
        """Returns the weight of each member's perturbation in the gradient, `[population_size]`."""
        plus, minus = jnp.split(self.shape(fitness), 2)
        num_top = min(self.num_top or len(plus), len(plus))
        top = jnp.argsort(jnp.minimum(plus, minus))[:num_top]
        spread = clip_std(jnp.std(jnp.concatenate([plus[top], minus[top]])))
        half = jnp.zeros_like(plus).at[top].set((plus[top] - minus[top]) / (2 * num_top * spread))
        return jnp.concatenate([half, -half])
