"""Guided ES: searches where surrogate gradients point, without trusting them.

Perturbations are drawn from a Gaussian that is longer within the span of the last surrogate gradients than elsewhere.
Antithetic pairs then estimate the gradient from fitness. The surrogates only say where to search harder; the step
follows the fitness.

Reference: Maheswaranathan, Metz, Tucker, Choi, Sohl-Dickstein 2019, "Guided evolutionary strategies: augmenting random
search with surrogate gradients", arXiv 1806.10230. The search covariance is sigma^2 (alpha/n I + (1 - alpha)/k U U^T),
the estimate beta/(2 sigma^2 P) sum_i eps_i (f(m + eps_i) - f(m - eps_i)) over P pairs.

With `adaptive=True`, alpha and beta follow `optimal_coefficients`, which minimise the mean squared error for P pairs.
They depend on how much of the gradient lies in the subspace, which is estimated from the run.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import (
    Evaluation,
    Population,
    Solution,
    State,
    Surrogate,
    at_least_float32,
    distributions,
    number,
    static,
    unit,
)
from zoo.core.promotion import common_dtype, times
from zoo.strategies.gradient.base import DescentState, antithetic
from zoo.strategies.gradient.subspace import (
    Basis,
    EllipsoidStrategy,
    no_directions,
    orthonormal_basis,
    store,
)

# Decay of the running averages behind `adaptive`: they span about a hundred generations.
_DECAY = 0.99


class GuidedESState(NamedTuple):
    """State of `GuidedES`."""

    descent: DescentState
    directions: Solution  # [subspace_dims, ...], the last surrogate gradients at length one, or zero
    coordinates: jax.Array  # [num_pairs, subspace_dims], of perturbations over sigma, in the subspace
    rank: jax.Array  # [], of the subspace that they were drawn from
    squares: jax.Array  # [2], averages of squared norms: the gradient, its part in the subspace; if adaptive
    alpha: jax.Array  # []
    beta: jax.Array  # []


class GuidedES(EllipsoidStrategy):
    """Guided ES: antithetic perturbations with a part in the span of the last surrogate gradients.

    A surrogate gradient that is zero, repeated or not finite adds no direction. Without any direction, this is
    OpenAI-ES with perturbations of length sigma. The expectation of the estimate is beta Sigma grad f, where Sigma is
    the search covariance over sigma^2.

    Attributes:
        alpha: Weight of the whole space in the search covariance, between 0 and 1. 1 ignores the surrogates, 0 searches
            only their span.
        beta: Scale of the estimate, above 0. It has no effect on an optimizer that is invariant to scale.
        adaptive: Whether alpha and beta adapt, starting from those values, by the closed form that minimises the mean
            squared error of the estimate. How much of the gradient lies in the subspace is estimated from the run,
            which takes more pairs than `subspace_dims`. The closed form looks one step ahead, and so favours the
            subspace more than a whole run may want; hence `min_alpha`.
        min_alpha: Smallest alpha of an adaptive run, above 0, at most 1. Without any search outside the subspace,
            nothing would tell how good the subspace is.

    References:
        Maheswaranathan et al. 2019, arXiv 1806.10230.
    """

    alpha: float = number(default=0.5, at_least=0, at_most=1, search=distributions.uniform(0.05, 1))
    beta: float = number(default=2.0, above=0)
    adaptive: bool = static(default=False)
    min_alpha: float = number(default=0.1, above=0, at_most=1)

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        if self.adaptive and self.population_size is not None and self.population_size // 2 <= self.subspace_dims:
            raise ValueError(
                "GuidedES(adaptive=True) needs more antithetic pairs than the subspace has dimensions, to tell the "
                f"gradient's part in it from the rest: population_size must be at least {2 * self.subspace_dims + 2} "
                f"for subspace_dims={self.subspace_dims}, got {self.population_size}."
            )

    def takes_surrogate(self, state: State) -> bool:
        """Returns True."""
        return True

    def basis(self, state: GuidedESState) -> Basis:
        """Returns the span of the last surrogate gradients."""
        return orthonormal_basis(state.directions)

    def alpha_at(self, state: GuidedESState) -> jax.Array:
        """Returns the weight of the whole space in the search covariance."""
        return state.alpha

    def weights(self, state: GuidedESState, fitness: jax.Array) -> jax.Array:
        """Returns beta times the weights of OpenAI-ES."""
        return times(state.beta, super().weights(state, fitness))

    def _init(self, key: jax.Array, solution: Solution) -> GuidedESState:
        dtype = at_least_float32(common_dtype(*jax.tree.leaves(solution)))
        alpha = jnp.maximum(self.alpha, self.min_alpha) if self.adaptive else self.alpha
        return GuidedESState(
            descent=self.start(solution),
            directions=no_directions(solution, self.subspace_dims),
            coordinates=jnp.zeros((self._num_members(solution) // 2, self.subspace_dims), dtype),
            rank=jnp.zeros((), jnp.int32),
            squares=jnp.zeros(2, dtype),
            alpha=jnp.asarray(alpha, dtype),
            beta=jnp.asarray(self.beta, dtype),
        )

    def _ask(self, key: jax.Array, state: GuidedESState, surrogate: Surrogate | None) -> tuple[Population, State]:
        gradient = surrogate(state.descent.mean)  # pyright: ignore[reportOptionalCall] - `ask` checked it
        state = state._replace(directions=store(state.directions, unit(gradient), state.descent.generation))
        basis = self.basis(state)
        noise = self.draw_around(key, state, basis)
        coordinates = basis.coordinates(noise).astype(state.coordinates.dtype)
        state = state._replace(coordinates=coordinates, rank=basis.rank.astype(jnp.int32))
        return self.perturb(state, noise), state

    def _tell(self, state: GuidedESState, population: Population, evaluation: Evaluation) -> GuidedESState:
        told = super()._tell(state, population, evaluation)
        if not self.adaptive:
            return told
        num_pairs = len(state.coordinates)
        slopes = (antithetic(self.shape(evaluation.fitness))[:num_pairs] / self.sigma_at(state)).astype(
            state.coordinates.dtype
        )
        squares = self._update_squares(state, slopes)
        is_known = squares[0] > 0  # false where all fitness was equal, or none finite
        fraction = jnp.clip(squares[1] / jnp.where(is_known, squares[0], 1), 0, 1)
        alpha, beta = optimal_coefficients(
            fraction, self.space.num_dims(state.descent.mean), state.rank, num_pairs, self.min_alpha
        )
        return told._replace(
            squares=squares,
            alpha=jnp.where(is_known, alpha, state.alpha).astype(state.alpha.dtype),
            beta=jnp.where(is_known, beta, state.beta).astype(state.beta.dtype),
        )

    def _update_squares(self, state: GuidedESState, slopes: jax.Array) -> jax.Array:
        """Averages unbiased estimates of |g|^2 and |U^T g|^2, where g is the gradient.

        A slope is y = g . eps / sigma. In the subspace the perturbation is w = U^T eps / sigma, which is N(0, v I); the
        rest of it is N(0, a I). A least squares fit of y to w leaves residuals with the variance a |g - U U^T g|^2 per
        degree of freedom. Subtracted from E[y^2], this variance leaves v |U^T g|^2.
        """
        whole, inside = self._variances(state, state.rank)
        fit = jnp.linalg.lstsq(state.coordinates, slopes)[0]
        residuals = slopes - state.coordinates @ fit
        rest = jnp.sum(residuals**2) / (len(slopes) - state.rank).astype(slopes.dtype)
        within = (jnp.mean(slopes**2) - rest) / (whole + inside)
        new = jnp.stack([within + rest / whole, within]).astype(state.squares.dtype)
        # Early averages are plain means of the estimates so far.
        weight = jnp.maximum(1 - _DECAY, 1 / (state.descent.generation + 1))
        averages = state.squares + weight.astype(new.dtype) * (new - state.squares)
        return jnp.where(jnp.all(jnp.isfinite(averages)), averages, state.squares)


def optimal_coefficients(
    fraction: jax.Array | float,
    num_dims: int | jax.Array,
    rank: jax.Array | int,
    num_pairs: int,
    min_alpha: jax.Array | float = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """Returns the alpha and beta that minimise the mean squared error of the estimate of a linear function's gradient.

    Let r = |U^T g|^2 / |g|^2, A = alpha/n + (1 - alpha) r/k, and B = A^2 + (1 - alpha)^2 r (1 - r)/k^2. With E[g_hat] =
    beta Sigma g, the squared bias over |g|^2 is 1 - 2 beta A + beta^2 B, and the variance over |g|^2 is beta^2 (A +
    B)/P. So beta = A / (B + (A + B)/P), and 1 - alpha minimises (P + 1) (B - A^2)/A^2 + 1/A. Alpha is 1 if r <= k/n, 0
    if r >= (k + 2P + 2)/(n + 2P + 2), and between them otherwise.

    Args:
        fraction: r, the fraction of the squared norm of the gradient that lies in the subspace.
        num_dims: n.
        rank: k. If it is 0, without a subspace, alpha is 1.
        num_pairs: P.
        min_alpha: The smallest alpha to return.
    """
    size = jnp.maximum(rank, 1).astype(jnp.result_type(fraction, float))
    fraction = jnp.where(rank > 0, fraction, 0.0)
    inside = fraction * num_dims / size  # all in units of 1/n from here on
    gain = inside - 1
    spread = inside * (num_dims / size - inside)
    denominator = 2 * (num_pairs + 1) * spread / num_dims - gain**2
    share = jnp.where(denominator > 0, gain / jnp.where(denominator > 0, denominator, 1), 1.0)
    share = jnp.where(gain <= 0, 0.0, jnp.minimum(jnp.where(denominator > 0, share, 1.0), 1 - min_alpha))
    first = 1 + share * gain
    second = first**2 + share**2 * spread
    beta = num_dims * first / (second + (num_dims * first + second) / num_pairs)
    return 1 - share, beta
