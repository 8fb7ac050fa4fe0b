"""DODGE: directional derivatives carried forward, along random directions that are held for a number of steps.

Each worker draws a standard normal direction and carries the derivative of its inner state along it. The estimate of a
step's gradient is the derivative of the loss along the direction, times the sum of the episode's directions so far. One
forward pass gives it, at any number of parameters, but its variance grows with that number.

Reference: Silver, Goyal, Danihelka, Hessel, van Hasselt 2022, "Learning by directional gradient descent", ICLR; name
and period as in Li et al. 2023, arXiv 2304.12180. `full_forward` is the forward gradient of Baydin et al. 2022, arXiv
2202.08587, on whole episodes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import Groups, Inner, Sensitivity, Solution, normal_like, static
from zoo.core.promotion import times
from zoo.core.sensitivity import Step, float_leaves, of_floats
from zoo.strategies.gradient.forward import ForwardStrategy


class Tangent(NamedTuple):
    """What is carried of a directional derivative."""

    direction: Solution  # the direction of this period
    total: Solution  # sum of the directions since the start of the episode
    inner: list[jax.Array]  # the derivative of the floating-point leaves of the inner state


class Directional(Sensitivity):
    """Carries the derivative of the inner state along a standard normal direction.

    Attributes:
        period: Steps of an episode after which another direction is drawn. With `None`, one lasts for the episode.
    """

    period: int | None = static(default=None, at_least=1)

    def start(self, key: jax.Array, solution: Solution, inner: Inner) -> Tangent:
        """Returns a direction, and a zero derivative of the inner state along it."""
        if self.period is None:
            direction = total = _draw(key, solution)
        else:  # the first step draws one
            direction = total = jax.tree.map(jnp.zeros_like, solution)
        return Tangent(direction, total, [jnp.zeros_like(x) for x in float_leaves(inner)])

    def step(
        self, key: jax.Array, step: Step, time: jax.Array, solution: Solution, inner: Inner, carried: Tangent
    ) -> tuple[tuple[Inner, jax.Array, Any], Tangent, Solution]:
        """Takes one step, and carries the derivative along through it."""
        direction, total, tangent = carried
        if self.period is not None:
            is_new, drawn = time % self.period == 0, _draw(key, solution)
            direction = jax.tree.map(lambda new, old: jnp.where(is_new, new, old), drawn, direction)
            total = jax.tree.map(lambda sum, new: jnp.where(is_new, sum + new, sum), total, drawn)
        fn = of_floats(step, inner)
        moved = (direction, tangent)
        _, (tangent, slope), out = jax.jvp(fn, (solution, float_leaves(inner)), moved, has_aux=True)
        # The inner state depends on the directions of earlier periods too. They are uncorrelated with this one.
        gradient = jax.tree.map(lambda v: times(slope, v).astype(v.dtype), total)
        return out, Tangent(direction, total, tangent), gradient


class DODGE(ForwardStrategy):
    """Deep online directional gradient estimate: a directional derivative times its direction.

    Each worker has its own standard normal direction. The estimate is unbiased for any period while the solution does
    not change. Let J_k be the derivative of a loss with respect to the solution in period k, and v_k the direction of
    that period. The directional derivative is the sum over the periods of J_k v_k. The v_k have mean zero and
    covariance I, so its product with the sum of all v_k has the sum of all J_k as expectation, which is the gradient.

    Attributes:
        period: Steps of an episode after which a worker draws another direction, at least 1. A period of 1 is the
            forward-mode limit of PES, and a whole episode is the limit of NRES. With `None`, a direction lasts for the
            episode.

    References:
        Silver et al. 2022, ICLR; with the name and the period as in Li et al. 2023, arXiv 2304.12180.
    """

    period: int | None = static(default=None, at_least=1)

    @property
    def sensitivity(self) -> Directional:
        """The derivative along one direction."""
        return Directional(period=self.period)


class FullForward(DODGE):
    """Forward gradient: a directional derivative of whole episodes, whatever the problem's window, times its direction.

    References:
        Baydin, Pearlmutter, Syme, Wood, Torr 2022, "Gradients without backpropagation", arXiv 2202.08587.
    """

    @property
    def groups(self) -> Groups:
        """The groups: each worker by itself, with its derivative followed, and with whole episodes."""
        return super().groups._replace(whole_episodes=True)


def _draw(key: jax.Array, solution: Solution) -> Solution:
    return jax.tree.map(lambda x: x[0], normal_like(key, solution, num_samples=1))
