"""PGPE: parameter-exploring policy gradients, with antithetic pairs and an adaptive standard deviation per parameter.

The search distribution is a Gaussian with a mean and a standard deviation per parameter. Antithetic pairs mean ± std z
estimate the gradients of the expected fitness in the means and in the standard deviations. An optimizer steps the mean;
each standard deviation takes a step of bounded size.

Reference: Sehnke, Osendorfer, Rückstieß, Graves, Peters, Schmidhuber 2010, "Parameter-exploring Policy Gradients",
Neural Networks 23(4), doi 10.1016/j.neunet.2009.12.004: symmetric sampling, section 2.3. The bound on the change of the
standard deviations: Toklu, Liskowski, Srivastava 2020, arXiv 2008.02387.

Differences: fitness is shaped, by default to centred ranks, and the baseline of the standard deviations is the mean
over the generation's pairs. Both make the step independent of the fitness of earlier generations.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import (
    Evaluation,
    Population,
    Solution,
    Surrogate,
    clip_std,
    distributions,
    in_single,
    normal_like,
    number,
    spread_over,
    static,
    weighted_sum,
)
from zoo.strategies.gradient.base import DescentState, DescentStrategy, antithetic, middle_weights
from zoo.strategies.pairs import check_divides, why_all
from zoo.strategies.shaping import Shaping, get_shaping


class PGPEState(NamedTuple):
    """State of `PGPE`."""

    descent: DescentState
    std: Solution  # standard deviation per parameter, in the structure of the solution


class PGPE(DescentStrategy):
    """PGPE with symmetric sampling: descends the gradients of E[f] in the mean and in the standard deviations.

    Both steps are proportional to the variance, as in the paper. The optimizer gets std^2 times the gradient of the
    mean. A standard deviation moves by `std_learning_rate` times std^2 times its gradient.

    Attributes:
        population_size: Members per generation, an even number.
        sigma: Initial standard deviation, in the units of the solution, above 0: one number, or a pytree in the
            structure of the solution (numbers, lists, or arrays that broadcast to its leaves).
        shaping: Fitness shaping as in `open_es`.
        optimizer: The optimizer of the mean, as in `open_es`. `"clip_up"` is made for PGPE.
        std_learning_rate: Learning rate of the standard deviations, at least 0.
        max_std_change: Largest change of a standard deviation in one generation, as a fraction of it, between 0 and 1.

    References:
        Sehnke et al. 2010, doi 10.1016/j.neunet.2009.12.004; Toklu et al. 2020, arXiv 2008.02387.
    """

    population_size: int | None = static(default=64, at_least=2)
    sigma: Any = number(default=0.1, above=0, per_parameter=True, search=distributions.times(0.1, 10))
    shaping: str | Shaping = static(default="centered_ranks")
    std_learning_rate: float = number(default=0.1, at_least=0, search=distributions.times(0.1, 10))
    max_std_change: float = number(default=0.2, at_least=0, at_most=1)

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        get_shaping(self.shaping)
        check_divides(self, 2)

    @property
    def needs_all_members(self) -> str | None:
        """Why `tell` needs all members: it compares the members of a pair."""
        return why_all(2)

    @property
    def subtracts_pairs(self) -> bool:
        """True: members come in antithetic pairs."""
        return True

    def std(self, state: PGPEState) -> Solution:
        """Returns the standard deviations of the search distribution."""
        return jax.tree.map(lambda s, m: s.astype(m.dtype), state.std, state.descent.mean)

    def estimate(self, state: PGPEState, population: Population, evaluation: Evaluation) -> Solution:
        """Returns the gradient estimate for the mean, unbiased without shaping.

        Args:
            state: The state that `ask` returned.
            population: The population that was evaluated.
            evaluation: Its evaluation.
        """
        return jax.tree.map(lambda g, s: g / s / s, self._mean_step(state, population, evaluation), state.std)

    def estimate_std(self, state: PGPEState, population: Population, evaluation: Evaluation) -> Solution:
        """Returns the gradient estimate for the standard deviations, unbiased without shaping.

        The arguments are the same as for `estimate`.
        """
        return jax.tree.map(lambda g, s: g / s, self._relative_std_step(state, population, evaluation), state.std)

    def _default_population_size(self, num_dims: int) -> int:
        return super()._default_population_size(num_dims) // 2 * 2

    def _init(self, key: jax.Array, solution: Solution) -> PGPEState:
        std = spread_over(self.sigma, in_single(solution), f"{type(self).__name__}.sigma")
        return PGPEState(self.start(solution), std)

    def _ask(self, key: jax.Array, state: PGPEState, surrogate: Surrogate | None) -> tuple[Population, PGPEState]:
        mean = state.descent.mean
        noise = normal_like(key, state.std, num_samples=self._num_members(mean) // 2)

        def pairs(m: jax.Array, s: jax.Array, z: jax.Array) -> jax.Array:
            x = m.astype(z.dtype)[None]
            return jnp.concatenate([x + s[None] * z, x - s[None] * z]).astype(m.dtype)

        return jax.tree.map(pairs, mean, state.std, noise), state

    def _tell(self, state: PGPEState, population: Population, evaluation: Evaluation) -> PGPEState:
        change = self._relative_std_step(state, population, evaluation)
        told = self.descend(state, self._mean_step(state, population, evaluation))

        def new_std(std: jax.Array, change: jax.Array) -> jax.Array:
            bounded = jnp.clip(self.std_learning_rate * change, -self.max_std_change, self.max_std_change)
            # Without shaping, fitness may overflow the sum.
            return clip_std(std * (1 - jnp.where(jnp.isnan(bounded), 0, bounded)).astype(std.dtype))

        return told._replace(std=jax.tree.map(new_std, state.std, change))

    def _mean_step(self, state: PGPEState, population: Population, evaluation: Evaluation) -> Solution:
        """Returns std^2 times the gradient of the mean: sum_i w_i (x_i - mean) / population_size."""
        shaped = get_shaping(self.shaping)(evaluation.fitness)
        weights = antithetic(shaped)
        if evaluation.repaired is not None:
            weights = weights + middle_weights(shaped, weights, evaluation.repaired)
        # The weights sum to zero, so the mean drops out.
        return weighted_sum(weights / weights.shape[0], population, like=state.std)

    def _relative_std_step(self, state: PGPEState, population: Population, evaluation: Evaluation) -> Solution:
        """Returns std times the gradient of the standard deviations: the mean over the pairs of (f - b) (z^2 - 1)."""
        fitness = get_shaping(self.shaping)(evaluation.fitness)
        num_pairs = fitness.shape[0] // 2
        pair = (fitness[:num_pairs] + fitness[num_pairs:]) / 2
        # The baseline contains the pair itself, hence n - 1. The weights sum to zero, so the 1 drops out.
        weights = (pair - jnp.mean(pair)) / max(num_pairs - 1, 1)

        def squares(s: jax.Array, m: jax.Array, x: jax.Array) -> jax.Array:
            if evaluation.repaired is None:
                return jnp.square((x[:num_pairs] - x[num_pairs:]) * (0.5 / s)[None])
            z = jnp.square((x - m[None]) / s[None])
            return (z[:num_pairs] + z[num_pairs:]) / 2

        members, mean = in_single(population), in_single(state.descent.mean)
        return weighted_sum(weights, jax.tree.map(squares, state.std, mean, members))
