"""What strategies that descend a gradient share.

`DescentStrategy` hands a gradient from any source to an optimizer. `GradientStrategy` draws perturbations of the mean
and estimates the gradient as a weighted sum of them; a subclass only says how members are weighed. `ars` is an example.
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
    distributions,
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

CANNOT_RESTART = "its members continue from inner states, all members of a generation together"
"""See `Strategy.cannot_restart`."""
_ONE_SIGMA = (
    "It is the same for all parameters: let the problem scale the solution, f(scale * x), or choose a strategy with a "
    "spread for each parameter, such as snes, pgpe or cma_es."
)


class DescentState(NamedTuple):
    """Mean, optimizer state and generation: the whole state of a strategy, or the field `descent` of its state."""

    mean: Solution
    optimizer_state: optax.OptState
    generation: jax.Array  # []

    @property
    def descent(self) -> "DescentState":
        """The state itself, so that the state of every descent strategy has `descent`."""
        return self


class DescentStrategy(Strategy):
    """Base of strategies that hand a gradient to an optax optimizer.

    A subclass implements `estimate`. Its state is a `DescentState`, or a `NamedTuple` with a `DescentState` in the
    field `descent`.

    Attributes:
        learning_rate: Learning rate of `optimizer`, at least 0. Sweeping it never recompiles. A function of the
            generation, such as `optax.cosine_decay_schedule(0.01, 1000)`, is taken for `learning_rate_schedule`.
        learning_rate_schedule: A function of the generation that multiplies `learning_rate`. Generations count from 0.
            A generation whose step is skipped, because the gradient is not finite, counts too.
        optimizer: A function from the learning rate to an optax transformation, such as `optax.adam`, or `lambda lr:
            optax.chain(optax.clip_by_global_norm(1.0), optax.adam(lr))`; or the name of an optimizer of optax, such as
            `"adam"`, or `"clip_up"`. Define a function of your own only once: it is part of the compiled program, and
            two equal lambdas are two programs.
    """

    learning_rate: float = number(default=0.01, at_least=0, search=distributions.times(0.03, 30))
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
        """Returns the descent state at the initial solution."""
        generation = jnp.zeros((), jnp.int32)
        optimizer_state = optimizers.start(self.transformation_at(generation), solution)
        return DescentState(solution, optimizer_state, generation)

    def descend(self, state: State, gradient: Solution) -> State:
        """Returns the state after one step of the optimizer along a gradient."""
        old = state.descent
        transformation = self.transformation_at(old.generation)
        mean, optimizer_state = optimizers.step(transformation, gradient, old.optimizer_state, old.mean)
        return self.with_descent(state, DescentState(mean, optimizer_state, old.generation + 1))

    def with_descent(self, state: State, descent: DescentState) -> State:
        """Returns the state with another descent state in it."""
        return descent if isinstance(state, DescentState) else state._replace(descent=descent)

    def transformation_at(self, generation: Any) -> optax.GradientTransformation:
        """Returns the optimizer with its learning rate in a generation."""
        rate = self.learning_rate, self.learning_rate_schedule
        return optimizers.transformation(self.optimizer, *rate, generation)

    def _tell(self, state: State, population: Population, evaluation: Evaluation) -> State:
        return self.descend(state, self.estimate(state, population, evaluation))


class GradientStrategy(DescentStrategy):
    """Base of strategies that estimate the gradient by a weighted sum of perturbations of the mean.

    Perturbations z are drawn from N(0, I). Each gives one member for each of the `signs`, mean + sign * sigma * z; all
    members with the first sign come first. A subclass that changes nothing is OpenAI-ES with antithetic pairs. Others
    change `weights`, `signs`, or `groups`.

    Attributes:
        sigma: Standard deviation of the perturbations, in the units of the solution, above 0; one number for all
            parameters. A function of the generation is taken for `sigma_schedule`.
        shaping: Fitness shaping: `"centered_ranks"`, `"standardized"`, `"none"`, or a function from fitness to weights,
            both of shape `[population_size]`. Any shaping but `"none"` changes what is estimated.
        sigma_schedule: A function of the generation, counted from 0, that multiplies `sigma`; its values are above 0.
            For example `optax.exponential_decay(1.0, 100, 0.9)`.
        perturbation: How the population is stored: as `"dense"` arrays, as the keys of `"seeded"` noise, or as
            `"low_rank"` factors. A dictionary has settings, `{"id": "low_rank", "rank": 2}`. An instance will do too,
            such as `LowRank(rank=2)` from `zoo.strategies.perturbations`.
    """

    population_size: int | None = static(default=64, at_least=2)
    sigma: float = number(default=0.1, above=0, advice=_ONE_SIGMA, search=distributions.times(0.1, 10))
    shaping: str | Shaping = static(default="centered_ranks")
    sigma_schedule: optimizers.Schedule | None = static(default=None)
    perturbation: Any = static(default=Dense())

    signs: ClassVar[tuple[int, ...]] = (1, -1)
    """The signs of the members that share a perturbation: 1, -1 or 0."""

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
            fitness: `[population_size]`, lower is better; NaN has become +inf.
        """
        return times(antithetic(self.shape(fitness)), 1 / (fitness.shape[0] * self.sigma_of_members(state)))

    def shape(self, fitness: jax.Array) -> jax.Array:
        """Returns the shaped fitness."""
        return get_shaping(self.shaping)(fitness)

    def estimate(self, state: State, population: Population, evaluation: Evaluation) -> Solution:
        """Returns the gradient estimate: the sum over the members of weights_i (x_i - mean) / sigma.

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
        """Returns the current sigma, for every parameter."""
        sigma = self.sigma_at(state)
        return jax.tree.map(lambda m: jnp.broadcast_to(sigma.astype(m.dtype), m.shape), state.descent.mean)

    @property
    def follows_population(self) -> bool:
        """Whether members are stored. An update cannot follow repaired members if it draws the noise again."""
        return isinstance(self.perturbation, Dense)

    @property
    def needs_all_members(self) -> str | None:
        """Why `tell` needs all members: it compares the members that share a perturbation."""
        if len(self.signs) == 1:
            return "its step is the mean over that number of perturbations"
        return why_all(len(self.signs))

    @property
    def subtracts_pairs(self) -> bool:
        """Whether members come in antithetic pairs."""
        return set(self.signs) == {1, -1}

    @property
    def cannot_restart(self) -> str | None:
        """Why it cannot restart: members that are not stored cannot wait for the other blocks of a generation."""
        if isinstance(self.perturbation, Dense):
            return None
        return f"the members of {self.perturbation!r} are not stored; use perturbation='dense'"

    def draw(self, key: jax.Array, state: State) -> Any:
        """Returns standard normal noise, one row for each perturbation."""
        mean = state.descent.mean
        return self._form.draw(key, mean, self._num_members(mean) // len(self.signs))

    def perturb(self, state: State, noise: Any, sigma: jax.Array | None = None) -> Population:
        """Returns the population of perturbations.

        Args:
            state: The state.
            noise: What `draw` returned.
            sigma: `[n]`, one number for each row of noise. Defaults to the sigma of the state's generation.
        """
        sigma = self.sigma_at(state) if sigma is None else sigma
        return self._form.perturb(state.descent.mean, sigma, noise, self.signs)

    @property
    def _form(self) -> Perturbation:
        return self.perturbation  # pyright: ignore[reportReturnType] - __post_init__ made it one

    def _default_population_size(self, num_dims: int) -> int:
        return super()._default_population_size(num_dims) // 2 * max(2, len(self.signs))

    def _init(self, key: jax.Array, solution: Solution) -> Any:
        return self.start(solution)

    def _ask(self, key: jax.Array, state: Any, surrogate: Surrogate | None) -> tuple[Population, Any]:
        return self.perturb(state, self.draw(key, state)), state


def middle_weights(shaped: jax.Array, weights: jax.Array, repaired: jax.Array) -> jax.Array:
    """Returns weights that both members of an antithetic pair get, so that a step also follows where pairs lie.

    A pair that bounds have changed is not symmetric around the mean. On a bound its members are one point, and their
    difference says nothing. With these weights, a step follows the covariance of fitness and members in the entries
    that were changed. In all other entries the middle of a pair is the mean, and the weights add nothing. If no member
    was changed, the weights are zero, so that rounding adds nothing either.

    Args:
        shaped: `[population_size]` shaped fitness.
        weights: `[population_size]` weights of the members, a multiple of `antithetic(shaped)`.
        repaired: `[population_size]`; see `Evaluation.repaired`.
    """
    half = antithetic(shaped)
    square = jnp.sum(jnp.square(half))
    scale = jnp.sum(weights * half.astype(weights.dtype)) / jnp.where(square > 0, square, 1).astype(weights.dtype)
    middle = shaped - half
    return jnp.where(jnp.any(repaired), scale * (middle - jnp.mean(middle)).astype(weights.dtype), 0)


def antithetic(weights: jax.Array) -> jax.Array:
    """Returns only the difference of the weights within each pair: (w+ - w-) / 2, and its negative."""
    plus, minus = jnp.split(weights, 2)
    half = (plus - minus) / 2
    return jnp.concatenate([half, -half])
