"""Generalized PES (GPES): online evolution strategies between PES and NRES.

An antithetic pair holds its perturbation for `noise_period` windows, and then draws a new one. A period of one window
is PES, a whole episode is NRES. `zoo.strategies.gradient.online` has the formula.

Reference: Li, Harrison, Sohl-Dickstein, Smith, Metz 2023, "Variance-Reduced Gradient Estimation via Noise-Reuse in
Online Evolution Strategies", arXiv 2304.12180 (GPES_K; its K, in steps, is `noise_period` times the window).
"""

from zoo.core import static
from zoo.strategies.gradient.online import OnlineStrategy


class GPES(OnlineStrategy):
    """Generalized PES: a perturbation is held for a given number of windows.

    Attributes:
        noise_period: Windows for which a pair keeps its perturbation, at least 1. 1 is PES; `None`, or the number of
            windows of an episode, is NRES. A longer period has a smaller variance on losses that are about linear.

    References:
        Li et al. 2023, arXiv 2304.12180.
    """

    noise_period: int | None = static(default=2, at_least=1)

    @property
    def _noise_period(self) -> int | None:
        return self.noise_period
