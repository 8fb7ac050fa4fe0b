"""A learning-rate schedule for gradient descent on a function of two variables, on which greedy schedules fail.

Reference: Vicol, Metz, Sohl-Dickstein 2021, arXiv 2112.13835 and its authors' code (constants).
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from zoo.core import Solution, UnrolledProblem, leaf, static


class ToyInner(NamedTuple):
    """The point that the inner optimization is at, and its step."""

    x: jax.Array  # [2]
    time: jax.Array  # []


class ToyLRSchedule(UnrolledProblem):
    """Toy learning-rate schedule: the log rates at both ends of a linear schedule, for descent on a 2-d function.

    f(x) = sqrt(x0^2 + 5) - sqrt 5 + sin(x1)^2 exp(-5 x0^2) + |x1 - 100| / 4. The loss of a step is f after it. Fast
    descent of x0 traps x1 in a ripple of the sine, and a truncated estimate does not foresee it.

    Attributes:
        start: x at the start of an episode.
        initial_log_rates: Initial log rates of the search, at the start and the end of the schedule.
    """

    horizon: int | None = static(default=100, at_least=1)
    window: int | None = static(default=10, at_least=1)
    objective: Literal["mean", "sum"] = static(default="sum")
    num_score_episodes: int = static(default=1, at_least=1)
    start: tuple[float, float] = leaf(default=(1.0, 1.0))
    initial_log_rates: tuple[float, float] = leaf(default=(-4.0, -4.0))

    @property
    def suggestions(self) -> Mapping[str, Any]:
        """The paper's settings."""
        return {"sigma": 0.3, "learning_rate": 0.01, "optimizer": _slow_adam}

    @property
    def suggested_num_steps(self) -> int:
        """10 000 updates of 100 particles by 10 steps."""
        return 10_000_000

    def initial_solution(self, key: jax.Array) -> Solution:
        """Returns the initial log rates `[2]`, at the start and at the end of the schedule."""
        return jnp.asarray(self.initial_log_rates, float)

    def reset(self, key: jax.Array) -> ToyInner:
        """Returns the start."""
        return ToyInner(jnp.asarray(self.start, float), jnp.zeros((), jnp.int32))

    def step(self, key: jax.Array, solution: Solution, inner: ToyInner) -> tuple[ToyInner, jax.Array, bool]:
        """Takes one step of gradient descent at the schedule's rate."""
        progress = inner.time.astype(inner.x.dtype) / (self.horizon or 1)
        rates = jnp.exp(solution).astype(inner.x.dtype)
        rate = rates[0] * (1 - progress) + rates[1] * progress
        x = inner.x - rate * jax.grad(_landscape)(inner.x)
        return ToyInner(x, inner.time + 1), _landscape(x), False


def _landscape(x: jax.Array) -> jax.Array:
    """Returns the value of the inner function at x, `[2]`."""
    ripple = jnp.sin(x[1]) ** 2 * jnp.exp(-5 * x[0] ** 2)
    return jnp.sqrt(x[0] ** 2 + 5) - jnp.sqrt(5.0) + ripple + jnp.abs(x[1] - 100) / 4


def _slow_adam(learning_rate: Any) -> optax.GradientTransformation:
    """Returns Adam with b1 = 0.99, as in the paper."""
    return optax.adam(learning_rate, b1=0.99)
