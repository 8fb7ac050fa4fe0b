"""Self-guided ES: searches where its past estimates of the gradient point.

Each antithetic pair is drawn either from the span of the last `subspace_dims` estimates, or from the orthogonal
complement of that span. The probability of the first adapts: it grows while pairs inside the span find lower fitness
than pairs outside, and shrinks while they do not.

Reference: Liu, Li, Qian 2020, "Self-Guided Evolution Strategies with Historical Estimated Gradients", IJCAI 2020.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import Evaluation, Population, Solution, State, Surrogate, number, static, unit
from zoo.core.promotion import common_dtype, promoted
from zoo.strategies.gradient.base import DescentState
from zoo.strategies.gradient.subspace import Basis, SubspaceStrategy, combine, no_directions, orthonormal_basis, store
from zoo.strategies.shaping import unshaped


class SelfGuidedESState(NamedTuple):
    """State of `SelfGuidedES`."""

    descent: DescentState
    directions: Solution  # [subspace_dims, ...], the last estimates, scaled to length one
    is_inside: jax.Array  # [num_pairs], whether a pair was drawn from the subspace
    alpha: jax.Array  # []


class SelfGuidedES(SubspaceStrategy):
    """Self-guided ES: each antithetic pair is drawn from the span of the last estimates, or from its complement.

    The probability alpha of the first grows by the factor `alpha_rate` where pairs inside found the lower fitness (the
    mean over the pairs of the better member), and shrinks by it where pairs outside did. Until `subspace_dims`
    estimates have been made, all pairs are drawn from the whole space. The estimate is the plain mean over pairs. Its
    expectation is alpha times the part of the gradient inside, plus 1 - alpha times the part outside.

    Attributes:
        sigma: Standard deviation of a perturbation in each direction of the space it is drawn from, in the units of the
            solution, above 0.
        subspace_dims: Number of past estimates that span the subspace, at least 1.
        alpha: Initial probability that a pair is drawn from the subspace, between 0 and 1.
        alpha_rate: Factor by which that probability changes per generation, at least 1.
        min_alpha: Smallest value of that probability.
        max_alpha: Largest value of that probability.

    References:
        Liu, Li, Qian 2020, IJCAI.
    """

    subspace_dims: int = static(default=20, at_least=1)
    alpha: float = number(default=0.5, at_least=0, at_most=1)
    alpha_rate: float = number(default=1.005, at_least=1)
    min_alpha: float = number(default=0.3, at_least=0, at_most=1)
    max_alpha: float = number(default=0.7, at_least=0, at_most=1)

    def basis(self, state: SelfGuidedESState) -> Basis:
        """Returns the span of the last estimates; an empty one until there are enough."""
        return orthonormal_basis(state.directions).only_if(state.descent.generation >= self.subspace_dims)

    def std(self, state: SelfGuidedESState) -> Solution:
        """Returns the standard deviation per parameter: the root of the diagonal of the mixture's covariance."""
        basis = self.basis(state)
        inside = self._probability(state, basis)

        def std(m: jax.Array, u: jax.Array) -> jax.Array:
            u = u.astype(inside.dtype)
            variance = inside * u + (1 - inside) * jnp.maximum(1 - u, 0)
            return (self.sigma_at(state) * jnp.sqrt(variance)).astype(m.dtype)

        return jax.tree.map(std, state.descent.mean, basis.squared_entries())

    def _probability(self, state: SelfGuidedESState, basis: Basis) -> jax.Array:
        """Returns the probability that a pair is drawn from the subspace.

        It is one if the subspace is the whole space, and zero if the subspace is empty.
        """
        is_whole = basis.rank == jnp.asarray(self.space.num_dims(state.descent.mean), basis.rank.dtype)
        return jnp.where(basis.rank > 0, jnp.where(is_whole, 1, state.alpha), 0)

    def _init(self, key: jax.Array, solution: Solution) -> SelfGuidedESState:
        return SelfGuidedESState(
            descent=self.start(solution),
            directions=no_directions(solution, self.subspace_dims),
            is_inside=jnp.zeros(self._num_members(solution) // 2, bool),
            alpha=jnp.asarray(self.alpha, common_dtype(*jax.tree.leaves(solution))),
        )

    def _ask(self, key: jax.Array, state: SelfGuidedESState, surrogate: Surrogate | None) -> tuple[Population, State]:
        basis = self.basis(state)
        key_noise, key_choice = jax.random.split(key)
        num_pairs = len(state.is_inside)
        chance = jax.random.uniform(key_choice, (num_pairs,))
        is_inside = jnp.less(*promoted(chance, self._probability(state, basis)))
        noise = self.draw(key_noise, state)
        # The projections of a normal vector on a space and on its complement are normal there, so that one draw serves
        # both.
        coordinates = basis.coordinates(noise)
        within = jnp.where(is_inside[:, None], coordinates, -coordinates)
        noise = combine(noise, jnp.where(is_inside, 0, 1), basis, within)
        return self.perturb(state, noise), state._replace(is_inside=is_inside)

    def _tell(self, state: SelfGuidedESState, population: Population, evaluation: Evaluation) -> SelfGuidedESState:
        gradient = self.estimate(state, population, evaluation)
        best = jnp.min(unshaped(evaluation.fitness).reshape(2, -1), axis=0)
        best = best - jnp.min(best)  # then means of equal values are equal for any count: zero on a plateau
        inside, outside = (
            jnp.sum(jnp.where(chosen, best, 0)) / jnp.maximum(jnp.sum(chosen, dtype=best.dtype), 1)
            for chosen in (state.is_inside, ~state.is_inside)
        )
        has_both = jnp.any(state.is_inside) & jnp.any(~state.is_inside)
        factor = jnp.where(inside < outside, self.alpha_rate, 1 / self.alpha_rate)
        alpha = jnp.clip(state.alpha * jnp.where(has_both, factor, 1.0), self.min_alpha, self.max_alpha)
        return self.descend(state, gradient)._replace(
            directions=store(state.directions, unit(gradient), state.descent.generation),
            alpha=jnp.where(has_both, alpha, state.alpha).astype(state.alpha.dtype),
        )
