"""Backpropagation through time: gradient descent through whole episodes."""

from zoo.core import Groups
from zoo.strategies.gradient.tbptt import TBPTT


class BPTT(TBPTT):
    """BPTT: backpropagation through whole episodes, whatever the problem's window; unbiased, unless it explodes."""

    @property
    def groups(self) -> Groups:
        """Each worker by itself, and whole episodes."""
        return super().groups._replace(whole_episodes=True)
