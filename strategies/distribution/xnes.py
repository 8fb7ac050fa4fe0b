"""xNES: exponential natural evolution strategy, a Gaussian with a full covariance matrix.

Members are ranked and get utilities. The mean takes a step along the natural gradient of the expected utility. The
covariance sigma^2 B B^T takes one in exponential coordinates, in which it stays positive definite: B and sigma are
multiplied by exponentials.

Reference: Glasmachers, Schaul, Yi, Wierstra, Schmidhuber 2010, "Exponential Natural Evolution Strategies", GECCO, doi
10.1145/1830483.1830557, Algorithm 1; Wierstra et al. 2014, JMLR 15, "Natural Evolution Strategies", Table 1 (settings).

Differences: the samples s are recovered from the members, so that bounds and the user may change them. A changed member
is pulled in if it is far away, and gets no negative utility in the step of the covariance. Exponents are bounded, and B
is kept if it has become singular to rounding.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import (
    Evaluation,
    Population,
    Solution,
    Surrogate,
    clip_std,
    distributions,
    normal_like,
    number,
    weighted_sum,
)
from zoo.strategies.distribution import scalars
from zoo.strategies.distribution.base import (
    DistributionStrategy,
    flat_step_size_and_units,
    flatten,
    flatten_members,
    in_units,
    pull_in,
    times_units,
)
from zoo.strategies.shaping import utilities

_MAX_EXPONENT = 16.0


class XNESState(NamedTuple):
    """State of `XNES`, for d parameters. The covariance matrix is sigma^2 B B^T."""

    mean: Solution
    sigma: jax.Array  # [] step size
    shape: jax.Array  # [d, d] B, of determinant one
    units: jax.Array | None = None  # [d] unit of each parameter, in which it is searched; None: all are one


class XNES(DistributionStrategy):
    """Exponential NES: steps of the natural gradient in exponential coordinates of the covariance matrix.

    Attributes:
        mean_learning_rate: Learning rate of the mean, in units of the natural gradient, at least 0.
        std_learning_rate: Learning rate of log sigma, at least 0. Defaults to (9 + 3 ln d) / (5 d sqrt(d)).
        shape_learning_rate: Learning rate of the shape B, at least 0. Defaults to (9 + 3 ln d) / (5 d sqrt(d)).

    References:
        Glasmachers et al. 2010, doi 10.1145/1830483.1830557, Algorithm 1.
    """

    mean_learning_rate: float = number(default=1.0, at_least=0, search=distributions.times(0.1, 2))
    std_learning_rate: float | None = number(default=None, at_least=0)
    shape_learning_rate: float | None = number(default=None, at_least=0)

    def std(self, state: XNESState) -> Solution:
        """Returns sigma * sqrt(diag(B B^T)), times the units."""
        _, unravel = flatten(state.mean)
        return unravel(times_units(state.sigma * jnp.linalg.norm(state.shape, axis=1), state.units))

    def condition_number(self, state: XNESState) -> jax.Array:
        """Returns the condition number of the covariance matrix."""
        singular_values = jnp.linalg.svd(state.shape, compute_uv=False)
        return jnp.square(singular_values[0] / jnp.maximum(singular_values[-1], jnp.finfo(singular_values.dtype).tiny))

    def _init(self, key: jax.Array, solution: Solution) -> XNESState:
        flat, _ = flatten(solution)
        sigma, units = flat_step_size_and_units(self, solution)
        return XNESState(solution, sigma, jnp.eye(flat.size, dtype=flat.dtype), units)

    def _ask(self, key: jax.Array, state: XNESState, surrogate: Surrogate | None) -> tuple[Population, XNESState]:
        mean, unravel = flatten(state.mean)
        s = normal_like(key, mean, num_samples=self._num_members(state.mean))
        return jax.vmap(unravel)(mean[None] + state.sigma * times_units(s @ state.shape.T, state.units)), state

    def _tell(self, state: XNESState, population: Population, evaluation: Evaluation) -> XNESState:
        flat, unravel = flatten(state.mean)
        identity = self.space.identity(flat)  # B stays the same where nothing is searched, or it could grow
        d = self.space.num_dims(state.mean)
        default = (9 + 3 * scalars.log(d)) / (5 * d * scalars.sqrt(d))
        std_rate = default if self.std_learning_rate is None else self.std_learning_rate
        shape_rate = default if self.shape_learning_rate is None else self.shape_learning_rate
        utility = utilities(evaluation.fitness).astype(flat.dtype)

        deviations = flatten_members(population) - flat[None]
        steps = in_units(deviations, state.units).T / state.sigma  # [d, population_size]
        solved = jnp.linalg.solve(state.shape, jnp.concatenate([steps, jnp.eye(flat.size, dtype=flat.dtype)], axis=1))
        s, inverse = jnp.split(solved, [steps.shape[1]], axis=1)
        of_shape = utility
        if evaluation.repaired is not None:
            norms = jnp.sum(jnp.square(s), axis=0)
            s = pull_in(s.T, evaluation.repaired, norms, d).T
            deviations = pull_in(deviations, evaluation.repaired, norms, d)
            # A member that bounds moved says nothing bad about the direction it was sampled in.
            of_shape = jnp.where(evaluation.repaired, jnp.maximum(utility, 0), utility)
        # G_M = sum_k u_k (s_k s_k^T - I). The utilities sum to zero unless bounds moved a member.
        gradient = (s * of_shape[None]) @ s.T - jnp.sum(of_shape) * identity
        gradient_sigma = jnp.trace(gradient) / d
        exponent = shape_rate / 2 * (gradient - gradient_sigma * identity)
        exponent_sigma = std_rate / 2 * gradient_sigma
        # A shape that is singular to rounding is kept, because its s are random; only the mean learns from this
        # generation.
        condition = jnp.linalg.norm(state.shape) * jnp.linalg.norm(inverse)
        is_usable = jnp.all(jnp.isfinite(gradient)) & (condition < 1 / float(jnp.finfo(flat.dtype).eps))
        # Beyond the range of `expm` there is only overflow. No step of sensible rates comes near.
        scale = jnp.minimum(1, _MAX_EXPONENT / jnp.maximum(jnp.linalg.norm(exponent), 1))
        exponent = jnp.where(is_usable, scale * exponent, 0)
        exponent_sigma = jnp.where(is_usable, jnp.clip(exponent_sigma, -_MAX_EXPONENT, _MAX_EXPONENT), 0)
        # Not a sum over the members: the utilities sum to zero only up to rounding, and the mean may be far from zero.
        step = weighted_sum(utility * self.mean_learning_rate, deviations)  # sigma B sum_k u_k s_k
        return XNESState(
            mean=unravel(flat + step),
            sigma=clip_std(state.sigma * jnp.exp(exponent_sigma)),
            # Padé's approximation takes less than half the time of an eigendecomposition of the symmetric exponent.
            shape=state.shape @ jax.scipy.linalg.expm(exponent),
            units=state.units,
        )
