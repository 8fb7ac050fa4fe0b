"""The Lorenz system: finds its parameters from a chaotic trajectory.

Reference: Li, Harrison, Sohl-Dickstein, Smith, Metz 2023, arXiv 2304.12180 and its authors' code
(constants); Lorenz 1963, "Deterministic nonperiodic flow".
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import Solution, UnrolledProblem, leaf, number, static


class LorenzInner(NamedTuple):
    """Inner state: two trajectories from the same start."""

    model: jax.Array  # [3] x, y, z with the solution's parameters
    truth: jax.Array  # [3] x, y, z with the true parameters


class Lorenz(UnrolledProblem):
    """Lorenz system: learns log a and log r from the squared error of z along a chaotic trajectory.

    x' = a (y - x), y' = (r - z) x - y, z' = x y - b z, integrated by forward Euler. The loss of a step is the squared
    error of z after it. Evolution strategies minimise the loss smoothed by their perturbations. The gradient of the
    loss itself is useless.

    Attributes:
        dt: Time step of the Euler method.
        a: True a (Prandtl number).
        r: True r (Rayleigh number).
        b: The constant b, which is known.
        initial_log_a: Initial log a of the search.
        initial_log_r: Initial log r of the search.
        start: x, y, z at the start of an episode.
        start_noise: Standard deviation of Gaussian noise on the start. With `None`, adds no noise.
        score_start_noise: Standard deviation of Gaussian noise on the held-out starts of the score. With `None`, adds
            no noise.
    """

    horizon: int | None = static(default=2000, at_least=1)
    window: int | None = static(default=100, at_least=1)
    dt: float = number(default=0.005, above=0)
    a: float = number(default=10.0)
    r: float = number(default=28.0)
    b: float = number(default=8 / 3)
    initial_log_a: float = number(default=3.116)
    initial_log_r: float = number(default=3.7)
    start: tuple[float, float, float] = leaf(default=(1.2, 1.3, 1.6))
    start_noise: float | None = number(default=None, at_least=0)
    score_start_noise: float | None = number(default=1.0, at_least=0)

    @property
    def suggestions(self) -> Mapping[str, Any]:
        """The paper's sigma, and a rate for Adam. The paper uses SGD at 1e-5, which suits only unshaped estimates."""
        return {"sigma": 0.04, "learning_rate": 0.003}

    @property
    def suggested_num_steps(self) -> int:
        """1 000 updates of 200 pairs by 100 steps."""
        return 40_000_000

    def initial_solution(self, key: jax.Array) -> Solution:
        """Returns the initial parameters, the same for every key."""
        return {
            "log_a": jnp.asarray(self.initial_log_a, float),
            "log_r": jnp.asarray(self.initial_log_r, float),
        }

    def reset(self, key: jax.Array) -> LorenzInner:
        """Returns both trajectories at the start."""
        start = jnp.asarray(self.start, float)
        if self.start_noise is not None:
            start = start + self.start_noise * jax.random.normal(key, (3,), start.dtype)
        return LorenzInner(start, start)

    def step(self, key: jax.Array, solution: Solution, inner: LorenzInner) -> tuple[LorenzInner, jax.Array, bool]:
        """Takes one Euler step on both trajectories."""
        model = self._euler(inner.model, jnp.exp(solution["log_a"]), jnp.exp(solution["log_r"]))
        truth = self._euler(inner.truth, self.a, self.r)
        return LorenzInner(model, truth), jnp.square(model[2] - truth[2]), False

    def score(self, key: jax.Array, solution: Solution) -> dict[str, jax.Array]:
        """Returns the mean full-episode loss over held-out starts."""
        return super(Lorenz, self.replace(start_noise=self.score_start_noise)).score(key, solution)

    def _euler(self, position: jax.Array, a: Any, r: Any) -> jax.Array:
        x, y, z = position
        return position + self.dt * jnp.stack([a * (y - x), (r - z) * x - y, x * y - self.b * z])
