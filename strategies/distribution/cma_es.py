"""CMA-ES: a Gaussian search distribution whose covariance matrix and step size adapt.

Each generation samples members from N(mean, sigma^2 C) and ranks them. The mean moves to the weighted mean of the best
half. C learns from the path of the mean (rank-one update) and from the members (rank-mu update), where bad members
count with negative weights. The step size sigma grows or shrinks with the length of a second path (cumulative step-size
adaptation).

Reference: Hansen 2016, "The CMA Evolution Strategy: A Tutorial", arXiv 1604.00772, with the settings of its Table 1.
Equations: sampling (38) to (40), mean (41) and (42), step size (43) and (44), covariance (45) to (47).

Differences from the tutorial: members that were not drawn, because bounds or the user changed them, are pulled in if
they are far away (Hansen 2011, arXiv 1110.4181), and get no negative weights. C is kept safely positive definite in
single precision (`zoo.strategies.distribution.eigen`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import Evaluation, Population, Solution, Surrogate, normal_like
from zoo.strategies.distribution import scalars
from zoo.strategies.distribution.base import (
    DistributionStrategy,
    Parameters,
    accumulate,
    adapt_step_size,
    default_parameters,
    flat_step_size_and_units,
    flatten,
    flatten_members,
    h_sigma,
    in_units,
    pull_in,
    times_units,
    weights_by_rank,
)
from zoo.strategies.distribution.eigen import decompose_if


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
    units: jax.Array | None = None  # [d] unit of each parameter, in which it is searched; None: all are one


class CMAES(DistributionStrategy):
    """CMA-ES with active covariance adaptation and cumulative step-size adaptation.

    It learns how all pairs of parameters interact, in O(d^2) memory for d parameters.

    References:
        Hansen 2016, arXiv 1604.00772.
    """

    def std(self, state: CMAESState) -> Solution:
        """Returns sigma * sqrt(diag C), times the units."""
        _, unravel = flatten(state.mean)
        return unravel(times_units(state.sigma * jnp.sqrt(jnp.diagonal(state.covariance)), state.units))

    def condition_number(self, state: CMAESState) -> jax.Array:
        """Returns the condition number of C."""
        return jnp.square(jnp.max(state.scales) / jnp.min(state.scales))

    def _init(self, key: jax.Array, solution: Solution) -> CMAESState:
        flat, _ = flatten(solution)
        sigma, units = flat_step_size_and_units(self, solution)
        return CMAESState(
            mean=solution,
            sigma=sigma,
            path_sigma=jnp.zeros_like(flat),
            path_c=jnp.zeros_like(flat),
            covariance=jnp.eye(flat.size, dtype=flat.dtype),
            basis=jnp.eye(flat.size, dtype=flat.dtype),
            scales=jnp.ones_like(flat),
            generation=jnp.zeros((), jnp.int32),
            units=units,
        )

    def _ask(self, key: jax.Array, state: CMAESState, surrogate: Surrogate | None) -> tuple[Population, CMAESState]:
        mean, unravel = flatten(state.mean)
        size = self._num_members(state.mean)
        z = normal_like(key, mean, num_samples=size)
        y = (z * state.scales[None]) @ state.basis.T  # (38), (39): y = B D z
        return jax.vmap(unravel)(mean[None] + state.sigma * times_units(y, state.units)), state  # (40)

    def _tell(self, state: CMAESState, population: Population, evaluation: Evaluation) -> CMAESState:
        new = self.update(state, population, evaluation)
        d = self.space.num_dims(state.mean)
        interval = _eigen_interval(d, default_parameters(d, evaluation.fitness.shape[0]))
        due = new.generation % jnp.asarray(interval, new.generation.dtype) == 0
        covariance, basis, scales = decompose_if(due, new.covariance, new.basis, new.scales)
        return new._replace(covariance=covariance, basis=basis, scales=scales)

    def update(self, state: CMAESState, population: Population, evaluation: Evaluation) -> CMAESState:
        """Returns the state after one generation, but with the old eigendecomposition of C."""
        mean, unravel = flatten(state.mean)
        x = flatten_members(population)
        d = self.space.num_dims(state.mean)
        p = default_parameters(d, x.shape[0])
        weights = weights_by_rank(p.weights, evaluation.fitness, x.dtype)

        y = in_units(x - mean[None], state.units) / state.sigma
        if evaluation.repaired is not None:
            norms = jnp.sum(jnp.square(self._whiten(state, y)), axis=1)
            y = pull_in(y, evaluation.repaired, norms, d)
        y_mean = jnp.maximum(weights, 0) @ y  # (41)
        new_mean = mean + state.sigma * times_units(y_mean, state.units)  # (42), c_m = 1

        whitened = self._whiten(state, y_mean) @ state.basis.T
        path_sigma = accumulate(state.path_sigma, whitened, p.c_sigma, p.mu_eff)  # (43)
        norm = jnp.linalg.norm(path_sigma)
        sigma = adapt_step_size(state.sigma, norm, p)  # (44)
        h = h_sigma(norm, state.generation, d, p)
        path_c = accumulate(state.path_c, h * y_mean, p.c_c, p.mu_eff)  # (45)

        # (46): a negative weight is scaled by the member's Mahalanobis norm, so that C stays positive definite. A
        # member that bounds moved says nothing bad about the direction it was sampled in. A negative weight of it would
        # let C grow for ever.
        if evaluation.repaired is not None:
            weights = jnp.where(evaluation.repaired, jnp.maximum(weights, 0), weights)
        squared_norm = jnp.sum(jnp.square(self._whiten(state, y)), axis=1)
        scaled = weights * jnp.where(weights < 0, d / jnp.maximum(squared_norm, jnp.finfo(x.dtype).eps), 1)
        keep = 1 + p.c_1 * (1 - h) * p.c_c * (2 - p.c_c) - p.c_1 - p.c_mu * jnp.sum(weights)
        rank_one, rank_mu = p.c_1 * jnp.outer(path_c, path_c), p.c_mu * (y.T * scaled[None]) @ y
        covariance = self.space.keep_apart(keep * state.covariance + rank_one + rank_mu)  # (47)

        return CMAESState(
            mean=unravel(new_mean),
            sigma=sigma,
            path_sigma=path_sigma,
            path_c=path_c,
            covariance=covariance,
            basis=state.basis,
            scales=state.scales,
            generation=state.generation + 1,
            units=state.units,
        )

    def _whiten(self, state: CMAESState, y: jax.Array) -> jax.Array:
        """Returns D^-1 B^T y for vectors in the last axis. Multiplied by B, that is C^(-1/2) y."""
        return (y @ state.basis) / jnp.broadcast_to(state.scales, y.shape)


def _eigen_interval(d: int | jax.Array, p: Parameters) -> int | jax.Array:
    """Returns the number of generations from one decomposition to the next (Hansen 2016, appendix B.2)."""
    return scalars.maximum(1, scalars.ceil(1 / (10 * d * (p.c_1 + p.c_mu))))
