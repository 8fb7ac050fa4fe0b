"""Separable CMA-ES: CMA-ES with a diagonal covariance matrix, which is learned faster and costs O(d).

Sampling and step size are as in `cma_es`. Of the covariance only the variances are learned, with learning rates that
are (d + 2) / 3 times as large. It suits many parameters, and functions whose parameters hardly interact.

Reference: Ros, Hansen 2008, "A Simple Modification in CMA-ES Achieving Linear Time and Space Complexity", doi
10.1007/978-3-540-87700-4_30. What it keeps of CMA-ES is Hansen 2016, arXiv 1604.00772, whose equation numbers are
below.

As in the paper, all weights are positive. A linear update with negative weights would need the Mahalanobis norm of
every member to keep the variances positive.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from zoo.core import (
    Evaluation,
    Population,
    Solution,
    Surrogate,
    clip_std,
    in_single,
    normal_like,
    step_size_and_units,
    weighted_sum,
)
from zoo.core.promotion import common_dtype, promoted, promotion_of_others, times
from zoo.strategies.distribution import scalars
from zoo.strategies.distribution.base import (
    DistributionStrategy,
    Parameters,
    accumulate,
    adapt_step_size,
    default_parameters,
    h_sigma,
    moved,
    perturbed,
    pull_in,
    squared_norms,
    weights_by_rank,
)


class SepCMAESState(NamedTuple):
    """State of `SepCMAES`; all but the scalars in the structure of the solution."""

    mean: Solution
    sigma: jax.Array  # [] step size
    path_sigma: Solution  # conjugate evolution path
    path_c: Solution  # evolution path
    variances: Solution  # the diagonal of C
    generation: jax.Array  # []


class SepCMAES(DistributionStrategy):
    """Separable CMA-ES: a step size and a variance per parameter.

    References:
        Ros, Hansen 2008, doi 10.1007/978-3-540-87700-4_30.
    """

    def std(self, state: SepCMAESState) -> Solution:
        """Returns sigma * sqrt(C)."""
        return jax.tree.map(lambda s, m: s.astype(m.dtype), self._std(state), state.mean)

    def _std(self, state: SepCMAESState) -> Solution:
        return jax.tree.map(lambda c: state.sigma.astype(c.dtype) * jnp.sqrt(c), state.variances)

    def _init(self, key: jax.Array, solution: Solution) -> SepCMAESState:
        single = in_single(solution)
        sigma, units = step_size_and_units(self.sigma, single, self.space, "SepCMAES.sigma")
        ones = jax.tree.map(jnp.ones_like, single)
        return SepCMAESState(
            mean=solution,
            sigma=jnp.asarray(sigma, common_dtype(*jax.tree.leaves(single))),
            path_sigma=jax.tree.map(jnp.zeros_like, single),
            path_c=jax.tree.map(jnp.zeros_like, single),
            variances=ones if units is None else jax.tree.map(lambda u: clip_std(jnp.square(u)), units),
            generation=jnp.zeros((), jnp.int32),
        )

    def _ask(self, key: jax.Array, state: SepCMAESState, surrogate: Surrogate | None):
        noise = normal_like(key, state.variances, num_samples=self._num_members(state.mean))
        return jax.tree.map(perturbed, state.mean, self._std(state), noise), state

    def _tell(self, state: SepCMAESState, population: Population, evaluation: Evaluation) -> SepCMAESState:
        d = self.space.num_dims(state.mean)
        p = _separable_parameters(d, evaluation.fitness.shape[0])
        weights = weights_by_rank(p.weights, evaluation.fitness, state.sigma.dtype)

        deviations = jax.tree.map(lambda x, m: x - m[None], in_single(population), in_single(state.mean))
        if evaluation.repaired is not None:
            deviations = pull_in(deviations, evaluation.repaired, squared_norms(deviations, self._std(state)), d)
        y = jax.tree.map(lambda x: x / state.sigma.astype(x.dtype), deviations)
        y_mean = weighted_sum(weights, y)  # (41)
        y_squares = weighted_sum(weights, jax.tree.map(jnp.square, y))
        mean = jax.tree.map(lambda m, s: moved(m, state.sigma.astype(s.dtype) * s), state.mean, y_mean)  # (42)

        whitened = jax.tree.map(lambda s, c: s / jnp.sqrt(c), y_mean, state.variances)
        path_sigma = accumulate(state.path_sigma, whitened, p.c_sigma, p.mu_eff)  # (43)
        with promotion_of_others():  # optax adds squares of leaves that may differ in dtype
            norm = optax.tree.norm(path_sigma).astype(state.sigma.dtype)
        sigma = adapt_step_size(state.sigma, norm, p)  # (44)

        h = h_sigma(norm, state.generation, d, p)
        shown = jax.tree.map(lambda s: h.astype(s.dtype) * s, y_mean)
        path_c = accumulate(state.path_c, shown, p.c_c, p.mu_eff)  # (45)

        keep = 1 + p.c_1 * (1 - h) * p.c_c * (2 - p.c_c) - p.c_1 - p.c_mu

        def new_variances(c: jax.Array, path: jax.Array, squares: jax.Array) -> jax.Array:  # (47), its diagonal
            # Clipped, so that neither the variances nor sigma * sqrt(C) can underflow or overflow.
            parts = promoted(times(keep, c), times(p.c_1, jnp.square(path)), times(p.c_mu, squares))
            return clip_std((parts[0] + parts[1] + parts[2]).astype(c.dtype))

        variances = jax.tree.map(new_variances, state.variances, path_c, y_squares)
        return SepCMAESState(mean, sigma, path_sigma, path_c, variances, state.generation + 1)


def _separable_parameters(d: int | jax.Array, size: int) -> Parameters:
    """Returns the parameters of CMA-ES with positive weights only, and C learned (d + 2) / 3 times as fast.

    That factor is the ratio of the numbers of free parameters of a full and of a diagonal matrix (Ros, Hansen 2008,
    section 3). It holds for both learning rates, which the paper writes as one.
    """
    p = default_parameters(d, size)
    c_1 = p.c_1 * (d + 2) / 3
    c_mu = scalars.minimum(1 - c_1, p.c_mu * (d + 2) / 3)
    return p._replace(weights=jnp.maximum(p.weights, 0), c_1=c_1, c_mu=c_mu)
