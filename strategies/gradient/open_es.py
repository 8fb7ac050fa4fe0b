"""OpenAI-ES: a Monte-Carlo estimate of the gradient of the Gaussian-smoothed fitness.

Members are drawn around the mean in antithetic pairs, mean ± sigma eps with eps ~ N(0, I). The gradient of the smoothed
fitness E[f(mean + sigma eps)] is estimated by the sum over all members of w_i eps_i / (population_size sigma), where w
is the fitness or its centred ranks. An optimizer, by default Adam, takes a step along it.

Reference: Salimans, Ho, Chen, Sidor, Sutskever 2017, "Evolution Strategies as a Scalable Alternative to Reinforcement
Learning", arXiv 1703.03864, Algorithm 1; antithetic pairs and centred ranks as in its section 2.1. Semi-updates
(`num_workers`): Lenc, Elsen, Schaul, Simonyan 2019, "Non-Differentiable Supervised Learning with Evolution Strategies
and Hybrid Methods", arXiv 1906.03139.

The paper maximises; this code minimises. Without antithetic pairs the mean of the fitness is subtracted as a baseline,
which lowers the variance and leaves the estimate unbiased.
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
        num_workers: Number of workers that the population is divided among, for semi-updates. Each worker sees its own
            data and shapes the fitness of its own members only; their partial gradients are averaged. Member i belongs
            to worker i modulo num_workers.

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
                f"OpenES divides the population among {self.num_workers} workers with two members or more each"
                f"{', in antithetic pairs' if self.antithetic else ''}: population_size must be a multiple of {share} "
                f"and at least {2 * self.num_workers}, got {size}."
            )

    @property
    def signs(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleVariableOverride] - it depends on settings
        """The signs: antithetic pairs, or one member for each perturbation."""
        return (1, -1) if self.antithetic else (1,)

    @property
    def groups(self) -> Groups:
        """The groups of members that are compared: a worker's members, or a pair whose fitness is only subtracted."""
        if self.num_workers > 1:
            return Groups.of(self._fixed_size, self._fixed_size // self.num_workers)
        if self.antithetic and self.shaping == "none":
            return Groups.of(self._fixed_size, 2)
        return super().groups

    def weights(self, state: State, fitness: jax.Array) -> jax.Array:
        """Returns w_i / (population_size * sigma).

        With antithetic pairs, w is half the difference of the shaped fitness within the pair. Otherwise it is the
        deviation of the shaped fitness from its mean over the worker's members.
        """
        if self.antithetic:
            return super().weights(state, fitness)
        weights = self._per_worker(_subtract_mean, self.shape(fitness))
        return times(weights, 1 / (fitness.shape[0] * self.sigma_at(state)))

    def shape(self, fitness: jax.Array) -> jax.Array:
        """Returns the shaped fitness. The members of each worker are shaped separately."""
        return self._per_worker(super().shape, fitness)

    def _per_worker(self, fn: Callable[[jax.Array], jax.Array], values: jax.Array) -> jax.Array:
        """Applies a function to the values of each worker's members separately."""
        if self.num_workers == 1:
            return fn(values)
        return jax.vmap(fn, in_axes=1, out_axes=1)(values.reshape(-1, self.num_workers)).reshape(-1)


def _subtract_mean(weights: jax.Array) -> jax.Array:
    """Subtracts the mean as a baseline. It contains the member itself, hence n - 1."""
    size = weights.shape[0]
    return (weights - jnp.mean(weights)) * (size / max(size - 1, 1))
