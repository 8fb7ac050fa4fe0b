"""Full ES: evolution strategies on whole episodes of an unrolled computation, unbiased and not online.

Reference: Vicol, Metz, Sohl-Dickstein 2021, arXiv 2112.13835; Li et al. 2023, arXiv 2304.12180.
"""

from zoo.core import Groups, static
from zoo.strategies.gradient.base import CANNOT_RESTART
from zoo.strategies.gradient.open_es import OpenES
from zoo.strategies.shaping import Shaping


class FullES(OpenES):
    """Full ES: antithetic estimate from whole episodes, whatever the problem's window; `open_es` without shaping.

    Attributes:
        shaping: As in `OpenES`, but off by default, which makes the estimate unbiased.

    References:
        Vicol et al. 2021, arXiv 2112.13835.
    """

    shaping: str | Shaping = static(default="none")

    @property
    def cannot_restart(self) -> str:
        """Members go on from inner states."""
        return CANNOT_RESTART

    @property
    def groups(self) -> Groups:
        """The groups of `OpenES`, and whole episodes."""
        return super().groups._replace(whole_episodes=True)
