"""Noise-reuse evolution strategies: one perturbation for a whole episode.

Reference: Li, Harrison, Sohl-Dickstein, Smith, Metz 2023, "Variance-Reduced Gradient Estimation via Noise-Reuse in
Online Evolution Strategies", arXiv 2304.12180.
"""

from zoo.strategies.gradient.online import OnlineStrategy


class NRES(OnlineStrategy):
    """Noise-reuse ES: unbiased from windows of an episode; one perturbation per episode, which costs no noise to hold.

    Its target is the smoothed loss of full ES.

    References:
        Li et al. 2023, arXiv 2304.12180.
    """

    @property
    def _noise_period(self) -> None:
        return None
