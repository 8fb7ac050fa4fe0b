"""Hybrid of gradient descent and ES: some leaves of a solution follow the gradient, the others an evolution strategy.

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
    ImplicitPopulation,
    Population,
    Solution,
    Surrogate,
    as_patterns,
    find_leaves,
    gradient_of_members,
    population_size,
    repeat_solution,
    static,
)
from zoo.strategies.gradient.base import OptimizerStrategy, skip_non_finite
from zoo.strategies.wrappers.base import PartPopulation, Wrapper, map_mean, map_surrogate


class HybridState(NamedTuple):
    """State of `Hybrid`. Parts of a solution have its structure, with None for the leaves of the other part."""

    base: Any  # of the base strategy, on the part it trains; None if there is no such part
    weights: Solution  # the part trained by the gradient
    optimizer_state: optax.OptState
    gradient: Solution  # in the structure of the weights


class Hybrid(Wrapper, OptimizerStrategy):  # pyright: ignore[reportIncompatibleVariableOverride] - as in Wrapper
    """Trains some leaves of the solution by any evolution strategy, and the others by the surrogate gradient.

    The gradient is taken at each member, with that member's leaves of the ES and on its own data, and averaged over the
    members. A member whose gradient is not finite is left out. (So the members' gradients are stored, whatever form the
    base's population has.)

    Attributes:
        base: The strategy that trains the leaves of the ES: a strategy, its id, or a dictionary of its id and settings
            such as `{"id": "snes", "sigma": 0.1}`.
        es_leaves: Which leaves those are: a regular expression, or several, one of which is found in the leaf's path,
            such as `"scores"` or `"^params/Dense_0/"`. Default: all; `()`: none.
        population_size: Members per generation; `None`: that of the base.

    References:
        Lenc et al. 2019, arXiv 1906.03139.
    """

    es_leaves: str | tuple[str, ...] = static(default=".*")

    def __post_init__(self) -> None:
        """Checks the settings, and makes the base."""
        super().__post_init__()
        _ = self._patterns  # checks them

    @property
    def takes_surrogate(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride] - it depends on settings
        """Whether there may be leaves for the gradient, as far as can be told without a solution."""
        return self._patterns != (".*",) or self.base.takes_surrogate

    def _needs_surrogate(self, state: HybridState) -> bool:
        base_does = state.base is not None and self._sized_base._needs_surrogate(state.base)
        return base_does or bool(jax.tree.leaves(state.weights))

    def mean(self, state: HybridState) -> Solution:
        """Returns the base's mean and the weights, joined."""
        return state.weights if state.base is None else _join(self._sized_base.mean(state.base), state.weights)

    def std(self, state: HybridState) -> Solution:
        """Returns the base's standard deviations, and zero for the weights."""
        zeros = jax.tree.map(jnp.zeros_like, state.weights)
        return zeros if state.base is None else _join(self._sized_base.std(state.base), zeros)

    @property
    def _patterns(self) -> tuple[str, ...]:
        return as_patterns(self.es_leaves, "Hybrid.es_leaves")

    @property
    def _transformation(self) -> optax.GradientTransformation:
        return skip_non_finite(super()._transformation)

    def _searched(self, solution: Solution) -> Solution:
        part, _ = self._split(solution)
        return part if jax.tree.leaves(part) else solution

    def _map_mean(self, state: HybridState, fn: Callable[[Solution], Solution]) -> HybridState:
        weights = self._split(fn(self.mean(state)))[1]
        if state.base is None:
            return state._replace(weights=weights)
        base = map_mean(self._sized_base, state.base, lambda part: self._split(fn(_join(part, state.weights)))[0])
        return state._replace(base=base, weights=weights)

    def _split(self, solution: Solution) -> tuple[Solution, Solution]:
        """Returns the leaves of the ES and those of the gradient, each with None in place of the others."""
        way_out = "give es_leaves=() to train all by the gradient"
        chosen = find_leaves(self._patterns, solution, "Hybrid.es_leaves", way_out=way_out)
        part = jax.tree.map(lambda chosen, x: x if chosen else None, chosen, solution)
        rest = jax.tree.map(lambda chosen, x: None if chosen else x, chosen, solution)
        return part, rest

    _split_part = _split

    def _join_part(self, part: Solution, weights: Solution) -> Solution:
        return _join(part, weights)

    def _init(self, key: jax.Array, solution: Solution) -> HybridState:
        part, weights = self._split(solution)
        return HybridState(
            base=self._sized_base.init(key, part) if jax.tree.leaves(part) else None,
            weights=weights,
            optimizer_state=self._transformation.init(weights),
            gradient=jax.tree.map(jnp.zeros_like, weights),
        )

    def _ask(self, key: jax.Array, state: HybridState, surrogate: Surrogate | None) -> tuple[Population, HybridState]:
        if state.base is None:
            gradient = surrogate(state.weights)  # pyright: ignore[reportOptionalCall] - `ask` saw to it
            population = repeat_solution(state.weights, self._num_members(state.weights))
            return population, state._replace(gradient=gradient)

        def join(part: Population) -> Population:
            if isinstance(part, ImplicitPopulation):
                return PartPopulation(part=part, rest=state.weights, wrapper=self)
            return _join(part, repeat_solution(state.weights, population_size(part)))

        base_surrogate = map_surrogate(
            surrogate,
            to_solution=lambda part: _join(part, state.weights),
            to_population=join,
            from_gradient=lambda gradient: self._split(gradient)[0],
        )
        part, base = self._sized_base.ask(key, state.base, base_surrogate)
        population, state = join(part), state._replace(base=base)
        if jax.tree.leaves(state.weights):
            gradients = gradient_of_members(surrogate, population)  # pyright: ignore[reportArgumentType]
            state = state._replace(gradient=_mean_of_finite(self._split(gradients)[1]))
        return population, state

    def _tell(self, state: HybridState, population: Population, evaluation: Evaluation) -> HybridState:
        if state.base is not None:
            is_part = isinstance(population, PartPopulation)
            part = population.part if is_part else self._split(population)[0]
            state = state._replace(base=self._sized_base.tell(state.base, part, evaluation))
        if not jax.tree.leaves(state.weights):
            return state
        weights, optimizer_state = self._step(state.gradient, state.optimizer_state, state.weights)
        return state._replace(weights=weights, optimizer_state=optimizer_state)


def _join(one: Solution, other: Solution) -> Solution:
    """Returns the solution of which two parts, with None for the leaves of the other, were split off."""
    return jax.tree.map(lambda x, y: y if x is None else x, one, other, is_leaf=lambda x: x is None)


def _mean_of_finite(gradients: Any) -> Solution:
    """Returns the mean over members, `[population_size, ...]`, without those whose gradient is not finite."""
    # A sum is not finite if one of its terms is not.
    sums = [jnp.sum(g.reshape(g.shape[0], -1), axis=1) for g in jax.tree.leaves(gradients)]
    is_finite = jnp.all(jnp.stack([jnp.isfinite(s) for s in sums]), axis=0)
    count = jnp.maximum(jnp.sum(is_finite), 1)

    def mean(g: jax.Array) -> jax.Array:
        kept = jnp.where(is_finite.reshape(-1, *[1] * (g.ndim - 1)), g, 0)
        return jnp.sum(kept, axis=0) / count.astype(g.dtype)

    return jax.tree.map(mean, gradients)
