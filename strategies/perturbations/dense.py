"""Stacked arrays: every member is stored, so that any code can index, print and evaluate it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from zoo.core import Population, Solution, normal_like, sharding
from zoo.strategies.perturbations.base import Noise, Perturbation
from zoo.strategies.perturbations.seeded import Seeded


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dense(Perturbation):
    """Gaussian perturbations, as stacked arrays `[population_size, ...]`."""

    def draw(self, key: jax.Array, solution: Solution, num_samples: int) -> Any:
        """Returns standard normal noise in the structure of the solution, `[num_samples, ...]` for each leaf."""
        if sharding.num_shards() > 1:  # each device draws the noise of its own members
            return Seeded(dtype=self.dtype).draw(key, solution, num_samples)
        return normal_like(key, solution, num_samples=num_samples)

    def perturb(self, mean: Solution, sigma: jax.Array, noise: Any, signs: tuple[int, ...] = (1, -1)) -> Population:
        """Returns the population; see `Perturbation.perturb`."""
        if isinstance(noise, Noise):
            population = noise.form.perturb(mean, sigma, noise, signs)
            return population.one_member_a_row().map(lambda x: x)

        def members(m: jax.Array, z: jax.Array) -> jax.Array:
            scale = sigma.reshape(-1, *[1] * m.ndim) if sigma.ndim else sigma
            step = scale.astype(m.dtype) * z
            parts = {1: lambda: m[None] + step, -1: lambda: m[None] - step, 0: lambda: jnp.broadcast_to(m, step.shape)}
            return jnp.concatenate([parts[sign]() for sign in signs]).astype(self.dtype or m.dtype)

        return jax.tree.map(members, mean, noise)
