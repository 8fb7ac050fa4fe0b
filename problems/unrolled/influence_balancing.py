"""Influence balancing: the short-term influence of the parameter has the wrong sign.

Reference: Tallec, Ollivier 2017, "Unbiased Online Recurrent Optimization", arXiv 1702.05043; constants
as in Vicol, Metz, Sohl-Dickstein 2021, arXiv 2112.13835.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import Solution, UnrolledProblem, number, static


class InfluenceBalancingInner(NamedTuple):
    """Inner state."""

    state: jax.Array  # [num_dims]
    time: jax.Array  # []


class InfluenceBalancing(UnrolledProblem):
    """Influence balancing: a linear recurrence whose truncated gradients have the wrong sign. It never resets.

    s <- A s + theta v, where A is upper bidiagonal, and v is +1 in its first entries and -1 in the others. The loss at
    the end of each window is (s_0 - target)^2 / 2.

    Attributes:
        num_dims: Size of the state s.
        num_positive: Number of entries of v that are +1. The others are -1.
        decay: Value on the diagonal and superdiagonal of A.
        target: Target of s_0.
        initial_theta: Initial theta of the search.
        num_score_steps: Number of steps before the loss of the score. A horizon, if set, replaces it.
    """

    horizon: int | None = static(default=None, at_least=1)
    window: int | None = static(default=1, at_least=1)
    objective: Literal["mean", "sum"] = static(default="sum")  # each window has one loss
    num_dims: int = static(default=23, at_least=2)
    num_positive: int = static(default=10, at_least=0)
    decay: float = number(default=0.5)
    target: float = number(default=1.0)
    initial_theta: float = number(default=0.5)
    num_score_steps: int = static(default=500, at_least=1)

    @property
    def suggestions(self) -> Mapping[str, Any]:
        """The paper's sigma, and a rate for Adam. The paper uses SGD at 1e-4, which suits only unshaped estimates."""
        return {"sigma": 0.1, "learning_rate": 0.003}

    @property
    def suggested_num_steps(self) -> int:
        """3 000 updates of 1 000 workers."""
        return 3_000_000

    def initial_solution(self, key: jax.Array) -> Solution:
        """Returns the initial theta, a scalar."""
        return jnp.asarray(self.initial_theta, float)

    def reset(self, key: jax.Array) -> InfluenceBalancingInner:
        """Returns a state of ones at time zero."""
        return InfluenceBalancingInner(jnp.ones(self.num_dims), jnp.zeros((), jnp.int32))

    def step(
        self, key: jax.Array, solution: Solution, inner: InfluenceBalancingInner
    ) -> tuple[InfluenceBalancingInner, jax.Array, bool]:
        """Takes one step. The loss is zero except at the end of a window."""
        state, time = self._advance(solution, inner.state), inner.time + 1
        is_end = (time % self._window == 0) | (time == (self.horizon or 0))
        return InfluenceBalancingInner(state, time), jnp.where(is_end, self._loss(state), 0), False

    def fitness(self, key: jax.Array, solution: Solution) -> jax.Array:
        """Returns the loss after `num_score_steps` steps, or after the horizon if there is one."""
        steps = self.horizon or self.num_score_steps
        start = self.reset(key).state
        return self._loss(jax.lax.fori_loop(0, steps, lambda _, state: self._advance(solution, state), start))

    def _advance(self, theta: jax.Array, state: jax.Array) -> jax.Array:
        direction = jnp.where(jnp.arange(self.num_dims) < self.num_positive, 1.0, -1.0)
        shifted = jnp.append(state[1:], 0)
        return self.decay * (state + shifted) + theta * direction

    def _loss(self, state: jax.Array) -> jax.Array:
        return jnp.square(state[0] - self.target) / 2
