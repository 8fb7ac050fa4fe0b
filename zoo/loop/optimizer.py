"""An optimizer for loops on the host: `ask` and `tell` with NumPy arrays."""

import collections
import contextlib
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from zoo.core.arguments import checks_arguments
from zoo.core.checks import as_count, as_scalar
from zoo.core.evaluation import Evaluation
from zoo.core.fitness import on_host
from zoo.core.keys import check_seed
from zoo.core.population import Population, materialize
from zoo.core.solution import Solution, check_start, num_dims
from zoo.core.strategy import State, Strategy
from zoo.loop import compiled
from zoo.loop.converged import Converged
from zoo.loop.programs import Program
from zoo.registry import StrategyLike, given_strategy

_LOOK_EVERY = 10
"""Generations between two checks of the standard deviations and the condition number, which need an extra call."""

_STOP = Converged()


class _Search(NamedTuple):
    """The state of a search."""

    told: State  # after the last `tell`
    asked: State  # after the next population was drawn from `told`
    population: Population | None  # the next population; None if the strategy uses the members that it is told
    members: list[jax.Array]  # members of the next population, leaves [population_size, ...]


class Optimizer:
    """Minimises a function that JAX cannot trace, one generation at a time.

    >>> import numpy as np, zoo
    >>> optimizer = zoo.Optimizer("cma_es", np.zeros(4), sigma=0.5, target=1e-9)
    >>> while not optimizer.should_stop:
    ...     xs = optimizer.ask()
    ...     optimizer.tell(xs, [np.sum((x - 3) ** 2) for x in xs])
    >>> optimizer.best.round(3).tolist()
    [3.0, 3.0, 3.0, 3.0]

    All optimizers of the same strategy and shapes share compiled programs. An optimizer computes in the precision of
    the initial solution; NumPy's default is double precision. Lower fitness is better, and NaN is the worst fitness. An
    optimizer can be pickled and copied at any time, also between `ask` and `tell`. The copy continues bit for bit.

    Args:
        strategy: A strategy, its id, or a dictionary of its id and settings.
        solution: The initial solution: an array, or a pytree of arrays.
        seed: Seed of the random numbers.
        max_evaluations: Stops after the generation in which the number of members told reaches this. So up to
            `population_size - 1` more members may be evaluated. It must be at least `population_size`. With `None`,
            there is no limit.
        target: Stops when a member has had at most this fitness. With `None`, there is no target.
        stop: Stops when the search has converged by these criteria. With `None`, convergence never stops the search.
            Strategies that restart by themselves, such as `ipop`, ignore it. `tol_fun` is checked in every generation,
            the other criteria in every tenth.
        **settings: Settings of the strategy, such as `sigma` and `population_size`, if it is given by id.

    Raises:
        TypeError: If the strategy needs a surrogate gradient, the solution or the seed has a wrong type, or a setting
            is unknown.
        ValueError: If a setting is invalid, the solution is not finite, or `max_evaluations` is less than one
            generation.
    """

    @jax.transfer_guard("allow")
    @checks_arguments
    def __init__(
        self,
        strategy: StrategyLike,
        solution: Solution,
        *,
        seed: int = 0,
        max_evaluations: int | None = None,
        target: float | None = None,
        stop: Converged | None = _STOP,
        **settings: Any,
    ):
        solution = jax.tree.map(np.asarray, solution)
        self._is_double = any(x.dtype == np.float64 for x in jax.tree.leaves(solution))
        try:
            strategy = given_strategy(strategy, settings, "Optimizer")
        except TypeError as error:
            own = "seed, max_evaluations, target, stop"
            raise TypeError(f"{error} Settings of the Optimizer itself: {own}.") from None
        if stop is not None and not isinstance(stop, Converged):
            raise TypeError(f"Optimizer expects stop to be zoo.Converged(...) or None, got {type(stop).__name__}.")
        self._stop = None if strategy.restarts else stop
        self._target = None if target is None else as_scalar(target, "target", finite=False)
        self._max_evaluations = None if max_evaluations is None else as_count(max_evaluations, "max_evaluations")
        with self._precision():
            solution = check_start(solution)
            self.strategy = strategy.for_solution(solution)
            self._check_max_evaluations()
            self._key = np.asarray(jax.random.key_data(jax.random.key(check_seed(seed, "seed"))))
            self._search = _start(self.strategy, self._key, solution)
            self._initial_std, _ = map(float, compiled.spread(self.strategy, self._search.told))
        self._was_asked = False
        self._structure = jax.tree.structure(solution)
        self._num_dims = num_dims(solution)
        count = 0 if stop is None else stop.num_recent(self._num_dims, self.population_size)
        self._recent = collections.deque[tuple[float, float]](maxlen=count)  # best and mean fitness of a generation
        self.generation = 0
        """Number of generations told."""
        self.num_evaluations = 0
        """Number of members told."""
        self.best: Solution = jax.tree.map(np.array, solution)
        """The member with the lowest fitness. Before the first `tell`, the initial solution."""
        self.best_fitness = math.inf
        """Fitness of `best`."""
        self.stop_reasons: dict[str, str] = {}
        """Reasons to stop, by the name of the setting. It is empty if there is no reason."""

    @property
    def population_size(self) -> int:
        """Members per generation."""
        return self.strategy._fixed_size

    @property
    def should_stop(self) -> bool:
        """Whether there is a reason to stop. All criteria but `tol_fun` are checked in every tenth generation."""
        return bool(self.stop_reasons)

    @property
    @jax.transfer_guard("allow")
    def mean(self) -> Solution:
        """The solution that the strategy recommends: for most strategies the mean of the search distribution."""
        with self._precision():
            return jax.tree.map(np.array, _mean(self.strategy, self._search.told))

    @property
    @jax.transfer_guard("allow")
    def std(self) -> Solution:
        """The standard deviation of the search distribution for each parameter, in the structure of the solution."""
        with self._precision():
            return jax.tree.map(np.array, _std(self.strategy, self._search.told))

    @jax.transfer_guard("allow")
    def ask(self) -> Any:
        """Returns the members to evaluate. Returns the same members until `tell` is called.

        Returns:
            An array `[population_size, *shape]` if the solution is an array, otherwise a list of solutions.
        """
        self._was_asked = True
        leaves = [np.array(x) for x in self._search.members]
        if jax.tree_util.treedef_is_leaf(self._structure):
            return leaves[0]
        return [jax.tree.unflatten(self._structure, [x[i] for x in leaves]) for i in range(self.population_size)]

    @jax.transfer_guard("allow")
    def tell(self, members: Any, fitness: Sequence[float] | np.ndarray | jax.Array) -> None:
        """Updates the search with evaluated members.

        Args:
            members: The members that `ask` returned, in the same order. A strategy whose `follows_population` is true
                also takes other members in their place, such as repaired members, or a good solution that you know. A
                strategy whose `needs_all_members` is `None` also takes more or fewer members. Each number of members is
                compiled anew.
            fitness: One number per member. Lower is better.

        Raises:
            ValueError: If `ask` was not called before, members or fitness have wrong shapes, the strategy does not take
                other members than it asked for, or a member in the place of another is not finite.
            TypeError: If the members are neither an array nor a list, or the fitness is not numbers.
        """
        if not self._was_asked:
            raise ValueError("Optimizer.tell comes after ask: no members wait for their fitness. Call ask first.")
        told = self._as_leaves(members)
        fitness = self._checked_fitness(fitness, len(told[0]))
        population, repaired = self._search.population, None
        if not all(map(np.array_equal, told, self._search.members)):
            if population is not None:
                raise ValueError(
                    f"{type(self.strategy).__name__} uses the noise that it drew, so it must be told the members that "
                    "ask returned. To repair members, choose a strategy that follows them, such as cma_es."
                )
            drawn = set(_rows(self._search.members))
            repaired = np.array([row not in drawn for row in _rows(told)])
            wrong = [i for i in np.flatnonzero(repaired) if not all(np.isfinite(x[i]).all() for x in told)]
            if wrong:
                raise ValueError(
                    f"Optimizer.tell got a member, number {wrong[0]}, with entries that are not finite. Repair it, or "
                    "tell the member that ask returned in its place, with the fitness NaN."
                )
        if population is None:
            population = jax.tree.unflatten(self._structure, told)
        self.generation += 1
        with self._precision():
            arguments = (self._key, np.int32(self.generation))
            # Calling the `Program` itself would check all arguments every time.
            self._search = _tell.choose()(self.strategy, self._search.asked, population, fitness, repaired, *arguments)
        self._was_asked = False
        self.num_evaluations += len(fitness)
        self._remember(told, fitness)

    def __getstate__(self) -> dict[str, Any]:
        # JAX arrays in double precision would come back in single precision if that is JAX's default.
        return {**self.__dict__, "_search": jax.tree.map(np.asarray, self._search)}

    def __repr__(self) -> str:
        name, count = type(self.strategy).__name__, self.num_evaluations
        return f"<Optimizer: {name}, {count} evaluations, best fitness {self.best_fitness:.6g}>"

    def _check_max_evaluations(self) -> None:
        if self._max_evaluations is not None and self._max_evaluations < self.population_size:
            raise ValueError(
                f"max_evaluations={self._max_evaluations} is less than one generation, "
                f"population_size={self.population_size} members. Give a larger max_evaluations, or a smaller "
                "population_size."
            )

    def _precision(self) -> Any:
        return jax.enable_x64(True) if self._is_double else contextlib.nullcontext()

    def _as_leaves(self, members: Any) -> list[np.ndarray]:
        """Returns members as stacked leaves, in the dtypes of the members that `ask` returned."""
        asked = self._search.members
        if not isinstance(members, np.ndarray):
            if not isinstance(members, Sequence | jax.Array):
                raise TypeError(
                    f"Optimizer.tell expects members as ask returns them, an array or a list of solutions, got "
                    f"{type(members).__name__}."
                )
            members = list(members)
            structures = {jax.tree.structure(x) for x in members}
            if structures != {self._structure}:
                raise ValueError(f"Optimizer.tell expects members of structure {self._structure}, got {structures}.")
            rows = [self._structure.flatten_up_to(x) for x in members]
            columns = [np.stack([np.asarray(x) for x in column]) for column in zip(*rows, strict=True)]
        else:
            columns = [members]
        number, why = len(columns[0]), self.strategy.needs_all_members
        if number != self.population_size and (why is not None or number < 2):
            why = why or "they are compared with each other, so there must be at least two"
            raise ValueError(f"Optimizer.tell expects the {self.population_size} members asked, got {number}: {why}.")
        shapes = [[x.shape for x in columns], [(number, *x.shape[1:]) for x in asked]]
        if shapes[0] != shapes[1]:
            raise ValueError(f"Optimizer.tell expects members of shapes {shapes[1]}, got {shapes[0]}.")
        return [np.asarray(x, like.dtype) for x, like in zip(columns, asked, strict=True)]

    def _checked_fitness(self, fitness: Any, number: int) -> np.ndarray:
        values = on_host(fitness, "Optimizer.tell", np.float64 if self._is_double else np.float32)
        if values.shape != (number,):
            raise ValueError(
                f"Optimizer.tell expects fitness of shape ({number},), one number per member, got {values.shape}."
            )
        return np.where(np.isnan(values), np.inf, values)

    def _remember(self, told: list[np.ndarray], fitness: np.ndarray) -> None:
        """Keeps the best member, and checks whether there is a reason to stop."""
        index = int(np.argmin(fitness))
        lowest = float(fitness[index])
        if lowest < self.best_fitness:
            self.best_fitness = lowest
            self.best = jax.tree.unflatten(self._structure, [x[index].copy() for x in told])
        finite = fitness[np.isfinite(fitness)]
        self._recent.append(
            (lowest, float(finite.mean()) if len(finite) else math.nan)
        )  # the numbers that a run records
        self.stop_reasons = self._reasons(fitness)

    def _reasons(self, fitness: np.ndarray) -> dict[str, str]:
        """Returns the reasons to stop after a generation with this fitness."""
        reasons = {}
        if self._target is not None and self.best_fitness <= self._target:
            reasons["target"] = f"fitness {self.best_fitness:g}"
        if self._max_evaluations is not None and self.num_evaluations >= self._max_evaluations:
            reasons["max_evaluations"] = f"{self.num_evaluations} evaluations"
        if self._stop is not None:
            worst, is_due = float(fitness.max()), self.generation % _LOOK_EVERY == 0
            if is_due or worst - self._recent[-1][0] <= (self._stop.tol_fun or 0):  # otherwise fitness is not flat
                best, mean = np.array(self._recent).T
                reasons |= self._stop.by_fitness(best, mean, worst, self._num_dims, self.population_size)
            if is_due:
                with self._precision():
                    spread = compiled.spread(self.strategy, self._search.told)
                reasons |= self._stop.by_spread(float(spread[0]), self._initial_std, float(spread[1]))
        return reasons


@functools.partial(Program, repeats=False)
def _start(strategy: Strategy, key: jax.Array, solution: Solution) -> _Search:
    # Generations count up from zero, so no generation has this number.
    told = strategy.init(jax.random.fold_in(jax.random.wrap_key_data(key), 2**32 - 1), solution)
    if strategy.takes_surrogate(told):
        raise TypeError(
            f"{type(strategy).__name__} needs a surrogate gradient, which only a problem can give: use zoo.run, or "
            "choose a strategy without one, such as cma_es."
        )
    return _asked(strategy, told, key, 0)


@functools.partial(Program, repeats=True)
def _tell(
    strategy: Strategy,
    state: State,
    population: Population,
    fitness: jax.Array,
    repaired: jax.Array | None,
    key: jax.Array,
    generation: jax.Array,
) -> _Search:
    """Tells a generation and asks for the next one, in one call."""
    evaluation = Evaluation.of(fitness, fitness.shape[0])._replace(repaired=repaired)
    return _asked(strategy, strategy.tell(state, population, evaluation), key, generation)


def _rows(leaves: Sequence[Any]) -> list[bytes]:
    """Returns the bytes of each member."""
    arrays = [np.ascontiguousarray(x) for x in leaves]
    return [b"".join(x[i].tobytes() for x in arrays) for i in range(len(arrays[0]))]


def _asked(strategy: Strategy, told: State, key: jax.Array, generation: jax.Array | int) -> _Search:
    population, asked = strategy.ask(jax.random.fold_in(jax.random.wrap_key_data(key), generation), told)
    members = jax.tree.leaves(materialize(population))
    return _Search(told, asked, None if strategy.follows_population else population, members)


@functools.partial(Program, repeats=True)
def _mean(strategy: Strategy, state: State) -> Solution:
    return strategy.mean(state)


@functools.partial(Program, repeats=True)
def _std(strategy: Strategy, state: State) -> Solution:
    return strategy.std(state)
