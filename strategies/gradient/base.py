"""What strategies that descend a gradient share.

`DescentStrategy` descends a gradient, wherever it comes from. `GradientStrategy` draws perturbations of the mean and
estimates the gradient as a weighted sum of them: what is left to say is how members are weighed. See `ars` for one.
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from zoo.core import (
    Evaluation,
    Population,
    Solution,
    State,
    Strategy,
    Surrogate,
    in_single,
    number,
    static,
    weighted_sum,
)
from zoo.core.promotion import times
from zoo.strategies.gradient import optimizers
from zoo.strategies.pairs import check_divides, why_all
from zoo.strategies.perturbations import Dense, Perturbation, get_perturbation
from zoo.strategies.shaping import Shaping, get_shaping

CANNOT_RESTART = "its members go on from inner states, all of a generation at once"
"""See `Strategy.cannot_restart`."""
_ONE_SIGMA = (
    "It is the same for all parameters: let the problem scale the solution, f(scale * x), or choose a strategy with a "
    "spread for each parameter, such as snes, pgpe or cma_es."
)


class DescentState(NamedTuple):
    """What descends: the whole state of a strategy that keeps nothing else, and the field `descent` of any other's."""

    mean: Solution
    optimizer_state: optax.OptState
    generation: jax.Array  # []

    @property
    def descent(self) -> "DescentState":
        """Itself."""
        return self


class DescentStrategy(Strategy):
    """Base of strategies that hand a gradient to an optax optimizer.

    A subclass implements `estimate`, and has a `DescentState` or a `NamedTuple` with one in its field `descent`.

    Attributes:
        learning_rate: Learning rate handed to `optimizer`; a leaf, so that sweeping it never recompiles. A function,
            such as `optax.cosine_decay_schedule(0.01, 1000)`, is taken for `learning_rate_schedule`.
        learning_rate_schedule: `learning_rate_schedule(generation)` multiplies `learning_rate`; generations count from
            0, also those whose step is left out.
        optimizer: A function from the learning rate to an optax transformation, such as `optax.adam`, or
            `lambda lr: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(lr))`; or a name, `"adam"`. Define a
            function of your own once: it is part of the compiled program, and two equal lambdas are two programs.
            Besides those of optax there is `"clip_up"`.
    """

    learning_rate: float = number(default=0.01, at_least=0)
    learning_rate_schedule: optimizers.Schedule | None = static(default=None)
    optimizer: Any = static(default=optax.adam)

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        optimizers.check_optimizer(self.optimizer, f"{type(self).__name__}.optimizer")

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
        return state.descent.mean

    def map_mean(self, state: State, fn: Callable[[Solution], Solution]) -> State:
        """Returns the state with the mean changed by a function of a solution."""
        return self.with_descent(state, state.descent._replace(mean=fn(state.descent.mean)))

    def start(self, solution: Solution) -> DescentState:
        """Returns what descends, at the initial solution."""
        generation = jnp.zeros((), jnp.int32)
        optimizer_state = optimizers.start(self.transformation_at(generation), solution)
        return DescentState(solution, optimizer_state, generation)

    def descend(self, state: State, gradient: Solution) -> State:
        """Returns the state after a step of the optimizer along a gradient."""
        old = state.descent
        transformation = self.transformation_at(old.generation)
        mean, optimizer_state = optimizers.step(transformation, gradient, old.optimizer_state, old.mean)
        return self.with_descent(state, DescentState(mean, optimizer_state, old.generation + 1))

    def with_descent(self, state: State, descent: DescentState) -> State:
        """Returns the state with something else that descends."""
        return descent if isinstance(state, DescentState) else state._replace(descent=descent)

    def transformation_at(self, generation: Any) -> optax.GradientTransformation:
        """Returns the optimizer at its learning rate in a generation."""
        rate = self.learning_rate, self.learning_rate_schedule
        return optimizers.transformation(self.optimizer, *rate, generation)

    def _tell(self, state: State, population: Population, evaluation: Evaluation) -> State:
        return self.descend(state, self.estimate(state, population, evaluation))


class GradientStrategy(DescentStrategy):
    """Base of strategies that estimate the gradient by a weighted sum of perturbations of the mean.

    Perturbations z are drawn from N(0, I), and one gives as many members as there are `signs`: mean + sign * sigma * z,
    first all members of the first sign. A subclass that changes nothing is OpenAI-ES with antithetic pairs. Others
    change `weights`, `signs`, or `groups`.

    Attributes:
        sigma: Standard deviation of the perturbations: one number for all parameters. A function is taken for
            `sigma_schedule`.
        shaping: Fitness shaping: `"centered_ranks"`, `"standardized"`, `"none"`, or a function from fitness to weights
            of shape `[population_size]`. Anything but `"none"` changes what is estimated.
        sigma_schedule: `sigma_schedule(generation)`, above 0, multiplies `sigma`; generations count from 0. For example
            `optax.exponential_decay(1.0, 100, 0.9)`.
        perturbation: How the population is stored, from `zoo.strategies.perturbations`: `Dense()` arrays, `Seeded()`
            noise of which keys are kept, `LowRank(rank=1)` factors; or `"dense"`, `"seeded"`, `"low_rank"`, or a
            dictionary such as `{"id": "low_rank", "rank": 2}`.
    """

    population_size: int | None = static(default=64, at_least=2)
    sigma: float = number(default=0.1, above=0, advice=_ONE_SIGMA)
    shaping: str | Shaping = static(default="centered_ranks")
    sigma_schedule: optimizers.Schedule | None = static(default=None)
    perturbation: Any = static(default=Dense())

    signs: ClassVar[tuple[int, ...]] = (1, -1)
    """Of the members that share a perturbation: 1, -1 or 0."""

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        get_shaping(self.shaping)
        perturbation = get_perturbation(self.perturbation, f"{type(self).__name__}.perturbation")
        object.__setattr__(self, "perturbation", perturbation)
        check_divides(self, len(self.signs))

    def weights(self, state: State, fitness: jax.Array) -> jax.Array:
        """Returns the weights `[population_size]` of the members' perturbations, which sum to zero.

        Args:
            state: The state that `ask` returned.
            fitness: `[population_size]`, lower is better; NaN is +inf by now.
        """
        return times(antithetic(self.shape(fitness)), 1 / (fitness.shape[0] * self.sigma_of_members(state)))

    def shape(self, fitness: jax.Array) -> jax.Array:
        """Returns the shaped fitness."""
        return get_shaping(self.shaping)(fitness)

    def estimate(self, state: State, population: Population, evaluation: Evaluation) -> Solution:
        """Returns the gradient estimate, the sum of weights_i times (x_i - mean) / sigma over the members.

        Args:
            state: The state that `ask` returned.
            population: The population that was evaluated.
            evaluation: Its evaluation.
        """
        weights = self.weights(state, evaluation.fitness)
        if evaluation.repaired is not None and self.subtracts_pairs:
            weights = weights + middle_weights(self.shape(evaluation.fitness), weights, evaluation.repaired)
        # The weights sum to zero, so the mean drops out.
        weights = times(weights, 1 / self.sigma_of_members(state))
        return in_single(weighted_sum(weights, population, like=in_single(state.descent.mean)))

    def sigma_at(self, state: State) -> jax.Array:
        """Returns the standard deviation of the perturbations drawn in the state's generation."""
        return jnp.asarray(optimizers.scheduled(self.sigma, self.sigma_schedule, state.descent.generation))

    def sigma_of_members(self, state: State) -> jax.Array:
        """Returns the sigma that the members were drawn with: one for all, or `[population_size]`."""
        return self.sigma_at(state)

    def std(self, state: State) -> Solution:
        """Returns the current sigma, broadcast."""
        sigma = self.sigma_at(state)
        return jax.tree.map(lambda m: jnp.broadcast_to(sigma.astype(m.dtype), m.shape), state.descent.mean)

    @property
    def follows_population(self) -> bool:
        """Whether members are stored: an update cannot follow others that were repaired."""
        return isinstance(self.perturbation, Dense)

    @property
    def needs_all_members(self) -> str | None:
        """The fitness of members that share a perturbation is compared."""
        if len(self.signs) == 1:
            return "its step is the mean over as many perturbations"
        return why_all(len(self.signs))

    @property
    def subtracts_pairs(self) -> bool:
        """Whether there are pairs."""
        return set(self.signs) == {1, -1}

    @property
    def cannot_restart(self) -> str | None:
        """Members that are not stored cannot wait for those of other blocks."""
        if isinstance(self.perturbation, Dense):
            return None
        return f"the members of {self.perturbation!r} are not stored; use perturbation='dense'"

    def draw(self, key: jax.Array, state: State) -> Any:
        """Returns standard normal noise, a row for each perturbation."""
        mean = state.descent.mean
        return self._form.draw(key, mean, self._num_members(mean) // len(self.signs))

    def perturb(self, state: State, noise: Any, sigma: jax.Array | None = None) -> Population:
        """Returns the population of perturbations; `sigma` for each row, or that of the state's generation."""
        sigma = self.sigma_at(state) if sigma is None else sigma
        return self._form.perturb(state.descent.mean, sigma, noise, self.signs)

    @property
    def _form(self) -> Perturbation:
        return self.perturbation  # pyright: ignore[reportReturnType] - __post_init__ saw to it

    def _default_population_size(self, num_dims: int) -> int:
        return super()._default_population_size(num_dims) // 2 * max(2, len(self.signs))

    def _init(self, key: jax.Array, solution: Solution) -> Any:
        return self.start(solution)

    def _ask(self, key: jax.Array, state: Any, surrogate: Surrogate | None) -> tuple[Population, Any]:
        return self.perturb(state, self.draw(key, state)), state


def middle_weights(shaped: jax.Array, weights: jax.Array, repaired: jax.Array) -> jax.Array:
    """Returns weights that go to both members of an antithetic pair: what it learns of where the pair lies.

    A pair that bounds have changed is not symmetric around the mean. On a bound its members are one point, and their
    difference says nothing. With these weights, a step follows the covariance of fitness and members in the entries
    that were changed. In all others the middle of a pair is the mean, and they add nothing. Where no member was changed
    they are zero, so that rounding adds nothing either.

    Args:
        shaped: `[population_size]` shaped fitness.
        weights: `[population_size]` weights of the members, a multiple of `antithetic(shaped)`.
        repaired: `[population_size]` see `Evaluation.repaired`.
    """
    half = antithetic(shaped)
    square = jnp.sum(jnp.square(half))
    scale = jnp.sum(weights * half.astype(weights.dtype)) / jnp.where(square > 0, square, 1).astype(weights.dtype)
    middle = shaped - half
    return jnp.where(jnp.any(repaired), scale * (middle - jnp.mean(middle)).astype(weights.dtype), 0)


def antithetic(weights: jax.Array) -> jax.Array:
    """Returns weights with only the difference within each pair kept: (w+ - w-) / 2, and its negative."""
    plus, minus = jnp.split(weights, 2)
    half = (plus - minus) / 2
    return jnp.concatenate([half, -half])
