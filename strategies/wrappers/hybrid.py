"""Hybrid of gradient descent and ES: some leaves of a solution follow the gradient, the others an evolution strategy.

Every generation a base strategy draws members of its leaves, and the surrogate gradient of the other leaves is taken at
each member. The base's update uses the fitness. An optimizer steps the other leaves along the members' mean gradient.

Reference: Lenc, Elsen, Schaul, Simonyan 2019, "Non-Differentiable Supervised Learning with Evolution Strategies and
Hybrid Methods", arXiv 1906.03139: SGD trains the weights of a network, ES its sparsity masks.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from zoo.core import (
    Evaluation,
    Population,
    Solution,
    Surrogate,
    as_patterns,
    distributions,
    find_leaves,
    gradient_of_members,
    number,
    repeat_solution,
    static,
)
from zoo.core.parts import Part
from zoo.strategies.gradient import optimizers
from zoo.strategies.wrappers.base import Wrapper, map_surrogate


class HybridState(NamedTuple):
    """State of `Hybrid`. Parts of a solution have its structure, with None for the leaves of the other part."""

    base: Any  # the base's state, on the part it trains; None if there is no such part
    weights: Solution  # the part trained by the gradient
    optimizer_state: optax.OptState
    gradient: Solution  # in the structure of the weights
    generation: jax.Array  # []


class Hybrid(Wrapper):
    """Trains some leaves of the solution by any evolution strategy, and the others by the surrogate gradient.

    The gradient is taken at each member, with the member's own leaves of the ES and its own data, and averaged over the
    members. A member whose gradient is not finite is left out. (So the members' gradients are stored, however the
    base's population is stored.)

    Attributes:
        base: The strategy that trains the leaves of the ES: its id, a dictionary of its id and settings such as `{"id":
            "snes", "sigma": 0.1}`, or a strategy.
        es_leaves: The leaves of the ES: a regular expression, or several, that are searched for in the paths of the
            leaves, such as `"scores"` or `"^params/Dense_0/"`. Defaults to all leaves; `()` is none.
        learning_rate: Learning rate of the other leaves, at least 0. A function of the generation is taken for
            `learning_rate_schedule`.
        learning_rate_schedule: A function of the generation, counted from 0, that multiplies `learning_rate`.
        optimizer: The optimizer of the other leaves, as in `open_es`: a function from the learning rate to an optax
            transformation, or a name.
        population_size: Members per generation, at least 1. Defaults to the population size of the base.

    References:
        Lenc et al. 2019, arXiv 1906.03139.
    """

    learning_rate: float = number(default=0.01, at_least=0, search=distributions.times(0.03, 30))
    learning_rate_schedule: optimizers.Schedule | None = static(default=None)
    optimizer: Any = static(default=optax.adam)
    es_leaves: str | tuple[str, ...] = static(default=".*")

    def __post_init__(self) -> None:
        """Checks the settings, and makes the base."""
        super().__post_init__()
        optimizers.check_optimizer(self.optimizer, "Hybrid.optimizer")
        as_patterns(self.es_leaves, "Hybrid.es_leaves")

    def takes_surrogate(self, state: HybridState) -> bool:
        """Returns whether there are leaves for the gradient, or the base takes a surrogate gradient."""
        has_weights = bool(jax.tree.leaves(state.weights))
        return has_weights or self.base.takes_surrogate(state.base)

    def mean(self, state: HybridState) -> Solution:
        """Returns the base's mean and the weights, joined."""
        return self._joined(state, self.base.mean, state.weights)

    def std(self, state: HybridState) -> Solution:
        """Returns the base's standard deviations, and zero for the weights."""
        return self._joined(state, self.base.std, jax.tree.map(jnp.zeros_like, state.weights))

    def map_mean(self, state: HybridState, fn: Callable[[Solution], Solution]) -> HybridState:
        """Returns the state with the base's mean and the weights changed."""
        weights = self._part(state).others.split(fn(self.mean(state)))
        if state.base is None:
            return state._replace(weights=weights)
        part = self._part(state)
        base = self.base.map_mean(state.base, lambda x: part.split(fn(part.join(x, state.weights))))
        return state._replace(base=base, weights=weights)

    def _transformation_at(self, generation: Any) -> optax.GradientTransformation:
        rate = self.learning_rate, self.learning_rate_schedule
        return optimizers.transformation(self.optimizer, *rate, generation)

    def _joined(self, state: HybridState, of_base: Callable[[Any], Solution], rest: Solution) -> Solution:
        return rest if state.base is None else self._part(state).join(of_base(state.base), rest)

    def _part(self, state: HybridState) -> Part:
        """Returns the leaves of the ES, which are `None` among the weights."""
        chosen = jax.tree.map(lambda x: x is None, state.weights, is_leaf=lambda x: x is None)
        return Part.of(chosen, state.weights)

    def _part_of(self, solution: Solution) -> Part:
        """Returns the leaves of the ES of a solution."""
        way_out = "give es_leaves=() to train all by the gradient"
        patterns = as_patterns(self.es_leaves, "Hybrid.es_leaves")
        return Part.of(find_leaves(patterns, solution, "Hybrid.es_leaves", way_out=way_out), solution)

    def _searched(self, solution: Solution) -> Solution:
        part = self._part_of(solution)
        return solution if part.is_empty else part.split(solution)

    def _init(self, key: jax.Array, solution: Solution) -> HybridState:
        part = self._part_of(solution)
        weights = part.others.split(solution)
        generation = jnp.zeros((), jnp.int32)
        return HybridState(
            base=None if part.is_empty else self.base.init(key, part.split(solution)),
            weights=weights,
            optimizer_state=optimizers.start(self._transformation_at(generation), weights),
            gradient=jax.tree.map(jnp.zeros_like, weights),
            generation=generation,
        )

    def _ask(self, key: jax.Array, state: HybridState, surrogate: Surrogate | None) -> tuple[Population, HybridState]:
        if state.base is None:
            gradient = surrogate(state.weights)  # pyright: ignore[reportOptionalCall] - `ask` checked it
            population = repeat_solution(state.weights, self._num_members(state.weights))
            return population, state._replace(gradient=gradient)

        part = self._part(state)
        base_surrogate = map_surrogate(
            surrogate,
            to_solution=lambda x: part.join(x, state.weights),
            to_population=lambda members: part.join_members(members, state.weights),
            from_gradient=part.split,
        )
        members, base = self.base.ask(key, state.base, base_surrogate)
        population, state = part.join_members(members, state.weights), state._replace(base=base)
        if jax.tree.leaves(state.weights):
            gradients = gradient_of_members(surrogate, population)  # pyright: ignore[reportArgumentType]
            state = state._replace(gradient=_mean_of_finite(part.others.split(gradients)))
        return population, state

    def _tell(self, state: HybridState, population: Population, evaluation: Evaluation) -> HybridState:
        if state.base is not None:
            part = self._part(state)
            told = part.split_members(population), evaluation.map_gradient(part.split)
            state = state._replace(base=self.base.tell(state.base, *told))
        if not jax.tree.leaves(state.weights):
            return state
        transformation = self._transformation_at(state.generation)
        weights, optimizer_state = optimizers.step(transformation, state.gradient, state.optimizer_state, state.weights)
        return state._replace(weights=weights, optimizer_state=optimizer_state, generation=state.generation + 1)


def _mean_of_finite(gradients: Any) -> Solution:
    """Returns the mean over members, `[population_size, ...]`, of the gradients that are finite."""
    # A sum is not finite if one of its terms is not.
    sums = [jnp.sum(g.reshape(g.shape[0], -1), axis=1) for g in jax.tree.leaves(gradients)]
    is_finite = jnp.all(jnp.stack([jnp.isfinite(s) for s in sums]), axis=0)
    count = jnp.maximum(jnp.sum(is_finite), 1)

    def mean(g: jax.Array) -> jax.Array:
        kept = jnp.where(is_finite.reshape(-1, *[1] * (g.ndim - 1)), g, 0)
        return jnp.sum(kept, axis=0) / count.astype(g.dtype)

    return jax.tree.map(mean, gradients)
