"""Zeroth-order descent with a hint as control variate: unbiased however bad the hint is.

Reference: Ryabchenko, Qian, Mou, "CV-ZOD"; the estimate is m + [(f(x + sigma u) - f(x)) / sigma - <m, u>] u for a
hint m and u ~ N(0, I), here with central differences over antithetic pairs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from zoo.core import Evaluation, Groups, Population, Solution, Surrogate, repeat_groups, static
from zoo.core.promotion import common_dtype, promoted
from zoo.strategies.gradient.base import GradientStrategy, has_finite_square
from zoo.strategies.gradient.subspace import inner_products
from zoo.strategies.shaping import Shaping


class CVZODState(NamedTuple):
    """State of `CVZOD`."""

    mean: Solution
    optimizer_state: optax.OptState
    generation: jax.Array  # []
    hint: Solution  # the surrogate gradient; zero if it was not finite
    slopes: jax.Array  # [num_pairs], of the hint along the perturbations


class CVZOD(GradientStrategy):
    """OpenAI-ES with the surrogate gradient as a control variate.

    Only what the surrogate does not predict is left to chance: its estimate is that of `open_es`, unbiased for the
    gradient of the smoothed fitness for any surrogate, and exact where the fitness is linear and the surrogate its
    gradient. The surrogate's scale matters, not only its direction, so fitness cannot be shaped. Pairs without finite
    fitness are left out, and without any there is no step.

    References:
        Ryabchenko, Qian, Mou, CV-ZOD.
    """

    shaping: str | Shaping = static(default="none")

    takes_surrogate = True

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        self._check_pairs()
        if self.shaping != "none":
            raise ValueError(
                "CVZOD subtracts the surrogate gradient in the units of the fitness, so shaping must be 'none', got "
                f"{self.shaping!r}. guided_es needs only the surrogate's direction."
            )

    @property
    def groups(self) -> np.ndarray | Groups:
        """Antithetic pairs, whose fitness is subtracted."""
        return repeat_groups(self._fixed_size, 2)

    def estimate(self, state: CVZODState, population: Population, evaluation: Evaluation) -> Solution:
        """Returns the gradient estimate, hint + sum_i ((f(x_i+) - f(x_i-)) / (2 sigma) - slope_i) u_i / num_pairs.

        Args:
            state: The state that `ask` returned.
            population: The population that was evaluated.
            evaluation: Its evaluation.
        """
        num_pairs = len(state.slopes)
        known = jnp.all(jnp.isfinite(evaluation.fitness.reshape(2, num_pairs)), axis=0)
        half = self._antithetic_weights(evaluation.fitness)[:num_pairs]
        half = jnp.subtract(*promoted(half, self.sigma_at(state) * state.slopes))
        half = jnp.where(known, half, 0) * (num_pairs / jnp.maximum(jnp.sum(known), 1).astype(half.dtype))
        correction = self._weighted_estimate(state, population, jnp.concatenate([half, -half]))
        return jax.tree.map(lambda h, c: jnp.where(jnp.any(known), h + c, 0), state.hint, correction)

    def _init(self, key: jax.Array, solution: Solution) -> CVZODState:
        return CVZODState(
            mean=solution,
            optimizer_state=self._transformation.init(solution),
            generation=jnp.zeros((), jnp.int32),
            hint=jax.tree.map(jnp.zeros_like, solution),
            slopes=jnp.zeros(self._num_members(solution) // 2, common_dtype(*jax.tree.leaves(solution))),
        )

    def _ask(self, key: jax.Array, state: CVZODState, surrogate: Surrogate | None) -> tuple[Population, CVZODState]:
        gradient = surrogate(state.mean)  # pyright: ignore[reportOptionalCall] - `ask` saw to it that there is one
        noise = self._perturbation.draw(key, state.mean, len(state.slopes))
        slopes = inner_products(noise, jax.tree.map(lambda g: g[None], gradient))[:, 0].astype(state.slopes.dtype)
        is_usable = jnp.all(jnp.stack([jnp.all(has_finite_square(x)) for x in (slopes, *jax.tree.leaves(gradient))]))
        hint = jax.tree.map(lambda g: jnp.where(is_usable, g, 0), gradient)
        slopes = jnp.where(is_usable, slopes, 0)
        population = self._perturbation.perturb(state.mean, self.sigma_at(state), noise)
        return population, state._replace(hint=hint, slopes=slopes)
