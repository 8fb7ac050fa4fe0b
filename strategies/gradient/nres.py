"""Noise-reuse evolution strategies (NRES): unbiased from windows of an episode, with one perturbation per episode.

Antithetic pairs keep their inner states from window to window, and their perturbation for the whole episode. The
estimate multiplies a window's difference of losses by that perturbation. Its variance is smaller than with PES on
losses that are about linear. `zoo.strategies.gradient.online` has the formula.

Reference: Li, Harrison, Sohl-Dickstein, Smith, Metz 2023, "Variance-Reduced Gradient Estimation via Noise-Reuse in
Online Evolution Strategies", arXiv 2304.12180.
"""

from zoo.strategies.gradient.online import OnlineStrategy


class NRES(OnlineStrategy):
    """Noise-reuse ES: unbiased from windows of an episode; one perturbation per episode, and no sum of earlier ones.

    Its target is the smoothed loss of full ES.

    References:
        Li et al. 2023, arXiv 2304.12180.
    """

    @property
    def _noise_period(self) -> None:
        return None
