"""What strategies that descend a gradient share: the update of the mean, the schedule of sigma, antithetic pairs.

A member of the family implements `_init`, `_ask` and `estimate`; see `open_es` for the shortest.
"""

import abc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from zoo.core import Evaluation, Population, Solution, State, Strategy, number, static, weighted_sum
from zoo.core.promotion import promotion_of_others, times
from zoo.strategies.gradient.clip_up import clip_up
from zoo.strategies.perturbations import Dense, Perturbation, get_perturbation
from zoo.strategies.shaping import Shaping, get_shaping

OptimizerFactory = Callable[[Any], optax.GradientTransformation]
Schedule = Callable[[jax.Array], Any]


class OptimizerStrategy(Strategy):
    """Base of strategies that hand a gradient to an optax optimizer.

    Attributes:
        learning_rate: Learning rate handed to `optimizer`; a leaf, so that sweeping it never recompiles.
        optimizer: A function from the learning rate to an optax transformation, such as `optax.adam`, or
            `lambda lr: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(lr))`; or a name, `"adam"`. Define a
            function of your own once: it is part of the compiled program, and two equal lambdas are two programs.
            Besides those of optax there is `"clip_up"`.
    """

    learning_rate: float = number(default=0.01, at_least=0)
    optimizer: OptimizerFactory | str = static(default=optax.adam)

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        name = type(self).__name__
        if isinstance(self.optimizer, str):
            if not callable(_optimizer_by_name(self.optimizer)):
                raise ValueError(f"{name}.optimizer {self.optimizer!r} is not the name of an optax optimizer.")
        elif isinstance(self.optimizer, optax.GradientTransformation) or not callable(self.optimizer):
            raise TypeError(
                f"{name}.optimizer must be a function from a learning rate to an optax transformation, such as "
                f"optax.adam (not optax.adam(1e-3): give the rate as learning_rate=1e-3), got {self.optimizer!r}."
            )

    @property
    def _transformation(self) -> optax.GradientTransformation:
        optimizer = _optimizer_by_name(self.optimizer) if isinstance(self.optimizer, str) else self.optimizer
        return optimizer(self.learning_rate)

    def _step(self, gradient: Solution, state: optax.OptState, solution: Solution) -> tuple[Solution, optax.OptState]:
        """Returns the solution after a step of the optimizer along a gradient, and the optimizer's state."""
        with promotion_of_others():  # Adam, for one, raises a float to the power of an integer array
            updates, state = self._transformation.update(gradient, state, solution)
            return optax.apply_updates(solution, updates), state


def _optimizer_by_name(name: str) -> Any:
    return clip_up if name == "clip_up" else getattr(optax, name, None)


def has_finite_square(x: jax.Array) -> jax.Array:
    """Whether each entry is finite, and small enough to be squared."""
    return jnp.abs(x) < float(jnp.finfo(x.dtype).max) ** 0.5


def skip_non_finite(transformation: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns the transformation, leaving out steps whose gradient is not finite, as one not sampled may be.

    Nor is one let through whose square, which optimizers keep, would not be finite.
    """

    def mark_huge(updates: Any, params: Any = None) -> Any:
        del params
        return jax.tree.map(lambda g: jnp.where(has_finite_square(g), g, jnp.nan), updates)

    finite = optax.apply_if_finite(transformation, max_consecutive_errors=np.iinfo(np.int32).max)
    return optax.chain(optax.stateless(mark_huge), finite)


class DescentStrategy(OptimizerStrategy):
    """Base of strategies that descend a gradient, wherever it comes from.

    The state of a subclass is a `NamedTuple` with at least `mean` (the solution), `optimizer_state` and `generation`.
    """

    @abc.abstractmethod
    def estimate(self, state: State, population: Population, evaluation: Evaluation) -> Solution:
        """Returns the raw gradient estimate, in the structure of the solution.

        Args:
            state: The state that `ask` returned.
            population: The population that was evaluated.
            evaluation: Its evaluation.
        """

    def mean(self, state: State) -> Solution:
        """Returns the current mean."""
        return state.mean

    def _tell(self, state: State, population: Population, evaluation: Evaluation) -> State:
        return self._apply(state, self.estimate(state, population, evaluation))

    def _apply(self, state: State, gradient: Solution) -> State:
        """Returns the state after a step of the optimizer along a gradient."""
        mean, optimizer_state = self._step(gradient, state.optimizer_state, state.mean)
        return state._replace(mean=mean, optimizer_state=optimizer_state, generation=state.generation + 1)


class PerturbationStrategy(DescentStrategy):
    """Base of strategies that estimate the gradient from the shaped fitness of perturbations of the mean.

    Attributes:
        sigma: Standard deviation of the perturbations.
        shaping: Fitness shaping: `"centered_ranks"`, `"standardized"`, `"none"`, or a function from fitness to weights
            of shape `[population_size]`. Anything but `"none"` changes what is estimated.
    """

    population_size: int | None = static(default=64, at_least=2)
    sigma: float = number(default=0.1, above=0)
    shaping: str | Shaping = static(default="centered_ranks")

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        get_shaping(self.shaping)

    def _default_population_size(self, num_dims: int) -> int:
        return 2 * (super()._default_population_size(num_dims) // 2)  # whole antithetic pairs

    def _shape(self, fitness: jax.Array) -> jax.Array:
        return get_shaping(self.shaping)(fitness)

    def _check_pairs(self, way_out: str = "") -> None:
        """Raises a `ValueError` if the population does not divide into antithetic pairs."""
        if self.population_size is not None and self.population_size % 2:
            raise ValueError(
                f"{type(self).__name__} samples antithetic pairs, so population_size must be even, got "
                f"{self.population_size}. Use {self.population_size + 1}{way_out}."
            )

    def _antithetic_weights(self, fitness: jax.Array) -> jax.Array:
        """Returns the shaped fitness with only the difference within each pair kept: (w+ - w-) / 2 and its negative."""
        weights = self._shape(fitness)
        size = weights.shape[0]
        half = (weights[: size // 2] - weights[size // 2 :]) / 2
        return jnp.concatenate([half, -half])


class GradientStrategy(PerturbationStrategy):
    """Base of strategies whose perturbations have one standard deviation, constant or on a schedule.

    Attributes:
        sigma_schedule: `sigma_schedule(generation)`, above 0, multiplies `sigma`; generations count from 0. For example
            `optax.exponential_decay(1.0, 100, 0.9)`.
        perturbation: How the population is stored, from `zoo.strategies.perturbations`: `Dense()` arrays, `Seeded()`
            noise of which keys are kept, `LowRank(rank=1)` factors; or `"dense"`, `"seeded"`, `"low_rank"`, or a
            dictionary such as `{"id": "low_rank", "rank": 2}`.
    """

    sigma_schedule: Schedule | None = static(default=None)
    perturbation: str | Perturbation = static(default=Dense())

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        perturbation = get_perturbation(self.perturbation, f"{type(self).__name__}.perturbation")
        object.__setattr__(self, "perturbation", perturbation)

    @property
    def remembers_noise(self) -> bool:
        """Whether members are not stored, so that an update cannot follow members that were moved."""
        return not isinstance(self.perturbation, Dense)

    @property
    def _perturbation(self) -> Perturbation:
        return self.perturbation  # pyright: ignore[reportReturnType] - __post_init__ saw to it

    def std(self, state: State) -> Solution:
        """Returns the current sigma, broadcast."""
        return jax.tree.map(lambda m: jnp.broadcast_to(self.sigma_at(state).astype(m.dtype), m.shape), state.mean)

    def sigma_at(self, state: State) -> jax.Array:
        """Returns the standard deviation of the perturbations drawn in the state's generation."""
        if self.sigma_schedule is None:
            return jnp.asarray(self.sigma)
        with promotion_of_others():  # those of optax multiply the integer that counts generations by floats
            return jnp.asarray(self.sigma * self.sigma_schedule(state.generation))

    def _weighted_estimate(self, state: State, population: Population, weights: jax.Array) -> Solution:
        """Returns sum_i w_i (x_i - mean) / (population_size sigma^2) for weights that sum to zero."""
        # The weights sum to zero, so the mean drops out.
        scale = 1 / (weights.shape[0] * self.sigma_at(state) ** 2)
        return weighted_sum(times(weights, scale), population, like=state.mean)
