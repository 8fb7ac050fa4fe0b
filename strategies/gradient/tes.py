"""Truncated evolution strategies: the baseline whose bias PES and NRES remove.

Reference: Vicol, Metz, Sohl-Dickstein 2021, arXiv 2112.13835; Metz et al. 2019,
arXiv 1810.10180.
"""

import jax
import jax.numpy as jnp

from zoo.core import Groups, State, static
from zoo.strategies.gradient.base import CANNOT_RESTART, GradientStrategy
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

    signs = (1, -1, 0)

    @property
    def cannot_restart(self) -> str:
        """Members go on from inner states."""
        return CANNOT_RESTART

    @property
    def groups(self) -> Groups:
        """A pair and its unperturbed member, from which all three go on."""
        groups = Groups.of(self._fixed_size, 3)
        return groups._replace(parents=groups.ids + 2 * self._fixed_size // 3)

    def weights(self, state: State, fitness: jax.Array) -> jax.Array:
        """Returns the weights of OpenAI-ES for the perturbed members, and zero for the others."""
        num_pairs = len(fitness) // 3
        return jnp.pad(super().weights(state, fitness[: 2 * num_pairs]), (0, num_pairs))
