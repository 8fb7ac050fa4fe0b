"""LRA-CMA-ES: CMA-ES whose learning rates keep the signal-to-noise ratio of its updates constant.

On multimodal and noisy functions the updates are mostly noise, and small learning rates average over it. A default
population then does what otherwise takes a large one. Moving averages of the updates of mean and covariance tell signal
from noise, and each update is multiplied by its own learning rate.

Reference: Nomura, Akimoto, Ono 2023, "CMA-ES with Learning Rate Adaptation: Can CMA-ES with Default Population Size
Solve Multimodal and Noisy Problems?", GECCO, arXiv 2304.03473, Algorithm 1. The update itself is as in `cma_es`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import Evaluation, Population, Solution, Surrogate, clip_std, number
from zoo.strategies.distribution.base import DistributionStrategy, flatten, in_units
from zoo.strategies.distribution.cma_es import CMAES, CMAESState
from zoo.strategies.distribution.eigen import decompose


class Rate(NamedTuple):
    """A learning rate, and moving averages of the updates that it multiplies, in local coordinates."""

    average: jax.Array  # E: [d] of the mean, [d, d] of the covariance
    square: jax.Array  # [] V: average of the squared norm of the updates
    rate: jax.Array  # [] eta


class LRACMAESState(NamedTuple):
    """State of `LRACMAES`, for d parameters."""

    cma: CMAESState
    mean_rate: Rate
    covariance_rate: Rate


class LRACMAES(DistributionStrategy):
    """CMA-ES with learning rate adaptation.

    It takes an eigendecomposition in every generation, where CMA-ES takes one in about 1 / (10 d (c_1 + c_mu))
    generations, and half a dozen products of d x d matrices.

    Attributes:
        alpha: Signal-to-noise ratio to aim at, as a multiple of the learning rate, above 0.
        beta_mean: Weight of a new update in the moving averages for the mean, above 0, at most 1.
        beta_covariance: Weight of a new update in the moving averages for the covariance, above 0, at most 1.
        gamma: Damping of the changes of the learning rates, at least 0; smaller values damp more.

    References:
        Nomura, Akimoto, Ono 2023, arXiv 2304.03473.
    """

    alpha: float = number(default=1.4, above=0)
    beta_mean: float = number(default=0.1, above=0, at_most=1)
    beta_covariance: float = number(default=0.03, above=0, at_most=1)
    gamma: float = number(default=0.1, at_least=0)

    def mean(self, state: LRACMAESState) -> Solution:
        """Returns the mean of the search distribution."""
        return self._cma.mean(state.cma)

    def std(self, state: LRACMAESState) -> Solution:
        """Returns sigma * sqrt(diag C)."""
        return self._cma.std(state.cma)

    def condition_number(self, state: LRACMAESState) -> jax.Array:
        """Returns the condition number of C."""
        return self._cma.condition_number(state.cma)

    def map_mean(self, state: LRACMAESState, fn: Callable[[Solution], Solution]) -> LRACMAESState:
        """Returns the state with the mean changed."""
        return state._replace(cma=self._cma.map_mean(state.cma, fn))

    @property
    def _cma(self) -> CMAES:
        return CMAES(population_size=self.population_size, sigma=self.sigma, space=self.space)

    def _init(self, key: jax.Array, solution: Solution) -> LRACMAESState:
        cma = self._cma.init(key, solution)

        def rate(average: jax.Array) -> Rate:
            return Rate(jnp.zeros_like(average), jnp.zeros_like(cma.sigma), jnp.ones_like(cma.sigma))

        return LRACMAESState(cma, rate(cma.path_c), rate(cma.covariance))

    def _ask(
        self, key: jax.Array, state: LRACMAESState, surrogate: Surrogate | None
    ) -> tuple[Population, LRACMAESState]:
        return self._cma.ask(key, state.cma, surrogate)[0], state

    def _tell(self, state: LRACMAESState, population: Population, evaluation: Evaluation) -> LRACMAESState:
        old, new = state.cma, self._cma.update(state.cma, population, evaluation)
        old_mean, unravel = flatten(old.mean)
        mean_step = flatten(new.mean)[0] - old_mean
        # The paper's Sigma = sigma^2 C. Here and below it is in units of the old sigma^2, which may be too small to
        # square.
        covariance_step = jnp.square(new.sigma / old.sigma) * new.covariance - old.covariance
        covariance_step = self.space.restrict_flat(self.space.restrict_flat(covariance_step).T).T

        # Local coordinates, in which the old distribution is standard normal.
        inverse_root = (old.basis / old.scales[None]) @ old.basis.T
        local_mean = inverse_root @ in_units(mean_step, old.units) / old.sigma
        local_covariance = inverse_root @ covariance_step @ inverse_root / jnp.sqrt(jnp.asarray(2, old.sigma.dtype))
        mean_rate = self._adapt(state.mean_rate, local_mean, self.beta_mean)
        covariance_rate = self._adapt(state.covariance_rate, local_covariance, self.beta_covariance)

        covariance = self.space.keep_apart(old.covariance + covariance_rate.rate * covariance_step)
        covariance, basis, scales = decompose(covariance)  # always: the next generation's coordinates need its roots
        is_searched = self.space.restrict_flat(jnp.ones_like(scales)) > 0
        apart = jnp.where(is_searched, 0, jnp.log(jnp.diagonal(covariance)))
        log_volume = jnp.sum(jnp.log(scales)) - jnp.sum(apart) / 2  # of the searched entries
        volume = jnp.exp(log_volume / self.space.num_dims(old.mean))  # sigma and C, of determinant one, from Sigma
        # The best step size is proportional to one over the learning rate of the mean.
        correction = state.mean_rate.rate / mean_rate.rate
        cma = new._replace(
            mean=unravel(old_mean + mean_rate.rate * mean_step),
            sigma=clip_std(old.sigma * volume * correction),
            covariance=covariance / jnp.square(volume),
            basis=basis,
            scales=scales / volume,
        )
        return LRACMAESState(cma, mean_rate, covariance_rate)

    def _adapt(self, state: Rate, step: jax.Array, beta: float) -> Rate:
        """Returns the learning rate, moved towards a signal-to-noise ratio of alpha times the rate."""
        average = (1 - beta) * state.average + beta * step
        square = (1 - beta) * state.square + beta * jnp.sum(jnp.square(step))
        signal = jnp.sum(jnp.square(average))
        # A converged search takes no steps. Products of its tiny numbers must not underflow, or this is 0 / 0.
        noise = jnp.maximum(square - signal, float(jnp.finfo(square.dtype).tiny) ** 0.5)
        ratio = (signal - beta / (2 - beta) * square) / noise
        relative = jnp.clip(ratio / (self.alpha * state.rate) - 1, -1, 1)
        rate = state.rate * jnp.exp(jnp.minimum(self.gamma * state.rate, beta) * relative)
        return Rate(average, square, jnp.minimum(rate, 1).astype(state.rate.dtype))
