"""Hybrid of gradient descent and ES: some leaves of a solution follow the gradient, the others an evolution strategy.

Reference: Lenc, Elsen, Schaul, Simonyan 2019, "Non-Differentiable Supervised Learning with Evolution Strategies and
Hybrid Methods", arXiv 1906.03139: SGD trains the weights of a network, ES its sparsity masks.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax

from strategies.gradient.base import OptimizerStrategy, skip_non_finite
from zoo import leaf, static
from zoo.population import population_size, repeat_solution
from zoo.registry import complete_settings, make_strategy
from zoo.strategy import (
    Evaluation,
    Groups,
    Population,
    Solution,
    Strategy,
    Surrogate,
    SurrogateGradient,
    gradient_of_members,
)


class HybridState(NamedTuple):
    """State of `Hybrid`. Parts of a solution have its structure, with None for the leaves of the other part."""

    base: Any  # of the base strategy, on the part it trains; None if there is no such part
    weights: Solution  # the part trained by the gradient
    optimizer_state: optax.OptState
    gradient: Solution  # in the structure of the weights


class Hybrid(OptimizerStrategy):
    """Trains some leaves of the solution by any evolution strategy, and the others by the surrogate gradient.

    The gradient is taken at each member, with that member's leaves of the ES and on its own data, and averaged over the
    members. A member whose gradient is not finite is left out.

    Attributes:
        base: The strategy that trains the leaves of the ES: a strategy, its id, or a dictionary of its id and settings
            such as `{"id": "snes", "sigma": 0.1}`.
        es_leaves: Which leaves those are: a regular expression, or several, one of which is found in the leaf's path,
            such as `"scores"` or `"^params/Dense_0/"`. Default: all; `()`: none.
        population_size: Members per generation; `None`: that of the base.

    References:
        Lenc et al. 2019, arXiv 1906.03139.
    """

    base: Any = leaf(default="open_es")
    es_leaves: str | tuple[str, ...] = static(default=".*")

    def __post_init__(self) -> None:
        """Checks the settings, and makes the base."""
        super().__post_init__()
        object.__setattr__(self, "base", as_strategy(self.base, "Hybrid.base"))
        try:
            for pattern in self._patterns:
                re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"Hybrid.es_leaves must be regular expressions for paths such as 'params/Dense_0/kernel', got "
                f"{self.es_leaves!r}: {error}."
            ) from None
        _ = self._sized_base  # its own checks of the population size

    @property
    def takes_surrogate(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride] - it depends on settings
        """Whether there may be leaves for the gradient, as far as can be told without a solution."""
        return self._patterns != (".*",) or self.base.takes_surrogate

    def _needs_surrogate(self, state: HybridState) -> bool:
        base_does = state.base is not None and self._sized_base._needs_surrogate(state.base)
        return base_does or bool(jax.tree.leaves(state.weights))

    @property
    def groups(self) -> np.ndarray | Groups:
        """Those of the base."""
        return self._sized_base.groups

    @classmethod
    def with_suggestions(
        cls, settings: Mapping[str, Any], suggestions: Mapping[str, Any], solution: Solution
    ) -> dict[str, Any]:
        """Returns settings, completed by those suggested; a base given by its id gets those that it has as well."""
        completed = super().with_suggestions(settings, suggestions, solution)
        base = completed.get("base", "open_es")
        if isinstance(base, str):
            base = {"id": base}
        if isinstance(base, dict) and "id" in base:
            completed["base"] = complete_settings(base["id"], base, suggestions, solution)
        return completed

    def for_solution(self, solution: Solution) -> Self:
        """Returns the strategy, and its base, with settings that depend on the number of dimensions filled in."""
        part, _ = self._split(solution)
        base = self._sized_base.for_solution(part if jax.tree.leaves(part) else solution)
        return self.replace(base=base, population_size=base.population_size)

    def mean(self, state: HybridState) -> Solution:
        """Returns the base's mean and the weights, joined."""
        return state.weights if state.base is None else _join(self._sized_base.mean(state.base), state.weights)

    def std(self, state: HybridState) -> Solution:
        """Returns the base's standard deviations, and zero for the weights."""
        zeros = jax.tree.map(jnp.zeros_like, state.weights)
        return zeros if state.base is None else _join(self._sized_base.std(state.base), zeros)

    @property
    def _patterns(self) -> tuple[str, ...]:
        return (self.es_leaves,) if isinstance(self.es_leaves, str) else tuple(self.es_leaves)

    @property
    def _sized_base(self) -> Strategy:
        return self.base if self.population_size is None else self.base.replace(population_size=self.population_size)

    @property
    def _transformation(self) -> optax.GradientTransformation:
        return skip_non_finite(super()._transformation)

    def _num_members(self, solution: Solution) -> int:
        part, _ = self._split(solution)
        return self._sized_base._num_members(part if jax.tree.leaves(part) else solution)

    def _split(self, solution: Solution) -> tuple[Solution, Solution]:
        """Returns the leaves of the ES and those of the gradient, each with None in place of the others."""

        def is_es(path: Any, _: Any) -> bool:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            return any(re.search(pattern, name) for pattern in self._patterns)

        chosen = jax.tree_util.tree_map_with_path(is_es, solution)
        if self._patterns and not any(jax.tree.leaves(chosen)):
            names = [
                jax.tree_util.keystr(path, simple=True, separator="/") or "(a single array, whose path is empty)"
                for path, _ in jax.tree_util.tree_leaves_with_path(solution)
            ]
            raise ValueError(
                f"Hybrid.es_leaves {self.es_leaves!r} is found in no leaf of the solution: {', '.join(names)}. Name at "
                "least one of them, or give es_leaves=() to train all by the gradient."
            )
        part = jax.tree.map(lambda chosen, x: x if chosen else None, chosen, solution)
        rest = jax.tree.map(lambda chosen, x: None if chosen else x, chosen, solution)
        return part, rest

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
            return _join(part, repeat_solution(state.weights, population_size(part)))

        base_surrogate = surrogate and SurrogateGradient(
            lambda part: self._split(surrogate(_join(part, state.weights)))[0],
            lambda part: self._split(gradient_of_members(surrogate, join(part)))[0],
        )
        part, base = self._sized_base.ask(key, state.base, base_surrogate)
        population, state = join(part), state._replace(base=base)
        if jax.tree.leaves(state.weights):
            gradients = gradient_of_members(surrogate, population)  # pyright: ignore[reportArgumentType]
            state = state._replace(gradient=_mean_of_finite(self._split(gradients)[1]))
        return population, state

    def _tell(self, state: HybridState, population: Population, evaluation: Evaluation) -> HybridState:
        if state.base is not None:
            part, _ = self._split(population)
            state = state._replace(base=self._sized_base.tell(state.base, part, evaluation))
        if not jax.tree.leaves(state.weights):
            return state
        updates, optimizer_state = self._transformation.update(state.gradient, state.optimizer_state, state.weights)
        return state._replace(weights=optax.apply_updates(state.weights, updates), optimizer_state=optimizer_state)


def as_strategy(base: Any, name: str) -> Any:
    """Returns the strategy that a wrapper is given as such, as an id, or as a dictionary of an id and settings.

    Args:
        base: What was given.
        name: What to call it in messages.

    Raises:
        TypeError: If it is none of them.
    """
    if isinstance(base, str):
        return make_strategy(base)
    if isinstance(base, dict):
        if "id" not in base:
            raise TypeError(f'{name} as a dictionary needs the strategy\'s "id" besides its settings, got {base!r}.')
        return make_strategy(**base)
    if isinstance(base, (bool, int, float, list, tuple, type)) or base is None:
        raise TypeError(
            f"{name} must be a strategy, its id such as 'open_es', or a dictionary of its id and settings such as "
            f"{{'id': 'snes', 'sigma': 0.1}}, got {base!r}."
        )
    return base  # a strategy, or what a transformation put in its place


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
