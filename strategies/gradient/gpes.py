"""Generalized PES: online evolution strategies between PES and NRES.

Reference: Li, Harrison, Sohl-Dickstein, Smith, Metz 2023, "Variance-Reduced Gradient Estimation via Noise-Reuse in
Online Evolution Strategies", arXiv 2304.12180 (GPES_K; its K is `noise_period` times the window).
"""

from zoo.core import static
from zoo.strategies.gradient.online import OnlineStrategy


class GPES(OnlineStrategy):
    """Generalized PES: a perturbation is held for a given number of windows.

    Attributes:
        noise_period: Windows for which a pair keeps its perturbation: 1 is PES; `None`, or as many as an episode has,
            is NRES. The larger, the smaller the variance on losses that are about linear.

    References:
        Li et al. 2023, arXiv 2304.12180.
    """

    noise_period: int | None = static(default=2, at_least=1)

    @property
    def _noise_period(self) -> int | None:
        return self.noise_period
