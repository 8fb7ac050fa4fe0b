"""A learning-rate schedule for the training of an MLP.

Reference: Vicol, Metz, Sohl-Dickstein 2021, arXiv 2112.13835 and its authors' code (constants); Wu, Ren, Liao, Grosse
2018, arXiv 1803.02021 (the schedule).
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from zoo.core import Solution, leaf, number, static
from zoo.problems.unrolled.inner_training import InnerTraining, InnerTrainingState


class MLPLRSchedule(InnerTraining):
    """MLP learning-rate schedule: learns initial rate and decay for SGD with momentum, by the training loss.

    The rate at step t is exp(theta_0) / (1 + t / decay_time)^exp(theta_1).

    Attributes:
        momentum: Momentum of the inner SGD.
        decay_time: Time scale of the decay, in inner steps.
        initial_theta: Initial theta of the search. Defaults to log 0.003 and log 30.
    """

    horizon: int | None = static(default=5000, at_least=1)
    window: int | None = static(default=100, at_least=1)
    hidden: tuple[int, ...] = static(default=(100, 100), at_least=1)
    batch_size: int = static(default=100, at_least=1)
    momentum: float = number(default=0.9, at_least=0)
    decay_time: float = number(default=5000.0, above=0)
    initial_theta: tuple[float, float] = leaf(default=(math.log(0.003), math.log(30)))

    @property
    def suggestions(self) -> Mapping[str, Any]:
        """The paper's settings."""
        return {"sigma": 0.1, "learning_rate": 0.01}

    @property
    def suggested_num_steps(self) -> int:
        """Two hundred full training runs."""
        return 200 * (self.horizon or 5000)

    def initial_solution(self, key: jax.Array) -> Solution:
        """Returns theta, `[2]`."""
        return jnp.asarray(self.initial_theta, float)

    def init_optimizer(self, params: Any) -> Any:
        """Returns zero velocity."""
        return jax.tree.map(jnp.zeros_like, params)

    def update(self, solution: Solution, gradient: Any, state: InnerTrainingState) -> tuple[Any, Any]:
        """Takes one step of SGD with momentum."""
        time = (1 + state.time.astype(float) / self.decay_time).astype(solution.dtype)
        rate = jnp.exp(solution[0]) / time ** jnp.exp(solution[1])
        velocity = jax.tree.map(lambda v, g: self.momentum * v + g, state.optimizer_state, gradient)
        return jax.tree.map(lambda p, v: p - rate * v, state.params, velocity), velocity
