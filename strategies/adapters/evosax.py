"""The algorithms of evosax (Lange 2022, arXiv 2212.04180; version 0.3), unchanged.

Arithmetic and defaults are evosax's own. The adapter fills in what evosax's interface leaves to the user: the initial
population of algorithms that keep one, the key of `tell`, fitness that is not finite, and static settings that hold for
every dtype.
"""

import copy
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from zoo.core import (
    Evaluation,
    Population,
    Solution,
    Strategy,
    Surrogate,
    clip_std,
    distributions,
    leaf,
    number,
    static,
)
from zoo.core.checks import as_pairs
from zoo.core.promotion import promotion_of_others, ravel
from zoo.strategies.adapters.peers import finite_in_order, import_peer

_NATURAL = ("DES", "SNES", "SimpleES", "xNES")
"""Their optimizer steps along the natural gradient, where a rate of 1 is a full step: `learning_rate` is SGD's."""

_SV = ("SV_CMA_ES", "SV_Open_ES")
"""They run several populations, each with its own mean."""

_WHOLE_EPISODES = ("NoiseReuseES", "PersistentES")
"""They take ten evaluations for the windows of one episode, unless `params` has another `T` and `K`."""


_SCHEDULE = "A schedule goes into options={'optimizer': optax.adam(schedule)}."


class EvosaxState(NamedTuple):
    """State of `EvosaxStrategy`."""

    center: Solution  # the initial solution
    inner: Any  # evosax's state
    key: jax.Array  # [] for evosax's `tell`
    best_solution: Solution
    best_fitness: jax.Array  # [] +inf before the first `tell`


class EvosaxStrategy(Strategy):
    """An algorithm of evosax (all 37 of version 0.3.2). `pip install es-zoo[peers]` installs it.

    `mean` is evosax's mean, or the best member seen if the algorithm keeps a population instead. `std` is the standard
    deviation of the members of a population. Otherwise it is evosax's step size, times the square roots of the diagonal
    of the covariance matrix if the algorithm has one. It leaves out scales and correlations in other forms (MA_ES,
    xNES, ...).

    Attributes:
        algorithm: evosax's name of the algorithm.
        sigma: Initial standard deviation, in the units of the solution, above 0: evosax's `std_init`, `radius_max`, or
            the constant of `std_schedule`, whichever the algorithm has. An algorithm that keeps a population draws the
            first one around the initial solution with this deviation.
        learning_rate: Learning rate, at least 0. Adam with this rate replaces evosax's default optimizer; for natural
            gradients, SGD does. With `None`, evosax's default optimizer stays.
        params: Values that override evosax's `Params`, by name. They are leaves, so `jax.vmap` can sweep them.
        options: Arguments of evosax's constructor, a mapping or pairs, for example `{"num_groups": 2}`.
    """

    algorithm: str = static()
    sigma: float = number(default=1.0, above=0, search=distributions.times(0.1, 10))
    learning_rate: float | None = number(
        default=None, at_least=0, advice=_SCHEDULE, search=distributions.times(0.03, 30)
    )
    params: dict[str, Any] | None = leaf(default=None)
    options: Any = static(default=())

    namespace_field: ClassVar[str] = "algorithm"

    def __post_init__(self) -> None:
        """Checks the algorithm's name and its settings."""
        object.__setattr__(self, "options", as_pairs(self.options, "EvosaxStrategy.options"))
        super().__post_init__()
        if self.algorithm not in self.names():
            raise ValueError(
                f"EvosaxStrategy.algorithm must be one of {', '.join(_algorithms())}, got {self.algorithm!r}."
            )
        if self.learning_rate is not None and not self._takes_optimizer(self.algorithm, self.options):
            raise ValueError(
                f"evosax/{self.algorithm} has no optimizer that takes a learning_rate (it uses none, or `options` has "
                "one). Leave it out; params=... sets evosax's own rates."
            )

    @staticmethod
    def names() -> list[str]:
        """Returns the names of evosax's algorithms, or an empty list if evosax is not installed."""
        try:
            return list(_algorithms())
        except ModuleNotFoundError:
            return []

    @staticmethod
    def check_installed() -> None:
        """Raises a `ModuleNotFoundError` that says what to install, if evosax is missing."""
        _algorithms()

    @classmethod
    def with_suggestions(
        cls, settings: Mapping[str, Any], suggestions: Mapping[str, Any], solution: Solution
    ) -> dict[str, Any]:
        """Returns settings, completed by the suggested ones. A suggested learning rate is not for natural gradients."""
        name = settings["algorithm"]
        if name in _NATURAL or not cls._takes_optimizer(
            name, as_pairs(settings.get("options", ()), "EvosaxStrategy.options")
        ):
            suggestions = {key: value for key, value in suggestions.items() if key != "learning_rate"}
        return super().with_suggestions(settings, suggestions, solution)

    def takes_surrogate(self, state: EvosaxState) -> bool:
        """Returns whether the algorithm is guided ES, which follows the surrogate gradient."""
        return self.algorithm == "GuidedES"

    def mean(self, state: EvosaxState) -> Solution:
        """Returns evosax's mean (of the best population, if there are several), or the best member seen."""
        if not hasattr(state.inner, "mean"):
            return state.best_solution
        mean = state.inner.mean
        if self.algorithm in _SV:
            mean = mean[jnp.argmin(state.inner.best_fitness)]
        return _unravel(state.center)(mean)

    def std(self, state: EvosaxState) -> Solution:
        """Returns the standard deviation per parameter, as far as evosax keeps one; see the class."""
        flat, _ = ravel(state.center)
        inner = state.inner
        if hasattr(inner, "population"):
            std = jnp.where(state.best_fitness == jnp.inf, self.sigma, jnp.std(inner.population, axis=0))
        elif hasattr(inner, "std"):
            best = jnp.argmin(inner.best_fitness) if self.algorithm in _SV else ...
            std = jnp.asarray(inner.std)[best]
            if self.algorithm in ("CMA_ES", "Sep_CMA_ES", "SV_CMA_ES"):
                covariance = inner.C[best]
                std = std * jnp.sqrt(jnp.diagonal(covariance) if covariance.ndim == 2 else covariance)
        else:
            std = jnp.asarray(self.sigma)
        return _unravel(state.center)(clip_std(jnp.broadcast_to(std.astype(flat.dtype), flat.shape)))

    def _default_population_size(self, num_dims: int) -> int:
        """Returns CMA-ES's size, made even (for two populations a multiple of four), which many algorithms demand."""
        step = 2 * (self._num_populations if self.algorithm in _SV else 1)
        return -(-super()._default_population_size(num_dims) // step) * step

    def _init(self, key: jax.Array, solution: Solution) -> EvosaxState:
        key_inner, key_means, key = jax.random.split(key, 3)
        algorithm, params = self._evosax(solution)
        flat = _flat(solution)
        if _keeps_population(algorithm):
            with promotion_of_others():
                inner = algorithm._init(key_inner, params)  # filled in by the first `tell`
        else:
            if self.algorithm in _SV:  # at different points, or they could not repel each other
                noise = jax.random.normal(key_means, (self._num_populations, flat.size), flat.dtype)
                flat = flat[None] + self.sigma * noise.at[0].set(0)
            inner = _plain(algorithm.init)(key_inner, flat, params)
        inner = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), inner)
        best_fitness = jnp.asarray(jnp.inf, jnp.result_type(float))
        return EvosaxState(solution, inner, key, jax.tree.map(jnp.copy, solution), best_fitness)

    def _ask(self, key: jax.Array, state: EvosaxState, surrogate: Surrogate | None) -> tuple[Population, EvosaxState]:
        key_ask, key_tell = jax.random.split(key)
        algorithm, params = self._evosax(state.center)
        inner = state.inner
        if self.algorithm == "GuidedES" and surrogate is not None:
            inner = inner.replace(grad=_flat(surrogate(self.mean(state))))
        population, inner = _plain(algorithm.ask)(key_ask, inner, params)
        if _keeps_population(algorithm):
            center = _flat(state.center)
            noise = jax.random.normal(key_ask, population.shape, population.dtype)
            is_first = state.best_fitness == jnp.inf
            population = jnp.where(is_first, center[None] + self.sigma * noise.at[0].set(0), population)
            inner = jax.tree.map(lambda new, old: jnp.where(is_first, old, new), inner, state.inner)
        size = self._num_members(state.center)
        if population.shape[0] != size:
            raise ValueError(f"evosax/{self.algorithm} needs an even population_size, got {size}.")
        return jax.vmap(_unravel(state.center))(population), state._replace(
            inner=_cast(inner, state.inner), key=key_tell
        )

    def _tell(self, state: EvosaxState, population: Population, evaluation: Evaluation) -> EvosaxState:
        algorithm, params = self._evosax(state.center)
        x = jax.vmap(_flat)(population)
        fitness = evaluation.fitness.astype(state.best_fitness.dtype)
        clean = finite_in_order(fitness)
        told, _ = _plain(algorithm.tell)(state.key, x, clean, state.inner, params)
        if _keeps_population(algorithm):
            first = _plain(algorithm.init)(state.key, x, clean, params)
            is_first = state.best_fitness == jnp.inf
            told = jax.tree.map(lambda a, b: jnp.where(is_first, a, b), first, told)
        # A generation in which nothing could be evaluated is skipped: evosax would take its fitness for the best.
        anything = jnp.any(fitness < jnp.inf)
        inner = jax.tree.map(lambda new, old: jnp.where(anything, new, old), _cast(told, state.inner), state.inner)

        best = jnp.argmin(fitness)
        better = fitness[best] < state.best_fitness
        return state._replace(
            inner=inner,
            best_solution=jax.tree.map(
                lambda new, old: jnp.where(better, new[best], old), population, state.best_solution
            ),
            best_fitness=jnp.where(better, fitness[best], state.best_fitness),
        )

    @property
    def _num_populations(self) -> int:
        return dict(self.options).get("num_populations", 2)

    @staticmethod
    def _takes_optimizer(name: str, options: Any) -> bool:
        code = _algorithms()[name].__init__.__code__
        return "optimizer" in code.co_varnames[: code.co_argcount] and "optimizer" not in dict(options)

    def _evosax(self, solution: Solution) -> tuple[Any, Any]:
        """Returns evosax's algorithm and its parameters, with this strategy's leaves in them."""
        size, num_dims = self._num_members(solution), ravel(solution)[0].size
        algorithm, params = _make(self.algorithm, size, num_dims, self.options, jnp.result_type(float))
        algorithm = copy.copy(algorithm)  # what follows may be traced
        options, fields = dict(self.options), {field.name for field in dataclasses.fields(params)}
        if hasattr(algorithm, "std_schedule") and "std_schedule" not in options:
            algorithm.std_schedule = lambda _: self.sigma
        if self.learning_rate is not None:
            make = optax.sgd if self.algorithm in _NATURAL else optax.adam
            algorithm.optimizer = make(self.learning_rate)
        if self.algorithm == "RandomSearch" and "sampling_fn" not in options:
            flat = _flat(solution)
            algorithm.sampling_fn = lambda key: flat + self.sigma * jax.random.normal(key, flat.shape, flat.dtype)
        updates = {name: self.sigma for name in ("std_init", "radius_max") if name in fields}
        if self.algorithm in _WHOLE_EPISODES:
            updates["K"] = params.T
        overrides = dict(self.params or {})
        if unknown := sorted(set(overrides) - fields):
            raise ValueError(
                f"evosax/{self.algorithm} has no parameter {unknown[0]!r}; its Params are {', '.join(sorted(fields))}."
            )
        return algorithm, params.replace(**{**updates, **overrides})


def _algorithms() -> dict[str, Any]:
    return import_peer("evosax.algorithms", "evosax").algorithms


@functools.lru_cache(maxsize=256)
def _make(name: str, size: int, num_dims: int, options: tuple[tuple[str, Any], ...], dtype: Any) -> tuple[Any, Any]:
    """Returns an algorithm for flat solutions and its default parameters. Made only once, because some load a file."""
    settings = dict(options)
    if name in _SV:
        count = settings.setdefault("num_populations", 2)
        if size % count:
            raise ValueError(f"evosax/{name} needs a population_size that {count} populations can share, got {size}.")
        size //= count
    if name == "RandomSearch":
        settings.setdefault("sampling_fn", None)
    # The first call may be traced, and must not leave tracers in it.
    with jax.ensure_compile_time_eval(), promotion_of_others():
        try:
            algorithm = _algorithms()[name](population_size=size, solution=np.zeros(num_dims, dtype), **settings)
        except (AssertionError, TypeError) as error:
            raise ValueError(
                f"evosax/{name} refuses population_size={size} with options {settings}: {error}"
            ) from error
        return algorithm, algorithm.default_params


def _keeps_population(algorithm: Any) -> bool:
    return not hasattr(algorithm, "get_mean")


def _plain(method: Any) -> Any:
    """Returns evosax's method without its `jit`, whose cache would keep every algorithm that was ever traced."""

    def call(*arguments: Any) -> Any:
        with promotion_of_others():  # evosax adds vectors to populations
            return method.__wrapped__(method.__self__, *arguments)

    return call


def _flat(solution: Solution) -> jax.Array:
    """Returns a solution as a vector in the default precision, in which evosax computes."""
    return ravel(solution)[0].astype(jnp.result_type(float))


def _unravel(solution: Solution) -> Any:
    flat, unravel = ravel(solution)
    return lambda x: unravel(x.astype(flat.dtype))


def _cast(new: Any, old: Any) -> Any:
    """Returns a state in the dtypes of the old one: evosax may change integers to floats, or the precision."""
    return jax.tree.map(lambda n, o: jnp.asarray(n, o.dtype), new, old)
