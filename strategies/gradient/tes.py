"""Truncated evolution strategies (TES): the baseline whose bias PES and NRES remove.

In every window both members of an antithetic pair start from the inner state of the unperturbed mean. The estimate thus
ignores how a perturbation acts on later windows, and is biased for the loss of the episode.

Reference: Vicol, Metz, Sohl-Dickstein 2021, arXiv 2112.13835; Metz et al. 2019, arXiv 1810.10180.
"""

import jax
import jax.numpy as jnp

from zoo.core import Groups, State, static
from zoo.strategies.gradient.base import CANNOT_RESTART, GradientStrategy
from zoo.strategies.shaping import Shaping


class TES(GradientStrategy):
    """Truncated ES: biased; both members of a pair start each window from where the unperturbed mean has got to.

    The population is `population_size / 3` members with plus, the same number with minus, and the same number
    unperturbed. The unperturbed ones carry the inner states, so that a pair costs 3 W steps in a window of W steps.

    Attributes:
        population_size: Members per generation, a multiple of three.
        shaping: Fitness shaping as in `open_es`, by default `"none"`.

    References:
        Vicol et al. 2021, arXiv 2112.13835.
    """

    population_size: int | None = static(default=96, at_least=3)
    shaping: str | Shaping = static(default="none")

    signs = (1, -1, 0)

    @property
    def cannot_restart(self) -> str:
        """Why it cannot restart: members continue from inner states."""
        return CANNOT_RESTART

    @property
    def groups(self) -> Groups:
        """The groups: a pair and its unperturbed member, from whose inner state all three continue."""
        groups = Groups.of(self._fixed_size, 3)
        return groups._replace(parents=groups.ids + 2 * self._fixed_size // 3)

    def weights(self, state: State, fitness: jax.Array) -> jax.Array:
        """Returns the weights of OpenAI-ES for the perturbed members, and zero for the others."""
        num_pairs = len(fitness) // 3
        return jnp.pad(super().weights(state, fitness[: 2 * num_pairs]), (0, num_pairs))
