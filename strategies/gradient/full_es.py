"""Full ES: evolution strategies on whole episodes of an unrolled computation.

A member keeps one perturbation for a whole inner episode, and the mean is updated after it. The estimate is unbiased,
but it is not online: an update needs all steps of an episode. It is `open_es` without shaping, and asks the problem for
whole episodes.

Reference: Vicol, Metz, Sohl-Dickstein 2021, arXiv 2112.13835; Li et al. 2023, arXiv 2304.12180. Both compare their
online strategies with it.
"""

from zoo.core import Groups, static
from zoo.strategies.gradient.base import CANNOT_RESTART
from zoo.strategies.gradient.open_es import OpenES
from zoo.strategies.shaping import Shaping


class FullES(OpenES):
    """Full ES: antithetic estimate from whole episodes, whatever the problem's window; `open_es` without shaping.

    Attributes:
        shaping: Fitness shaping as in `open_es`, by default `"none"`, which makes the estimate unbiased.

    References:
        Vicol et al. 2021, arXiv 2112.13835.
    """

    shaping: str | Shaping = static(default="none")

    @property
    def cannot_restart(self) -> str:
        """Why it cannot restart: members continue from inner states."""
        return CANNOT_RESTART

    @property
    def groups(self) -> Groups:
        """The groups of `OpenES`, with whole episodes."""
        return super().groups._replace(whole_episodes=True)
