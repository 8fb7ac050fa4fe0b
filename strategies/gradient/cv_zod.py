"""CV-ZOD: zeroth-order descent with a surrogate gradient as control variate.

The surrogate gradient, or hint, is the estimate to begin with. Antithetic pairs then estimate only what the hint does
not predict: the difference between the measured slope and the hint's slope along each perturbation. The result is
unbiased for the gradient of the smoothed fitness however bad the hint is, and has little variance where the hint is
good.

Reference: Ryabchenko, Qian, Mou, "CV-ZOD". Its estimate is m + [(f(x + sigma u) - f(x)) / sigma - <m, u>] u for a hint
m and u ~ N(0, I). Here central differences over antithetic pairs take the place of the one-sided difference.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import Evaluation, Groups, Population, Solution, State, Surrogate, in_single, static
from zoo.core.promotion import common_dtype, promoted
from zoo.strategies.gradient.base import DescentState, GradientStrategy, antithetic
from zoo.strategies.gradient.optimizers import has_finite_square
from zoo.strategies.gradient.subspace import inner_products
from zoo.strategies.shaping import Shaping


class CVZODState(NamedTuple):
    """State of `CVZOD`."""

    descent: DescentState
    hint: Solution  # the surrogate gradient; zero if it was not finite
    slopes: jax.Array  # [num_pairs], the hint's slopes along the perturbations


class CVZOD(GradientStrategy):
    """OpenAI-ES with the surrogate gradient as a control variate.

    Only what the surrogate does not predict is left to chance. The estimate is unbiased for the gradient of the
    smoothed fitness, as with `open_es`, for any surrogate. It is exact where the fitness is linear and the surrogate is
    its gradient. The surrogate's scale matters, not only its direction, so fitness cannot be shaped. Pairs without
    finite fitness are left out; if there are no others, there is no step.

    References:
        Ryabchenko, Qian, Mou, CV-ZOD.
    """

    shaping: str | Shaping = static(default="none")

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        if self.shaping != "none":
            raise ValueError(
                "CVZOD subtracts the surrogate gradient in the units of the fitness, so shaping must be 'none', got "
                f"{self.shaping!r}. To shape fitness, use guided_es, which needs only the surrogate's direction."
            )

    def takes_surrogate(self, state: State) -> bool:
        """Returns True."""
        return True

    @property
    def groups(self) -> Groups:
        """The groups: antithetic pairs, whose fitness is subtracted."""
        return Groups.of(self._fixed_size, 2)

    def weights(self, state: CVZODState, fitness: jax.Array) -> jax.Array:
        """Returns ((f(x_i+) - f(x_i-)) / (2 sigma) - slope_i) / population_size, and its negative."""
        known = _known_pairs(fitness)
        slopes = antithetic(self.shape(fitness))[: len(known)] / self.sigma_at(state)
        half = jnp.where(known, jnp.subtract(*promoted(slopes, state.slopes)), 0)
        half = half / (2 * jnp.maximum(jnp.sum(known), 1)).astype(half.dtype)
        return jnp.concatenate([half, -half])

    def estimate(self, state: CVZODState, population: Population, evaluation: Evaluation) -> Solution:
        """Returns the gradient estimate, hint + sum_i ((f(x_i+) - f(x_i-)) / (2 sigma) - slope_i) u_i / num_pairs.

        Args:
            state: The state that `ask` returned.
            population: The population that was evaluated.
            evaluation: Its evaluation.
        """
        is_any_known = jnp.any(_known_pairs(evaluation.fitness))
        correction = super().estimate(state, population, evaluation)
        return jax.tree.map(lambda h, c: jnp.where(is_any_known, h + c, 0), in_single(state.hint), correction)

    def _init(self, key: jax.Array, solution: Solution) -> CVZODState:
        return CVZODState(
            descent=self.start(solution),
            hint=jax.tree.map(jnp.zeros_like, solution),
            slopes=jnp.zeros(self._num_members(solution) // 2, common_dtype(*jax.tree.leaves(solution), jnp.float32)),
        )

    def _ask(self, key: jax.Array, state: CVZODState, surrogate: Surrogate | None) -> tuple[Population, CVZODState]:
        gradient = surrogate(state.descent.mean)  # pyright: ignore[reportOptionalCall] - `ask` checked it
        noise = self.draw(key, state)
        slopes = inner_products(noise, jax.tree.map(lambda g: g[None], gradient))[:, 0].astype(state.slopes.dtype)
        numbers = (slopes, *jax.tree.leaves(in_single(gradient)))
        is_usable = jnp.all(jnp.stack([jnp.all(has_finite_square(x)) for x in numbers]))
        hint = jax.tree.map(lambda g: jnp.where(is_usable, g, 0), gradient)
        slopes = jnp.where(is_usable, slopes, 0)
        return self.perturb(state, noise), state._replace(hint=hint, slopes=slopes)


def _known_pairs(fitness: jax.Array) -> jax.Array:
    """Returns which pairs have finite fitness, `[num_pairs]`."""
    return jnp.all(jnp.isfinite(fitness.reshape(2, -1)), axis=0)
