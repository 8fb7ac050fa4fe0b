"""CMA-ES: a Gaussian search distribution whose covariance matrix and step size adapt.

Reference: Hansen 2016, "The CMA Evolution Strategy: A Tutorial", arXiv 1604.00772. Equation numbers below are the
tutorial's; settings are those of its Table 1, with active (negative) weights.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from strategies.distribution.base import Parameters, default_parameters, flatten_members, weights_by_rank
from strategies.distribution.eigen import decompose_if
from strategies.noise import clip_std, normal_like
from zoo import number, static
from zoo.strategy import Evaluation, Population, Solution, Strategy, Surrogate


class CMAESState(NamedTuple):
    """State of `CMAES`, for d parameters."""

    mean: Solution
    sigma: jax.Array  # [] step size
    path_sigma: jax.Array  # [d] conjugate evolution path
    path_c: jax.Array  # [d] evolution path
    covariance: jax.Array  # [d, d] C
    basis: jax.Array  # [d, d] B, the eigenvectors of C
    scales: jax.Array  # [d] D, the square roots of the eigenvalues of C
    generation: jax.Array  # []


class CMAES(Strategy):
    """CMA-ES with active covariance adaptation and cumulative step-size adaptation.

    Attributes:
        sigma: Initial step size, about a third of the distance to where the optimum may be.

    References:
        Hansen 2016, arXiv 1604.00772.
    """

    population_size: int | None = static(default=None, at_least=2)
    sigma: float = number(default=0.3, above=0)

    def mean(self, state: CMAESState) -> Solution:
        """Returns the mean of the search distribution."""
        return state.mean

    def std(self, state: CMAESState) -> Solution:
        """Returns sigma * sqrt(diag C)."""
        _, unravel = ravel_pytree(state.mean)
        return unravel(state.sigma * jnp.sqrt(jnp.diagonal(state.covariance)))

    def _init(self, key: jax.Array, solution: Solution) -> CMAESState:
        flat, _ = ravel_pytree(solution)
        return CMAESState(
            mean=solution,
            sigma=jnp.asarray(self.sigma, flat.dtype),
            path_sigma=jnp.zeros_like(flat),
            path_c=jnp.zeros_like(flat),
            covariance=jnp.eye(flat.size, dtype=flat.dtype),
            basis=jnp.eye(flat.size, dtype=flat.dtype),
            scales=jnp.ones_like(flat),
            generation=jnp.zeros((), jnp.int32),
        )

    def _ask(self, key: jax.Array, state: CMAESState, surrogate: Surrogate | None) -> tuple[Population, CMAESState]:
        mean, unravel = ravel_pytree(state.mean)
        size = self._num_members(state.mean)
        z = normal_like(key, mean, num_samples=size)
        y = (z * state.scales) @ state.basis.T  # (38), (39): y = B D z
        return jax.vmap(unravel)(mean + state.sigma * y), state  # (40)

    def _tell(self, state: CMAESState, population: Population, evaluation: Evaluation) -> CMAESState:
        mean, unravel = ravel_pytree(state.mean)
        x = flatten_members(population)
        p = default_parameters(x.shape[1], x.shape[0])
        weights = weights_by_rank(p.weights, evaluation.fitness, x.dtype)

        y = (x - mean) / state.sigma
        y_mean = jnp.maximum(weights, 0) @ y  # (41)
        new_mean = mean + state.sigma * y_mean  # (42), c_m = 1

        path_sigma = (1 - p.c_sigma) * state.path_sigma + math.sqrt(
            p.c_sigma * (2 - p.c_sigma) * p.mu_eff
        ) * self._whiten(state, y_mean) @ state.basis.T  # (43)
        norm = jnp.linalg.norm(path_sigma)
        exponent = (p.c_sigma / p.d_sigma) * (norm / p.expected_norm - 1)
        sigma = clip_std(state.sigma * jnp.exp(jnp.minimum(exponent, 1)))  # (44)

        decay = 1 - (1 - p.c_sigma) ** (2 * (state.generation + 1).astype(x.dtype))
        h_sigma = (norm / jnp.sqrt(decay) < (1.4 + 2 / (x.shape[1] + 1)) * p.expected_norm).astype(x.dtype)
        path_c = (1 - p.c_c) * state.path_c + h_sigma * math.sqrt(p.c_c * (2 - p.c_c) * p.mu_eff) * y_mean  # (45)

        # (46): a negative weight is scaled by the member's Mahalanobis norm, so that C stays positive definite.
        squared_norm = jnp.sum(jnp.square(self._whiten(state, y)), axis=1)
        scaled = weights * jnp.where(weights < 0, x.shape[1] / jnp.maximum(squared_norm, jnp.finfo(x.dtype).eps), 1)
        keep = 1 + p.c_1 * (1 - h_sigma) * p.c_c * (2 - p.c_c) - p.c_1 - p.c_mu * p.weights.sum()
        covariance = keep * state.covariance + p.c_1 * jnp.outer(path_c, path_c) + p.c_mu * (y.T * scaled) @ y  # (47)

        generation = state.generation + 1
        due = generation % eigen_interval(x.shape[1], p) == 0
        covariance, basis, scales = decompose_if(due, covariance, state.basis, state.scales)
        return CMAESState(unravel(new_mean), sigma, path_sigma, path_c, covariance, basis, scales, generation)

    def _whiten(self, state: CMAESState, y: jax.Array) -> jax.Array:
        """Returns D^-1 B^T y for vectors in the last axis; a further B makes it C^(-1/2) y."""
        return (y @ state.basis) / state.scales


def eigen_interval(d: int, p: Parameters) -> int:
    """Returns the number of generations from one decomposition to the next (Hansen 2016, appendix B.2)."""
    return max(1, math.ceil(1 / (10 * d * (p.c_1 + p.c_mu))))
