"""ES-Single: one perturbation per particle and episode, with all particles in lock-step on one inner problem.

It is NRES with one group: all antithetic pairs share the data of the inner problem, its start and its resets, and go
through the episode together. An update thus sees one window of the episode, and the pairs differ by their perturbations
only.

Reference: Vicol, Kolter, Swersky 2023, "Low-Variance Gradient Estimation in Unrolled Computation Graphs with
ES-Single", arXiv 2304.11153.
"""

from zoo.core import Groups
from zoo.strategies.gradient.nres import NRES


class ESSingle(NRES):
    """ES-Single: NRES whose particles all share one inner problem, its data and its resets.

    The particles go through the episode together, so an update sees one window of it. With NRES, whose pairs are at
    different phases, an update sees all windows.

    References:
        Vicol et al. 2023, arXiv 2304.11153.
    """

    @property
    def groups(self) -> Groups:
        """The groups: all members together."""
        return Groups.of(self._fixed_size)
