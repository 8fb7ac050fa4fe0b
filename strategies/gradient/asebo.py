"""ASEBO: searches the principal directions of its past estimates of the gradient.

A principal component analysis of the past estimates gives a subspace. Perturbations are drawn with the covariance of
guided ES around it. The more of the latest estimate lies outside the subspace, the more the whole space is searched.

Reference: Choromanski, Pacchiano, Parker-Holder, Tang, Sindhwani 2019, "From Complexity to Simplicity: Adaptive
ES-Active Subspaces for Blackbox Optimization", arXiv 1903.04268.

The paper adapts the number of samples, and the probability of drawing from the subspace. This code has a fixed
population, and takes |g outside| / |g inside| as the weight of the whole space, as public implementations do.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import (
    Evaluation,
    Population,
    Solution,
    Surrogate,
    at_least_float32,
    distributions,
    number,
    scale_down,
    static,
)
from zoo.core.promotion import common_dtype
from zoo.strategies.gradient.base import DescentState
from zoo.strategies.gradient.subspace import (
    Basis,
    EllipsoidStrategy,
    inner_products,
    no_directions,
    orthonormal_basis,
    store,
)


class ASEBOState(NamedTuple):
    """State of `ASEBO`."""

    descent: DescentState
    directions: Solution  # [subspace_dims, ...], the last estimates
    alpha: jax.Array  # []
    coefficients: jax.Array  # [subspace_dims, subspace_dims], of the basis of the population


class ASEBO(EllipsoidStrategy):
    """ASEBO: the search covariance of guided ES, with a subspace from a principal component analysis of past estimates.

    The covariance of the last `subspace_dims` estimates g decays, cov <- decay cov + (1 - decay) g g^T. Its first
    principal directions that together explain the fraction `explained` span the subspace. The weight alpha of the whole
    space is |g outside| / |g inside| of the latest estimate, at most one.

    Attributes:
        subspace_dims: Number of past estimates that are kept, at least 1. Until that many have been made, the whole
            space is searched.
        decay: Decay of their covariance per generation, above 0, at most 1.
        explained: Fraction of the covariance that the subspace must explain, above 0, at most 1.

    References:
        Choromanski et al. 2019, arXiv 1903.04268.
    """

    subspace_dims: int = static(default=20, at_least=1)
    decay: float = number(default=0.99, above=0, at_most=1, search=distributions.uniform(0.8, 0.999))
    explained: float = number(default=0.995, above=0, at_most=1, search=distributions.uniform(0.8, 0.999))

    def basis(self, state: ASEBOState) -> Basis:
        """Returns the principal directions of the past estimates; an empty basis until there are enough."""
        age = (state.descent.generation - 1 - jnp.arange(self.subspace_dims, dtype=jnp.int32)) % self.subspace_dims
        weights = jnp.sqrt(self.decay) ** age.astype(float)

        def weigh(d: jax.Array) -> jax.Array:
            return weights.astype(d.dtype).reshape(-1, *[1] * (d.ndim - 1)) * d

        scaled, largest = scale_down(jax.tree.map(weigh, state.directions))
        basis = orthonormal_basis(scaled, explained=self.explained)
        weights = weights.astype(basis.coefficients.dtype)
        coefficients = basis.coefficients * weights[None] / jnp.where(largest > 0, largest, 1)
        basis = Basis(state.directions, coefficients.astype(basis.coefficients.dtype), basis.rank)
        return basis.only_if(state.descent.generation >= self.subspace_dims)

    def alpha_at(self, state: ASEBOState) -> jax.Array:
        """Returns the weight of the whole space in the search covariance."""
        return state.alpha

    def _init(self, key: jax.Array, solution: Solution) -> ASEBOState:
        dtype = at_least_float32(common_dtype(*jax.tree.leaves(solution)))
        return ASEBOState(
            descent=self.start(solution),
            directions=no_directions(solution, self.subspace_dims),
            alpha=jnp.ones((), dtype),
            coefficients=jnp.zeros((self.subspace_dims, self.subspace_dims), dtype),
        )

    def _ask(self, key: jax.Array, state: ASEBOState, surrogate: Surrogate | None) -> tuple[Population, ASEBOState]:
        basis = self.basis(state)
        population = self.perturb(state, self.draw_around(key, state, basis))
        return population, state._replace(coefficients=basis.coefficients.astype(state.coefficients.dtype))

    def _tell(self, state: ASEBOState, population: Population, evaluation: Evaluation) -> ASEBOState:
        gradient = self.estimate(state, population, evaluation)
        scaled, _ = scale_down(jax.tree.map(lambda g: g[None], gradient))
        basis = Basis(state.directions, state.coefficients, jnp.zeros((), jnp.int32))  # the rank does not matter here
        inside = jnp.sum(basis.coordinates(scaled) ** 2)
        outside = jnp.maximum(inner_products(scaled, scaled)[0, 0] - inside, 0)
        ratio = jnp.where(inside > 0, jnp.sqrt(outside / jnp.where(inside > 0, inside, 1)), 1.0)
        return self.descend(state, gradient)._replace(
            directions=store(state.directions, gradient, state.descent.generation),
            alpha=jnp.minimum(ratio, 1.0).astype(state.alpha.dtype),
        )
