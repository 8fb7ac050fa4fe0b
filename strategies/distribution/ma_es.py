"""MA-ES: CMA-ES without covariance matrix and eigendecomposition. It adapts a factor of the covariance directly.

A member is mean + sigma M z with z ~ N(0, I). The matrix M is multiplied by updates that are computed from the z of the
best members and from their evolution path, so that C = M M^T is never formed.

Reference: Beyer, Sendhoff 2017, "Simplify Your Covariance Matrix Adaptation Evolution Strategy", doi
10.1109/TEVC.2017.2680320. The labels (M4) to (M12) come from its Figure 3. Settings are the default parameters of
CMA-ES, with positive weights only.

Two differences: the update (M11) is multiplied out into outer products, which take O(d^2) per member where a product of
matrices takes O(d^3). And M is kept at the norm of the identity, with the rest in sigma, because only the product of
the two matters, and M could vanish or overflow.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import Evaluation, Population, Solution, Surrogate, clip_std, normal_like
from zoo.strategies.distribution.base import (
    DistributionStrategy,
    accumulate,
    adapt_step_size,
    default_parameters,
    flat_step_size_and_units,
    flatten,
    flatten_members,
    in_units,
    times_units,
    weights_by_rank,
)


class MAESState(NamedTuple):
    """State of `MAES`, for d parameters."""

    mean: Solution
    sigma: jax.Array  # [] step size
    path: jax.Array  # [d] evolution path s
    factor: jax.Array  # [d, d] M: a member is mean + sigma * M z
    noise: jax.Array  # [population_size, d] z of the members last asked for
    units: jax.Array | None = None  # [d] unit of each parameter, in which it is searched; None: all are one


class MAES(DistributionStrategy):
    """Matrix adaptation evolution strategy: a step size and a full matrix, in O(d^2) per member.

    References:
        Beyer, Sendhoff 2017, doi 10.1109/TEVC.2017.2680320.
    """

    @property
    def needs_all_members(self) -> str | None:
        """Why `tell` needs all members: it uses the noise that they were drawn with."""
        return "its update uses the noise that each of them was drawn with"

    @property
    def follows_population(self) -> bool:
        """False: to recover z from a member would take the inverse of M."""
        return False

    def std(self, state: MAESState) -> Solution:
        """Returns sigma * sqrt(diag(M M^T)), times the units."""
        _, unravel = flatten(state.mean)
        return unravel(times_units(state.sigma * jnp.linalg.norm(state.factor, axis=1), state.units))

    def _init(self, key: jax.Array, solution: Solution) -> MAESState:
        flat, _ = flatten(solution)
        sigma, units = flat_step_size_and_units(self, solution)
        return MAESState(
            mean=solution,
            sigma=sigma,
            path=jnp.zeros_like(flat),
            factor=jnp.eye(flat.size, dtype=flat.dtype),
            noise=jnp.zeros((self._num_members(solution), flat.size), flat.dtype),
            units=units,
        )

    def _ask(self, key: jax.Array, state: MAESState, surrogate: Surrogate | None) -> tuple[Population, MAESState]:
        mean, unravel = flatten(state.mean)
        z = normal_like(key, mean, num_samples=state.noise.shape[0])  # (M4)
        z = self.space.restrict_flat(z)  # `tell` uses this noise
        x = mean[None] + state.sigma * times_units(z @ state.factor.T, state.units)  # (M5), (M6)
        return jax.vmap(unravel)(x), state._replace(noise=z)

    def _tell(self, state: MAESState, population: Population, evaluation: Evaluation) -> MAESState:
        mean, unravel = flatten(state.mean)
        p = default_parameters(self.space.num_dims(state.mean), state.noise.shape[0])
        weights = weights_by_rank(jnp.maximum(p.weights, 0), evaluation.fitness, mean.dtype)

        y = in_units(flatten_members(population) - mean[None], state.units) / state.sigma  # M z
        new_mean = mean + state.sigma * times_units(weights @ y, state.units)  # (M9)
        path = accumulate(state.path, weights @ state.noise, p.c_sigma, p.mu_eff)  # (M10)

        # (M11), multiplied out: M (s s^T) and M (z z^T) are outer products. M times a d x d matrix would be O(d^3).
        rank_one = jnp.outer(state.factor @ path, path)
        rank_mu = (y.T * weights[None]) @ state.noise
        factor = (1 - (p.c_1 + p.c_mu) / 2) * state.factor + p.c_1 / 2 * rank_one + p.c_mu / 2 * rank_mu

        sigma = adapt_step_size(state.sigma, jnp.linalg.norm(path), p)  # (M12)
        # Only the product of sigma and M matters. Kept at the norm of the identity, M can neither vanish nor overflow.
        scale = jnp.linalg.norm(factor) / math.sqrt(len(factor))
        return MAESState(unravel(new_mean), clip_std(sigma * scale), path, factor / scale, state.noise, state.units)
