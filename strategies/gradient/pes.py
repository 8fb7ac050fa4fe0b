"""Persistent evolution strategies: a new perturbation in every window, all of an episode's accumulated.

Reference: Vicol, Metz, Sohl-Dickstein 2021, "Unbiased Gradient Estimation in Unrolled Computation Graphs with
Persistent Evolution Strategies", arXiv 2112.13835.
"""

from zoo.strategies.gradient.online import OnlineStrategy


class PES(OnlineStrategy):
    """Persistent ES: unbiased from windows of an episode; a new perturbation in each window.

    Its target is the loss smoothed by independent perturbations per window, which is that of full ES for quadratic
    losses and as sigma goes to 0.

    References:
        Vicol et al. 2021, arXiv 2112.13835.
    """

    @property
    def _noise_period(self) -> int:
        return 1
