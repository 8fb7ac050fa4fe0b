"""OpenAI-ES: a Monte-Carlo estimate of the gradient of the Gaussian-smoothed fitness.

Reference: Salimans, Ho, Chen, Sidor, Sutskever 2017, "Evolution Strategies as a Scalable Alternative to Reinforcement
Learning", arXiv 1703.03864, Algorithm 1; antithetic pairs and centred ranks as in its section 2.1. Semi-updates:
Lenc, Elsen, Schaul, Simonyan 2019, "Non-Differentiable Supervised Learning with Evolution Strategies and Hybrid
Methods", arXiv 1906.03139.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from zoo.core import Groups, State, static
from zoo.core.promotion import times
from zoo.strategies.gradient.base import GradientStrategy


class OpenES(GradientStrategy):
    """OpenAI-ES: antithetic Gaussian perturbations, centred ranks, any optax optimizer.

    With `shaping="none"` the estimate is unbiased for the gradient of E[f(mean + sigma * eps)], eps ~ N(0, I).

    Attributes:
        antithetic: Whether members come in pairs mean ± sigma * eps (members i and i + population_size / 2).
        num_workers: Workers that the population is divided among, for semi-updates: each sees data of its own and
            shapes the fitness of its own members only, and their partial gradients are averaged. Member i belongs to
            worker i modulo num_workers.

    References:
        Salimans et al. 2017, arXiv 1703.03864; Lenc et al. 2019, arXiv 1906.03139 (semi-updates).
    """

    antithetic: bool = static(default=True)
    num_workers: int = static(default=1, at_least=1)

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        size = self.population_size
        if self.num_workers == 1 or size is None:
            return
        share = self.num_workers * (2 if self.antithetic else 1)
        if size % share or size < 2 * self.num_workers:
            raise ValueError(
                f"OpenES divides the population among {self.num_workers} workers, of two members or more"
                f"{' in antithetic pairs' if self.antithetic else ''}: population_size must be a multiple of {share} "
                f"and at least {2 * self.num_workers}, got {size}."
            )

    @property
    def signs(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleVariableOverride] - it depends on settings
        """Antithetic pairs, or one member for each perturbation."""
        return (1, -1) if self.antithetic else (1,)

    @property
    def groups(self) -> Groups:
        """Each worker's members, which are compared; antithetic pairs only if they are merely subtracted."""
        if self.num_workers > 1:
            return Groups.of(self._fixed_size, self._fixed_size // self.num_workers)
        if self.antithetic and self.shaping == "none":
            return Groups.of(self._fixed_size, 2)
        return super().groups

    def weights(self, state: State, fitness: jax.Array) -> jax.Array:
        """Returns w_i / (population_size * sigma), w the shaped fitness: of pairs their difference, else its deviation.

        The deviation is that from the mean of the worker's members.
        """
        if self.antithetic:
            return super().weights(state, fitness)
        weights = self._per_worker(_subtract_mean, self.shape(fitness))
        return times(weights, 1 / (fitness.shape[0] * self.sigma_at(state)))

    def shape(self, fitness: jax.Array) -> jax.Array:
        """Returns the shaped fitness, that of each worker's members by itself."""
        return self._per_worker(super().shape, fitness)

    def _per_worker(self, fn: Callable[[jax.Array], jax.Array], values: jax.Array) -> jax.Array:
        """Applies a function of the values of one worker's members to those of each worker."""
        if self.num_workers == 1:
            return fn(values)
        return jax.vmap(fn, in_axes=1, out_axes=1)(values.reshape(-1, self.num_workers)).reshape(-1)


def _subtract_mean(weights: jax.Array) -> jax.Array:
    """The mean as baseline; it contains the member itself, hence n - 1."""
    size = weights.shape[0]
    return (weights - jnp.mean(weights)) * (size / max(size - 1, 1))
