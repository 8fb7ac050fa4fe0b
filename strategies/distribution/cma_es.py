"""CMA-ES: a Gaussian search distribution whose covariance matrix and step size adapt.

Reference: Hansen 2016, "The CMA Evolution Strategy: A Tutorial", arXiv 1604.00772. Equation numbers below are the
tutorial's; settings are those of its Table 1, with active (negative) weights.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from strategies.noise import clip_std
from zoo import number
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
        z = jax.random.normal(key, (size, mean.size), mean.dtype)
        y = (z * state.scales) @ state.basis.T  # (38), (39): y = B D z
        return jax.vmap(unravel)(mean + state.sigma * y), state  # (40)

    def _tell(self, state: CMAESState, population: Population, evaluation: Evaluation) -> CMAESState:
        mean, unravel = ravel_pytree(state.mean)
        x = jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(population)], axis=1)
        p = _parameters(x.shape[1], x.shape[0])
        fitness = jnp.where(jnp.isnan(evaluation.fitness), jnp.inf, evaluation.fitness)
        weights = jnp.zeros(x.shape[0], x.dtype).at[jnp.argsort(fitness)].set(jnp.asarray(p.weights, x.dtype))

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
        due = generation % p.eigen_interval == 0
        basis, scales = _decompose_if(due, covariance, state.basis, state.scales)
        return CMAESState(unravel(new_mean), sigma, path_sigma, path_c, covariance, basis, scales, generation)

    def _whiten(self, state: CMAESState, y: jax.Array) -> jax.Array:
        """Returns D^-1 B^T y for vectors in the last axis; a further B makes it C^(-1/2) y."""
        return (y @ state.basis) / state.scales


class _Parameters(NamedTuple):
    weights: np.ndarray  # [population_size], best first, the negative ones last
    mu_eff: float
    c_sigma: float
    d_sigma: float
    c_c: float
    c_1: float
    c_mu: float
    expected_norm: float  # E||N(0, I)||
    eigen_interval: int  # generations between two decompositions


def _parameters(d: int, size: int) -> _Parameters:
    """Returns the strategy parameters of Hansen 2016, Table 1."""
    raw = math.log((size + 1) / 2) - np.log(np.arange(1, size + 1))  # (49)
    positive, negative = np.maximum(raw, 0), np.minimum(raw, 0)
    mu_eff = positive.sum() ** 2 / np.square(positive).sum()
    mu_eff_negative = negative.sum() ** 2 / max(np.square(negative).sum(), 1e-300)
    c_sigma = (mu_eff + 2) / (d + mu_eff + 5)  # (55)
    d_sigma = 1 + 2 * max(0.0, math.sqrt((mu_eff - 1) / (d + 1)) - 1) + c_sigma  # (55)
    c_c = (4 + mu_eff / d) / (d + 4 + 2 * mu_eff / d)  # (56)
    c_1 = 2 / ((d + 1.3) ** 2 + mu_eff)  # (57)
    c_mu = min(1 - c_1, 2 * (0.25 + mu_eff + 1 / mu_eff - 2) / ((d + 2) ** 2 + mu_eff))  # (58)
    total_negative = min(  # (50), (51), (52)
        1 + c_1 / c_mu, 1 + 2 * mu_eff_negative / (mu_eff + 2), (1 - c_1 - c_mu) / (d * c_mu)
    )
    weights = positive / positive.sum() + total_negative * negative / max(-negative.sum(), 1e-300)  # (53)
    return _Parameters(
        weights=weights,
        mu_eff=mu_eff,
        c_sigma=c_sigma,
        d_sigma=d_sigma,
        c_c=c_c,
        c_1=c_1,
        c_mu=c_mu,
        expected_norm=math.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d**2)),
        eigen_interval=max(1, int(1 / (10 * d * (c_1 + c_mu)))),  # appendix B.2
    )


@jax.custom_batching.custom_vmap
def _decompose_if(
    due: jax.Array, covariance: jax.Array, basis: jax.Array, scales: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the eigenvectors of C and the square roots of its eigenvalues where due, else those given.

    All arguments may have the same leading axes. `vmap` would turn a `cond` into computing both sides in every
    generation; runs that are batched over seeds are due together, so one `cond` serves them all.
    """

    def decompose() -> tuple[jax.Array, jax.Array]:
        symmetric = (covariance + jnp.swapaxes(covariance, -1, -2)) / 2
        values, vectors = jnp.linalg.eigh(symmetric)
        # Round-off may leave the smallest eigenvalues at or below zero.
        floor = values[..., -1:] * jnp.finfo(values.dtype).eps
        new_scales = jnp.sqrt(jnp.maximum(values, jnp.maximum(floor, jnp.finfo(values.dtype).tiny)))
        return jnp.where(due[..., None, None], vectors, basis), jnp.where(due[..., None], new_scales, scales)

    return jax.lax.cond(jnp.any(due), decompose, lambda: (basis, scales))


@_decompose_if.def_vmap
def _decompose_batch(axis_size: int, in_batched: list[bool], *arguments: jax.Array):
    stacked = (
        a if batched else jnp.broadcast_to(a, (axis_size, *a.shape))
        for a, batched in zip(arguments, in_batched, strict=True)
    )
    return _decompose_if(*stacked), (True, True)
