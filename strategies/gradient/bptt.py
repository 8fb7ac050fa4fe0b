"""Backpropagation through time (BPTT): gradient descent through whole episodes.

Each worker's gradient goes back through its whole inner episode. It is exact for the worker's data, but it explodes
where the inner dynamics are chaotic, and its memory grows with the length of the episode.

Reference: Werbos 1990, "Backpropagation through time: what it does and how to do it", Proc. IEEE 78(10).
"""

from zoo.core import Groups
from zoo.strategies.gradient.tbptt import TBPTT


class BPTT(TBPTT):
    """BPTT: backpropagation through whole episodes, whatever the problem's window; unbiased, unless it explodes."""

    @property
    def groups(self) -> Groups:
        """The groups: each worker by itself, with whole episodes."""
        return super().groups._replace(whole_episodes=True)
