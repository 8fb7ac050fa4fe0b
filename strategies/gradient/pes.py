"""Persistent evolution strategies (PES): unbiased from windows of an episode, with a new perturbation in every window.

Antithetic pairs keep their inner states from window to window. Every window perturbs the mean anew. The estimate
multiplies a window's difference of losses by the sum of all perturbations of the episode so far, because all of them
led to the window's inner states. `zoo.strategies.gradient.online` has the formula.

Reference: Vicol, Metz, Sohl-Dickstein 2021, "Unbiased Gradient Estimation in Unrolled Computation Graphs with
Persistent Evolution Strategies", arXiv 2112.13835. The paper has a constant sigma; here each perturbation keeps the
sigma that it was drawn with, so that `sigma_schedule` leaves the estimate right.
"""

from zoo.strategies.gradient.online import OnlineStrategy


class PES(OnlineStrategy):
    """Persistent ES: unbiased from windows of an episode; a new perturbation in each window.

    Its target is the loss smoothed by independent perturbations of the windows. For quadratic losses, and as sigma goes
    to 0, that is the target of full ES.

    References:
        Vicol et al. 2021, arXiv 2112.13835.
    """

    @property
    def _noise_period(self) -> int:
        return 1
