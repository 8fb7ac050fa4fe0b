"""ES-Single: one perturbation per particle and inner problem, all particles in lock-step.

Reference: Vicol, Kolter, Swersky 2023, "Low-Variance Gradient Estimation in Unrolled Computation Graphs with
ES-Single", arXiv 2304.11153.
"""

from zoo.core import Groups
from zoo.strategies.gradient.nres import NRES


class ESSingle(NRES):
    """ES-Single: NRES whose particles all share one inner problem, its data and its resets.

    The particles walk through the episode together, so an update sees one window of it; with NRES, whose pairs are at
    different phases, an update sees all of them.

    References:
        Vicol et al. 2023, arXiv 2304.11153.
    """

    @property
    def groups(self) -> Groups:
        """One group."""
        return Groups.of(self._fixed_size)
