"""Truncated evolution strategies: the baseline whose bias PES and NRES remove.

Reference: Vicol, Metz, Sohl-Dickstein 2021, arXiv 2112.13835; Metz et al. 2019,
arXiv 1810.10180.
"""

import jax
import jax.numpy as jnp

from zoo.core import Evaluation, Groups, Population, Solution, Surrogate, repeat_groups, static, weighted_sum
from zoo.core.promotion import times
from zoo.strategies.gradient.base import GradientStrategy
from zoo.strategies.gradient.open_es import OpenESState
from zoo.strategies.shaping import Shaping


class TES(GradientStrategy):
    """Truncated ES: biased; both members of a pair start each window from where the unperturbed mean got to.

    The population is `population_size / 3` members with plus, as many with minus, and as many unperturbed, which carry
    the inner states: 3 W steps per pair and window.

    Attributes:
        population_size: A multiple of three.
        shaping: As in `GradientStrategy`, but off by default.

    References:
        Vicol et al. 2021, arXiv 2112.13835.
    """

    population_size: int | None = static(default=96, at_least=3)
    shaping: str | Shaping = static(default="none")

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        if self.population_size is not None and self.population_size % 3:
            raise ValueError(
                f"TES has an unperturbed member beside each antithetic pair, so population_size must be a multiple of "
                f"three, got {self.population_size}. Use {self.population_size + -self.population_size % 3}."
            )

    @property
    def groups(self) -> Groups:
        """A pair and its unperturbed member, from which all three go on."""
        size = self._fixed_size
        unperturbed = repeat_groups(size, 3) + 2 * size // 3
        return Groups(repeat_groups(size, 3), parents=unperturbed)

    def estimate(self, state: OpenESState, population: Population, evaluation: Evaluation) -> Solution:
        """Returns the gradient estimate, that of `open_es` from the perturbed members.

        Args:
            state: The state that `ask` returned.
            population: The population that was evaluated.
            evaluation: Its evaluation.
        """
        num_pairs = evaluation.fitness.shape[0] // 3
        weights = self._antithetic_weights(evaluation.fitness[: 2 * num_pairs])
        scale = 1 / (2 * num_pairs * self.sigma_at(state) ** 2)
        scaled = times(weights, scale)
        return weighted_sum(jnp.pad(scaled, (0, num_pairs)), population, like=state.mean)

    def _init(self, key: jax.Array, solution: Solution) -> OpenESState:
        return OpenESState(solution, self._transformation.init(solution), jnp.zeros((), jnp.int32))

    def _ask(self, key: jax.Array, state: OpenESState, surrogate: Surrogate | None) -> tuple[Population, OpenESState]:
        num_pairs = self._num_members(state.mean) // 3
        noise = self._perturbation.draw(key, state.mean, num_pairs)
        return self._perturbation.perturb(state.mean, self.sigma_at(state), noise, signs=(1, -1, 0)), state

    def _default_population_size(self, num_dims: int) -> int:
        return 3 * (super()._default_population_size(num_dims) // 2)
