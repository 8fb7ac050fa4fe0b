"""Restarts: what `ipop` and `bipop` share. After a run that has converged or stalled, another one starts.

Reference: Auger & Hansen 2005, "A Restart CMA Evolution Strategy with Increasing Population Size", CEC; Hansen 2009,
"Benchmarking a BI-Population CMA-ES on the BBOB-2009 Function Testbed", GECCO; termination criteria as in Hansen 2016,
arXiv 1604.00772, appendix B.3.

Population sizes are shapes, and shapes are fixed when a program is compiled. So there is a fixed ladder of sizes: the
first one times 1, 2, 4, ... What `ask` returns is a *block*, as large as the smallest population. A generation of the
base on rung k is asked and told in 2^k blocks. No evaluation is wasted, and nothing is compiled anew. This has its
price. The members of a large generation are kept until it is complete, which takes memory for 2^max_doublings blocks.
Each rung is a branch in the compiled program. And runs that are batched with `vmap` are computed one after another,
because a batch would compute every branch for each run.
"""

import abc
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import (
    Evaluation,
    Groups,
    Population,
    Solution,
    Strategy,
    Surrogate,
    SurrogateGradient,
    gradient_of_members,
    leaf,
    normal_like,
    num_dims,
    number,
    static,
)
from zoo.core.promotion import common_dtype, promoted
from zoo.strategies.wrappers.base import Wrapper


class Run(NamedTuple):
    """What is known of the current run: one descent of the base, from its start to its termination."""

    rung: jax.Array  # [] a generation has 2^rung blocks
    sigma_factor: jax.Array  # [] factor of the base's sigma
    budget: jax.Array  # [] evaluations after which it ends
    num_generations: jax.Array  # []
    num_evaluations: jax.Array  # []
    initial_std: jax.Array  # [] the largest standard deviation at its start
    best_fitness: jax.Array  # []
    bests: jax.Array  # [window] best fitness of recent generations, the latest first
    medians: jax.Array  # [window] their median fitness
    is_over: jax.Array  # [] boolean


class RestartState(NamedTuple):
    """State of a restart strategy."""

    base: tuple[Any, ...]  # the base's state: one for all rungs, or one per rung if shapes differ
    initial: Solution  # the initial solution
    members: Population  # [largest population, ...] the generation under evaluation
    fitness: jax.Array  # [largest population]
    repaired: jax.Array  # [largest population] see `Evaluation.repaired`
    block: jax.Array  # [] number of the next block of the generation
    run: Run
    schedule: Any  # what the choice of the next run depends on
    best_mean: Solution  # mean of the best finished run
    best_fitness: jax.Array  # [] best fitness of that run
    num_restarts: jax.Array  # []


class Restart(Wrapper):
    """Base of restart strategies.

    Attributes:
        base: The strategy that is restarted: its id, a dictionary of its id and settings, or a strategy.
        population_size: Members per `ask`, at least 1, which is the base's population size in the first run. Defaults
            to the population size of the base.
        max_doublings: How often the population size may double, at least 0. Memory for the largest population is held
            throughout.
        spread: Standard deviation of a restart's initial solution around the first one, in units of the base's initial
            standard deviation. With 0, all runs start at the same solution.
        tol_fun: A run ends when fitness varied by at most this over the last 10 + 30 d / population size generations,
            where d is the number of dimensions, and within the last one.
        tol_x: A run ends when all standard deviations are below this times the largest initial one.
        tol_up: A run ends when a standard deviation is above this times the largest initial one.
        max_condition: A run ends when the condition number of the covariance is above this.
        stagnation: A run ends when neither the best nor the median fitness has improved within a window of this times
            (120 + 30 d / population size) generations: the medians of its first and its last 30 % are compared. (The
            tutorial looks at the last 20 % of a long run instead.)
    """

    base: Any = leaf(default="cma_es")
    max_doublings: int = static(default=6, at_least=0)
    spread: float = number(default=1.0, at_least=0)
    tol_fun: float = number(default=1e-12, at_least=0)
    tol_x: float = number(default=1e-12, at_least=0)
    tol_up: float = number(default=1e4, above=1, finite=False)
    max_condition: float = number(default=1e14, above=1, finite=False)
    stagnation: int = static(default=1, at_least=1)

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        if isinstance(self.base, Strategy) and self.base.cannot_restart:
            raise TypeError(
                f"{type(self).__name__} asks for generations in blocks and starts anew, so it cannot restart "
                f"{type(self.base).__name__}: {self.base.cannot_restart}. Choose a base such as cma_es or open_es."
            )

    @property
    def needs_all_members(self) -> str | None:
        """Why `tell` needs all members: blocks of this size fill a generation."""
        return "a generation is filled by blocks of that number of members"

    @property
    def groups(self) -> Groups:
        """The groups: the members of a block together."""
        return Groups.of(self._fixed_size)

    @property
    def restarts(self) -> bool:
        """True: that is what it does."""
        return True

    def mean(self, state: RestartState) -> Solution:
        """Returns the mean of the current run or of the best run before it, whichever has the lower best fitness."""
        current = self._mean_of_run(state)
        is_best = state.run.best_fitness <= state.best_fitness
        return jax.tree.map(lambda new, old: jnp.where(is_best, new, old), current, state.best_mean)

    def std(self, state: RestartState) -> Solution:
        """Returns the standard deviations of the current run."""
        return self._on_rung(state, lambda base, of_base: base.std(of_base))

    def takes_surrogate(self, state: RestartState) -> bool:
        """Returns whether the base takes a surrogate gradient."""
        return self.base.takes_surrogate(state.base[0])

    def map_mean(self, state: RestartState, fn: Callable[[Solution], Solution]) -> RestartState:
        """Returns the state with the mean of the current run changed."""
        return state._replace(base=tuple(self.base.map_mean(of_base, fn) for of_base in state.base))

    def _mean_of_run(self, state: RestartState) -> Solution:
        return self._on_rung(state, lambda base, of_base: base.mean(of_base))

    @abc.abstractmethod
    def _first_schedule(self) -> Any:
        """Returns the schedule's state at the beginning."""

    @abc.abstractmethod
    def _next_run(self, key: jax.Array, state: RestartState) -> tuple[jax.Array, jax.Array, jax.Array, Any]:
        """Returns rung, sigma factor and budget of the next run, and the schedule's new state."""

    def _base_on(self, rung: int, sigma_factor: jax.Array | float, size: int) -> Strategy:
        return _scale_sigma(self.base.replace(population_size=size << rung), sigma_factor)

    def _on_rung(self, state: RestartState, fn: Callable[[Strategy, Any], Any]) -> Any:
        """Returns `fn(base, state of the base)` for the rung of the current run."""
        size = self._num_members(state.initial)

        def branch(rung: int) -> Any:
            base = self._base_on(rung, state.run.sigma_factor, size)
            return fn(base, state.base[min(rung, len(state.base) - 1)])

        if len(state.base) == 1:  # the states of all rungs have the same shapes
            return branch(0)
        branches = [functools.partial(branch, rung) for rung in range(self.max_doublings + 1)]
        return jax.lax.switch(state.run.rung, branches)

    def _init(self, key: jax.Array, solution: Solution) -> RestartState:
        size = self._num_members(solution)
        rungs = range(self.max_doublings + 1)
        states = [jax.eval_shape(self._base_on(rung, 1.0, size).init, key, solution) for rung in rungs]
        signatures = {(jax.tree.structure(s), *((x.shape, x.dtype) for x in jax.tree.leaves(s))) for s in states}
        if len(signatures) == 1:
            states = states[:1]
        first = self._base_on(0, 1.0, size)
        base = (first.init(key, solution), *(_zeros(s) for s in states[1:]))
        dtype = common_dtype(*jax.tree.leaves(solution), jnp.float32)
        window = self._window(num_dims(solution), size)
        largest = size << self.max_doublings
        run = _new_run(0, 1.0, jnp.inf, first.std(base[0]), window, dtype)
        return RestartState(
            base=base,
            initial=solution,
            members=jax.tree.map(lambda x: jnp.zeros((largest, *x.shape), x.dtype), solution),
            fitness=jnp.zeros(largest, dtype),
            repaired=jnp.zeros(largest, bool),
            block=jnp.zeros((), jnp.int32),
            run=run,
            schedule=self._first_schedule(),
            best_mean=jax.tree.map(jnp.copy, solution),
            best_fitness=jnp.full((), jnp.inf, dtype),
            num_restarts=jnp.zeros((), jnp.int32),
        )

    def _ask(self, key: jax.Array, state: RestartState, surrogate: Surrogate | None) -> tuple[Population, RestartState]:
        size = self._num_members(state.initial)
        if surrogate is None:
            state = _in_turn(_prepare)(self, key, state)
        else:
            state = _prepare(self, key, state, _by_blocks(surrogate, size))
        rows = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, state.block * size, size), state.members)
        return rows, state

    def _tell(self, state: RestartState, population: Population, evaluation: Evaluation) -> RestartState:
        return _in_turn(_absorb)(self, state, population, evaluation)

    def _window(self, d: Any, size: Any) -> Any:
        """Returns the number of generations over which stagnation is measured, for a population size."""
        return self.stagnation * (120 + -(-30 * d // size))


def _prepare(strategy: Restart, key: jax.Array, state: RestartState, surrogate: Surrogate | None = None) -> Any:
    """Returns the state with a block to ask for: of this generation, of the next one, or of the next run."""
    key_restart, key_ask = jax.random.split(key)
    size = strategy._num_members(state.initial)
    # What a `cond` returns is copied, so the large buffers should go through few of them.
    light = state._replace(members=None, fitness=None, repaired=None)
    light = jax.lax.cond(light.run.is_over, lambda: _restart(strategy, key_restart, light), lambda: light)

    def draw(rung: int) -> tuple[tuple[Any, ...], Population]:
        base = strategy._base_on(rung, light.run.sigma_factor, size)
        slot = min(rung, len(light.base) - 1)
        members, of_base = base.ask(key_ask, light.base[slot], surrogate)
        padded = jax.tree.map(lambda all, rows: all.at[: size << rung].set(rows), state.members, members)
        return (*light.base[:slot], of_base, *light.base[slot + 1 :]), padded

    branches: list[Any] = [functools.partial(draw, rung) for rung in range(strategy.max_doublings + 1)]
    branches.append(lambda: (light.base, state.members))  # the generation is not complete yet
    base, members = jax.lax.switch(jnp.where(light.block == 0, light.run.rung, len(branches) - 1), branches)
    return light._replace(base=base, members=members, fitness=state.fitness, repaired=state.repaired)


def _restart(strategy: Restart, key: jax.Array, state: RestartState) -> RestartState:
    """Returns the state at the start of the next run."""
    size = strategy._num_members(state.initial)
    key_next, key_solution, key_init = jax.random.split(key, 3)
    rung, sigma_factor, budget, schedule = strategy._next_run(key_next, state)
    first = strategy._base_on(0, 1.0, size)
    std = strategy.space.restrict(first.std(first.init(key_init, state.initial)))
    noise = normal_like(key_solution, state.initial, num_samples=1)
    solution = jax.tree.map(lambda x, s, z: x + (strategy.spread * s * z[0]).astype(x.dtype), state.initial, std, noise)
    base = []
    for slot, old in enumerate(state.base):
        new = strategy._base_on(slot, sigma_factor, size).init(key_init, solution)
        base.append(jax.tree.map(lambda x, y: x.astype(y.dtype), new, old))
    std = strategy._base_on(0, sigma_factor, size).std(base[0])
    run = _new_run(rung, sigma_factor, budget, std, state.run.bests.shape[0], state.best_fitness.dtype)
    return state._replace(
        base=tuple(base),
        block=jnp.zeros((), jnp.int32),
        run=run,
        schedule=schedule,
        best_mean=strategy.mean(state),  # the mean of the best run so far
        best_fitness=jnp.minimum(state.run.best_fitness, state.best_fitness),
        num_restarts=state.num_restarts + 1,
    )


def _new_run(rung: Any, sigma_factor: Any, budget: Any, std: Solution, window: int, dtype: Any) -> Run:
    """Returns the record of a run that starts with these standard deviations."""
    return Run(
        rung=jnp.asarray(rung, jnp.int32),
        sigma_factor=jnp.asarray(sigma_factor, dtype),
        budget=jnp.asarray(budget, dtype),
        num_generations=jnp.zeros((), jnp.int32),
        num_evaluations=jnp.zeros((), dtype),
        initial_std=_largest(std).astype(dtype),
        best_fitness=jnp.full((), jnp.inf, dtype),
        bests=jnp.full(window, jnp.inf, dtype),
        medians=jnp.full(window, jnp.inf, dtype),
        is_over=jnp.zeros((), bool),
    )


def _absorb(strategy: Restart, state: RestartState, population: Population, evaluation: Evaluation) -> RestartState:
    """Returns the state with an evaluated block. If the block completes the generation, the base is updated."""
    size = strategy._num_members(state.initial)
    fitness = evaluation.fitness
    repaired = jnp.zeros(size, bool) if evaluation.repaired is None else evaluation.repaired
    members, fitness, repaired = jax.tree.map(
        lambda all, rows: jax.lax.dynamic_update_slice_in_dim(all, rows.astype(all.dtype), state.block * size, 0),
        (state.members, state.fitness, state.repaired),
        (population, fitness, repaired),
    )
    block = state.block + 1

    def update(rung: int) -> tuple[tuple[Any, ...], jax.Array]:
        count = size << rung
        base = strategy._base_on(rung, state.run.sigma_factor, size)
        slot = min(rung, len(state.base) - 1)
        steps = jnp.asarray(count, jnp.int32)
        evaluation = Evaluation(fitness[:count], jnp.ones(count, bool), steps, repaired[:count])
        told = base.tell(state.base[slot], jax.tree.map(lambda x: x[:count], members), evaluation)
        return (*state.base[:slot], told, *state.base[slot + 1 :]), jnp.median(fitness[:count])

    branches = [functools.partial(update, rung) for rung in range(strategy.max_doublings + 1)]

    def complete() -> tuple[tuple[Any, ...], Run, jax.Array]:
        base, median = jax.lax.switch(state.run.rung, branches)
        number = jnp.arange(fitness.shape[0], dtype=jnp.int32)
        in_generation = jnp.where(number < size << state.run.rung, fitness, jnp.nan)
        run = _record(state.run, in_generation, median, size)
        is_over = _has_ended(strategy, state._replace(base=base), run, in_generation, size)
        return base, run._replace(is_over=is_over), jnp.zeros_like(block)

    is_complete = block >= 1 << state.run.rung
    base, run, block = jax.lax.cond(is_complete, complete, lambda: (state.base, state.run, block))
    return state._replace(base=base, run=run, block=block, members=members, fitness=fitness, repaired=repaired)


def _record(run: Run, fitness: jax.Array, median: jax.Array, size: int) -> Run:
    """Returns the run with one more generation in it."""
    best = jnp.nanmin(fitness)
    return run._replace(
        num_generations=run.num_generations + 1,
        num_evaluations=run.num_evaluations + (size << run.rung).astype(run.num_evaluations.dtype),
        best_fitness=jnp.minimum(run.best_fitness, best),
        bests=jnp.roll(run.bests, 1).at[0].set(best),
        medians=jnp.roll(run.medians, 1).at[0].set(median),
    )


def _has_ended(strategy: Restart, state: RestartState, run: Run, fitness: jax.Array, size: int) -> jax.Array:
    """Returns whether a run ends here (Hansen 2016, appendix B.3).

    Args:
        strategy: The strategy, which has the tolerances.
        state: The state, with the updated state of the base.
        run: The run's record, this generation included.
        fitness: Fitness of this generation, padded with NaN.
        size: Members of a block.
    """
    d = strategy.space.num_dims(state.initial)
    count = size << run.rung
    if isinstance(d, jax.Array):  # a mask is counted in floating point
        count = count.astype(d.dtype)

    # If a value is not finite, the range is not finite either, and is not below the tolerance.
    recent = jnp.asarray(10 + -(-30 * d // count), jnp.int32)
    age = jnp.arange(run.bests.shape[0], dtype=jnp.int32)
    values = jnp.concatenate([fitness, jnp.where(age < recent, run.bests, jnp.nan)])
    is_flat = (run.num_generations >= recent) & (jnp.nanmax(values) - jnp.nanmin(values) <= strategy.tol_fun)

    window = jnp.asarray(strategy._window(d, count), jnp.int32)
    third = -(-3 * window // 10)

    def has_stagnated() -> jax.Array:
        histories = jnp.stack([run.bests, run.medians])
        newest = jnp.where(age < third, histories, jnp.nan)
        oldest = jnp.where((age >= window - third) & (age < window), histories, jnp.nan)
        medians = jnp.nanmedian(jnp.stack([newest, oldest]), axis=-1)
        return jnp.all(medians[0] >= medians[1])

    # Sorting takes longer than all the rest, so stagnation is checked in every tenth generation only.
    is_due = (run.num_generations >= window) & (run.num_generations % 10 == 0)
    is_stagnating = jax.lax.cond(is_due, has_stagnated, lambda: jnp.zeros((), bool))

    mean, std = strategy._mean_of_run(state), strategy.space.restrict(strategy.std(state))
    pairs = list(zip(jax.tree.leaves(mean), jax.tree.leaves(std), strict=True))
    # An entry without deviation is not searched: it is frozen, or trained by the gradient.
    is_large = [jnp.any(jnp.greater_equal(*promoted(s, strategy.tol_x * run.initial_std))) for _, s in pairs]
    is_searched = [jnp.any(s > 0) for _, s in pairs]
    is_small = ~jnp.any(jnp.stack(is_large)) & jnp.any(jnp.stack(is_searched))
    has_no_effect = jnp.any(jnp.stack([jnp.any((s > 0) & (x + 0.2 * s == x)) for x, s in pairs]))
    has_exploded = jnp.greater(*promoted(_largest(std), strategy.tol_up * run.initial_std))
    condition = strategy._on_rung(state, lambda base, of_base: base.condition_number(of_base))
    # Hansen 2009, section 2: a run has 100 + 50 (d + 3)^2 / sqrt(population size) generations.
    limit = 100 + 50 * (d + 3) ** 2 / jnp.sqrt(count)
    limit = limit * (1 - 1e-6)  # rounding must not put it above a whole number that it should be equal to
    is_spent = (run.num_generations.astype(limit.dtype) >= limit) | (run.num_evaluations >= run.budget)
    has_collapsed = is_small | has_no_effect | has_exploded | (condition > strategy.max_condition)
    return is_flat | is_stagnating | has_collapsed | is_spent


def _in_turn(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that takes the runs of a batch one by one: `vmap` would compute all branches for each."""

    def call(*arguments: Any) -> Any:
        leaves, structure = jax.tree.flatten(arguments)
        structures_out = []

        # Flat, because `sequential_vmap` puts booleans into the structures, which classes that check their fields
        # refuse.
        @jax.custom_batching.sequential_vmap
        def flat(*leaves: Any) -> list[Any]:
            leaves_out, structure_out = jax.tree.flatten(fn(*jax.tree.unflatten(structure, leaves)))
            structures_out.append(structure_out)
            return leaves_out

        leaves_out = flat(*leaves)
        return jax.tree.unflatten(structures_out[0], leaves_out)

    return call


def _by_blocks(surrogate: Surrogate, size: int) -> SurrogateGradient:
    """Returns the surrogate for generations of several blocks. A problem knows the data of one block at a time."""

    def members(population: Population) -> Any:
        blocks = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), population)
        gradients = jax.lax.map(lambda block: gradient_of_members(surrogate, block), blocks)
        return jax.tree.map(lambda g: g.reshape(-1, *g.shape[2:]), gradients)

    return SurrogateGradient(surrogate, members)


def _scale_sigma(strategy: Any, factor: jax.Array | float) -> Any:
    """Returns the strategy with its sigma, or the sigma of the strategy it wraps, multiplied by a factor."""
    if hasattr(strategy, "sigma"):
        return strategy.replace(sigma=jax.tree.map(lambda sigma: sigma * factor, strategy.sigma))
    return strategy.replace(base=_scale_sigma(strategy.base, factor)) if hasattr(strategy, "base") else strategy


def _largest(tree: Any) -> jax.Array:
    return jnp.max(jnp.stack(promoted(*(jnp.max(x) for x in jax.tree.leaves(tree)))))


def _zeros(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)
