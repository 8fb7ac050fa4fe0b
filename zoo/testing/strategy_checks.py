"""What every strategy promises. Each check is one promise: its docstring says which.

A check runs the programs of its `StrategyCase`. What shapes and dtypes can tell is only traced.
"""

import dataclasses
import functools
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core import Evaluation, Problem, map_members, materialize
from zoo.core.search_space import resolve, with_value
from zoo.testing.loop import Loop, generation, start, told, with_settings
from zoo.testing.promise import (
    Check,
    add_to,
    refuses,
    require,
    require_equal,
    require_finite,
    require_signature,
    run_checks,
)
from zoo.testing.strategy_case import SIZE, SOLUTION, StrategyCase, quadratic

_FITNESS = np.arange(SIZE, dtype=np.float32)
_PENALTIES = (5e18, 1e20, 1e30, -1e30, 3e38)

STRATEGY_CHECKS: list[Check] = []
"""The promises of every strategy, in the order in which they are checked."""
_promise = add_to(STRATEGY_CHECKS)


@_promise
def runs_in_the_unchanged_loop(case: StrategyCase) -> None:
    """The strategy runs on every family of problems, in one program for all values of its continuous settings."""
    for family, problem in case.problems.items():
        solution = case.initial_solution(family)
        if case.strategy.groups.sensitivity is not None and not problem.differentiable:
            with refuses(
                TypeError, words="follows the derivative of the inner state with respect to the solution", what=family
            ):
                jax.eval_shape(start, case.strategy, problem, case.key, solution)
            continue
        loop = jax.eval_shape(start, case.strategy, problem, case.key, solution)
        if case.strategy.takes_surrogate(loop.state) and not problem.differentiable:
            with refuses(TypeError, words="needs a surrogate gradient, and this problem has none", what=family):
                jax.eval_shape(generation, case.strategy, problem, loop, case.key)
            continue
        _runs_on(case, family, loop)


def _runs_on(case: StrategyCase, family: str, shapes: Loop) -> None:
    strategy, problem, solution = case.strategy, case.problems[family], case.initial_solution(family)
    is_run = case.thorough or family == "unrolled"
    keys = jax.random.split(case.key, 3)
    if is_run:
        loop = case.start(strategy, problem, case.key, solution)
        end, fitness, (mean, std) = case.train(strategy, problem, loop, keys)
    else:
        loop = shapes
        end, fitness, (mean, std) = jax.eval_shape(case.generations, strategy, problem, loop, keys)
    require_signature(end, loop, f"On {family}, the state after three generations")
    require_signature(mean, jax.eval_shape(strategy.mean, loop.state), f"On {family}, the mean")
    size = strategy.for_solution(mean).population_size
    require(fitness.shape == (3, size), f"On {family}, fitness has the shape {fitness.shape}, expected {(3, size)}.")
    if not is_run:
        return
    require_finite((mean, std, fitness), f"On {family}, mean, std and fitness")
    num_traces = case.num_traces
    case.train(strategy, problem, end, keys)
    case.train(case.swept(0.3), problem, end, keys)
    require(
        case.num_traces == num_traces,
        f"On {family}, a second call or another value of a continuous setting compiles the loop again. Declare "
        "continuous settings with zoo.number, and return states of the same structure and dtypes.",
    )


@_promise
def resumes_exactly(case: StrategyCase) -> None:
    """The state holds everything: a loop that is cut in two and stored in between ends bit for bit the same."""
    strategy, problem, solution = case.strategy, case.problems["unrolled"], case.initial_solution("unrolled")
    first, second = jax.random.split(case.key, (2, 3))
    ends = []
    for is_stored in (False, True):
        loop, _, _ = case.train(strategy, problem, case.start(strategy, problem, case.key, solution), first)
        if is_stored:
            leaves, structure = jax.tree.flatten(loop)
            loop = Loop(*jax.tree.unflatten(structure, [np.asarray(x) for x in leaves]))
        ends.append(case.train(strategy, problem, loop, second))
    require_equal(ends[1], ends[0], "After it was stored and continued")


@_promise
def maps_over_seeds_and_settings(case: StrategyCase) -> None:
    """`jax.vmap` over seeds and over a continuous setting gives what single runs give."""
    problem, solution = case.problems["function"], case.initial_solution("function")
    strategies = [case.swept(value) for value in (0.1, 0.2)]
    keys = jax.random.split(case.key, 3)

    def train(strategy: Any, key: jax.Array) -> Any:
        loop = start(strategy, problem, key, solution)
        return case.generations(strategy, problem, loop, jax.random.split(key, 3))[2][0]

    stacked = jax.tree.map(lambda *x: jnp.stack(x), *strategies)
    batched = jax.jit(jax.vmap(jax.vmap(train, in_axes=(None, 0)), in_axes=(0, None)))
    if not case.thorough:
        shapes = jax.tree.map(jnp.shape, jax.eval_shape(batched, stacked, keys))
        require(shapes == jax.tree.map(lambda x: (2, 3, *jnp.shape(x)), solution), f"The means have shapes {shapes}.")
        return
    means = batched(stacked, keys)
    loop = case.start(strategies[1], problem, keys[2], solution)
    single = case.train(strategies[1], problem, loop, jax.random.split(keys[2], 3))[2][0]
    for got, expected in zip(jax.tree.leaves(means), jax.tree.leaves(single), strict=True):
        require(got.shape == (2, 3, *expected.shape), f"A mean has the shape {got.shape} for two settings and 3 seeds.")
        require(
            np.allclose(got[1, 2], expected, rtol=1e-4, atol=1e-5),
            f"Mapped, the mean is {got[1, 2]}; alone, it is {expected}.",
        )


@_promise
def converges_on_a_quadratic(case: StrategyCase) -> None:
    """The strategy minimises a quadratic, and from its optimum 3 000 generations keep mean and std finite."""
    strategy = case.make(population_size=18)
    coarse = with_settings(strategy, sigma=0.3, learning_rate=0.05)

    @functools.partial(jax.jit, donate_argnums=1)
    def train(strategy: Any, state: Any, num_generations: int, target: float) -> Any:
        def body(i: jax.Array, state: Any) -> Any:
            def fn(x: Any) -> jax.Array:
                return quadratic(x, target)

            population, state = strategy.ask(jax.random.fold_in(case.key, i), state, jax.grad(quadratic))
            fitness = map_members(fn, population)
            return strategy.tell(state, population, told(strategy, population, fitness, quadratic))

        state = jax.lax.fori_loop(0, num_generations, body, state)
        std = strategy.std(state)
        if hasattr(state, "mask"):  # what a strategy has pruned is not searched
            std = jax.tree.map(lambda s, kept: jnp.where(kept, s, 1), std, state.mask)
        return state, strategy.mean(state), std

    # Initialised without `jit`, which would hide a state that has one array twice: it could not be donated.
    _, mean, _ = train(coarse, coarse.init(case.key, SOLUTION), 200, 0.25)
    left = float(quadratic(mean) / quadratic(SOLUTION))
    require(
        left < case.reaches,
        f"After 200 generations of 18, {left:.2g} of the initial fitness is left; expected less than {case.reaches:g} "
        "(`reaches` sets it).",
    )
    start_at_optimum = jax.tree.map(np.zeros_like, SOLUTION)
    _, mean, std = train(strategy, strategy.init(case.key, start_at_optimum), 3000, 0.0)
    require_finite((mean, std), "After 3 000 generations from the optimum, mean and std")
    is_positive = all(bool(np.all(np.asarray(x) > 0)) for x in jax.tree.leaves(std))
    require(is_positive == case.samples, f"After 3 000 generations from the optimum, std has zeros or less: {std}.")


@_promise
def draws_from_its_keys(case: StrategyCase) -> None:
    """The same keys give the same population; other keys give another."""
    other_key = jax.random.key(1)
    first, after, _ = case.generation(case.state, case.key, _FITNESS)
    again, _, _ = case.generation(case.state, case.key, _FITNESS)
    # An initial population may have come with the key of `init`.
    other, _, _ = case.generation(case.init(other_key, SOLUTION), other_key, _FITNESS)
    second, _, _ = case.generation(after, case.key, _FITNESS)
    second_again, _, _ = case.generation(after, case.key, _FITNESS)
    second_other, _, _ = case.generation(after, other_key, _FITNESS)
    require_equal(again, first, "With the same key, the first population")
    require_equal(second_again, second, "With the same key, the second population")
    if case.samples:
        for x, y, which in ((first, other, "first"), (second, second_other, "second")):
            same = any(map(np.array_equal, jax.tree.leaves(x), jax.tree.leaves(y)))
            require(not same, f"With another key, the {which} population has a leaf that is the same.")


@_promise
def members_have_the_spread_of_std(case: StrategyCase) -> None:
    """Members have the structure, shapes and dtypes of the solution, and spread around the mean as `std` says."""
    size = 333 * SIZE
    strategy = with_settings(case.make(population_size=size), sigma=0.25)

    @jax.jit
    def ask(key: jax.Array) -> Any:
        state = strategy.init(key, SOLUTION)
        population, asked = strategy.ask(key, state, jax.grad(quadratic))
        return materialize(population), strategy.std(asked)  # of the state after `ask`, which may draw a subspace

    population, std = ask(case.key)
    require(jax.tree.structure(population) == jax.tree.structure(SOLUTION), "Members have another structure.")
    for name, leaf in population.items():
        shape = (size, *np.shape(SOLUTION[name]))
        require(leaf.shape == shape, f"Members have the shape {leaf.shape} at {name!r}, expected {shape}.")
        require(leaf.dtype == np.float32, f"Members are {leaf.dtype} at {name!r}, and the solution is float32.")
        if not case.samples:
            same = np.array_equal(leaf, np.broadcast_to(SOLUTION[name], leaf.shape))
            require(same, f"std is zero, and members differ from the solution at {name!r}.")
            continue
        # Members may be unperturbed: a baseline, or the initial solution as the first of an initial population.
        moved = np.asarray(leaf)[np.any((np.asarray(leaf) != SOLUTION[name]).reshape(size, -1), axis=1)]
        require(len(moved) >= 2 * size // 3, f"Only {len(moved)} of {size} members differ from the mean at {name!r}.")
        # Standard deviation of the sample standard deviation: 1/sqrt(2n); antithetic pairs count once. 5 sigma.
        is_close = np.allclose(moved.std(axis=0), std[name], rtol=5 / np.sqrt(2 * len(moved) / 2))
        require(is_close, f"At {name!r} the members' std is {moved.std(axis=0)}, and `std` returns {std[name]}.")


@_promise
def sigma_is_the_initial_std(case: StrategyCase) -> None:
    """The setting `sigma`, if there is one, is the initial standard deviation of every parameter."""
    strategy = case.strategy
    while hasattr(strategy, "base"):
        strategy = strategy.base
    if not case.samples or getattr(strategy, "sigma", None) is None:
        return
    for name, std in case.std.items():
        expected = np.full(np.shape(SOLUTION[name]), strategy.sigma * case.std_per_sigma)
        require(np.allclose(std, expected, rtol=1e-5), f"At {name!r} the initial std is {std}, expected {expected}.")


@_promise
def keeps_double_precision(case: StrategyCase) -> None:
    """With `jax_enable_x64`, a solution in double precision is searched in double precision."""
    with jax.enable_x64(True):
        key = jax.random.key(0)
        solution = jax.tree.map(lambda x: np.asarray(x, np.float64), SOLUTION)
        state = jax.eval_shape(case.strategy.init, key, solution)
        _, after, outcome = jax.eval_shape(case.one_generation, state, key, _FITNESS.astype(np.float64))
        dtypes = {str(x.dtype) for x in jax.tree.leaves(outcome)}
        require(dtypes == {"float64"}, f"Mean and std have the dtypes {sorted(dtypes)}, and the solution is float64.")
        require_signature(after, state, "The state after a generation in double precision")


@_promise
def takes_numpy_solutions(case: StrategyCase) -> None:
    """A NumPy array in double precision becomes single precision, JAX's default."""
    state = jax.eval_shape(case.strategy.init, case.key, {"x": np.ones(3)})
    dtype = jax.eval_shape(case.strategy.mean, state)["x"].dtype
    require(dtype == np.float32, f"The mean of a search from a NumPy array is {dtype}, expected float32.")


@_promise
def works_in_half_precision(case: StrategyCase) -> None:
    """Solutions in float16 have members, mean and std in float16, whatever precision is used inside."""
    solution = jax.tree.map(lambda x: np.asarray(x, np.float16), SOLUTION)
    state = jax.eval_shape(case.strategy.init, case.key, solution)
    members, after, outcome = jax.eval_shape(case.one_generation, state, case.key, _FITNESS)
    dtypes = {str(x.dtype) for x in jax.tree.leaves((members, outcome))}
    require(dtypes == {"float16"}, f"Members, mean and std have the dtypes {sorted(dtypes)}, expected float16.")
    require_signature(after, state, "The state after a generation in half precision")


@_promise
def survives_fitness_that_is_not_finite(case: StrategyCase) -> None:
    """NaN and infinite fitness, also of all members, never enter the state."""
    for value in (np.nan, np.inf, -np.inf):
        for some in ([0], [2, 5], range(SIZE)):
            fitness = _FITNESS.copy()
            fitness[list(some)] = value
            _, after, outcome = case.generation(case.state, case.key, fitness)
            require_finite(outcome, f"After members {list(some)} had fitness {value}, mean and std")
            _, _, outcome = case.generation(after, case.key, _FITNESS)  # nor is the damage hidden in the state
            require_finite(outcome, f"One generation after members {list(some)} had fitness {value}, mean and std")


@_promise
def survives_huge_penalties(case: StrategyCase) -> None:
    """Finite fitness that cannot be squared leaves the state finite, and later generations still learn."""
    for value in _PENALTIES:
        fitness = _FITNESS.copy()
        fitness[[2, 5]] = value
        _, after, outcome = case.generation(case.state, case.key, fitness)
        require_finite(outcome, f"After two members had fitness {value:g}, mean and std")
        # The members without the penalty are learned from.
        if hasattr(case.strategy, "estimate") and case.samples and value > 1e19:
            same = _equal(outcome[0], case.strategy.mean(case.state))
            require(not same, f"Nothing was learned of the other members when two had fitness {value:g}.")
        later = after
        for i, key in enumerate(jax.random.split(case.key, 3)):
            before = later
            _, later, outcome = case.generation(before, key, _FITNESS - i - 1)
            require_finite(outcome, f"Generations after two members had fitness {value:g}, mean and std")
            # After a member so good, no better one comes.
            require(value < 0 or not _equal(later, before), f"The search stands still after a fitness of {value:g}.")
        if case.samples and value > 0:
            _steps_are_no_smaller(case, after, value)


def _steps_are_no_smaller(case: StrategyCase, after: Any, value: float) -> None:
    steps = []
    for state in (case.state, after):
        _, _, (mean, _) = case.generation(state, jax.random.fold_in(case.key, 7), _FITNESS - 9)
        before = case.strategy.mean(state)
        steps.append(max(np.abs(mean[name] - before[name]).max() for name in mean))
    require(
        steps[1] >= 0.05 * steps[0],
        f"After a fitness of {value:g} the next step is {steps[1]:.3g} long, and without it {steps[0]:.3g}.",
    )


@_promise
def computes_no_nan(case: StrategyCase) -> None:
    """`jax_debug_nans` finds nothing, also where fitness is infinite or equal."""
    strategy, problem, solution = case.strategy, case.problems["unrolled"], case.initial_solution("unrolled")
    some = _FITNESS.copy()
    some[2] = np.inf
    with jax.debug_nans(True):
        state = case.init(case.key, SOLUTION)
        for fitness in (_FITNESS, np.ones(SIZE, np.float32), some, _FITNESS):
            _, state, _ = case.generation(state, case.key, fitness)
        jax.block_until_ready(state)
        loop = case.start(strategy, problem, case.key, solution)
        jax.block_until_ready(case.train(strategy, problem, loop, jax.random.split(case.key, 3)))


@_promise
def takes_nan_as_the_worst(case: StrategyCase) -> None:
    """A member with NaN fitness counts as one with infinite fitness."""
    worst, nan = _FITNESS.copy(), _FITNESS.copy()
    worst[3], nan[3] = np.inf, np.nan
    got, expected = (case.generation(case.state, case.key, fitness) for fitness in (nan, worst))
    require_equal(got, expected, "With NaN in place of infinity")


@_promise
def survives_equal_fitness(case: StrategyCase) -> None:
    """Five generations of equal fitness leave mean and std finite."""
    state = case.state
    for key in jax.random.split(case.key, 5):
        _, state, outcome = case.generation(state, key, np.ones(SIZE, np.float32))
        require_finite(outcome, "After equal fitness, mean and std")


@_promise
def searches_one_dimension(case: StrategyCase) -> None:
    """A scalar solution is searched by a large population, also where fitness is constant."""
    strategy = case.make(population_size=16 * SIZE)

    @jax.jit
    def train(slope: float) -> Any:
        def fn(x: Any) -> jax.Array:
            return slope * quadratic(x)

        def body(state: Any, key: jax.Array) -> tuple[Any, None]:
            population, state = strategy.ask(key, state, jax.grad(quadratic))
            fitness = map_members(fn, population)
            return strategy.tell(state, population, told(strategy, population, fitness, quadratic)), None

        state, _ = jax.lax.scan(body, strategy.init(case.key, 1.5), jax.random.split(case.key, 3))
        return strategy.mean(state), strategy.std(state)

    for slope in (1.0, 0.0):
        mean, std = train(slope)
        require(mean.shape == std.shape == (), f"Mean and std have the shapes {mean.shape} and {std.shape}.")
        require_finite((mean, std), "In one dimension, mean and std")


@_promise
def has_a_default_size(case: StrategyCase) -> None:
    """Without `population_size`, `for_solution` fills in a default; population and groups have that size."""
    strategy = case.make(population_size=None)
    strategy = strategy if strategy.population_size is None else strategy.replace(population_size=None)
    if hasattr(strategy, "base"):  # a wrapper without a size of its own has its base's
        strategy = strategy.replace(base=strategy.base.replace(population_size=None))
    filled = strategy.for_solution(SOLUTION)
    size = filled.population_size
    state = jax.eval_shape(strategy.init, case.key, SOLUTION)
    population = jax.eval_shape(
        lambda key, state: materialize(strategy.ask(key, state, jax.grad(quadratic))[0]), case.key, state
    )
    require(size is not None and size >= 1, f"The default population size is {size}.")
    sizes = {len(leaf) for leaf in jax.tree.leaves(population)}
    require(sizes == {size}, f"The population has {sorted(sizes)} members, and for_solution says {size}.")
    require(len(filled.groups.ids) == size, f"groups has {len(filled.groups.ids)} ids for {size} members.")
    with refuses(ValueError, words="population_size is not set", what="The groups of a strategy without a size"):
        _ = strategy.groups


# From here on nothing is compiled: what comes in is checked, and put in one form, before a strategy sees it.


def _members(number: int) -> Any:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (number, *np.shape(x))), SOLUTION)


@_promise
def takes_bare_fitness(case: StrategyCase) -> None:
    """`tell` takes a list of whole numbers as fitness, and turns it into an `Evaluation`."""
    if case.strategy.groups.sensitivity is not None:
        return  # it needs gradients beside fitness

    def after(state: Any) -> Any:
        population, state = case.strategy.ask(case.key, state, jax.grad(quadratic))
        return case.strategy.tell(state, population, [3, 1, 4, 1, 5, 9])

    state = jax.eval_shape(case.strategy.init, case.key, SOLUTION)
    require_signature(jax.eval_shape(after, state), state, "The state after fitness as a list")


@_promise
def refuses_wrong_fitness(case: StrategyCase) -> None:
    """`tell` refuses fitness of another shape, and what is not a real number, in words."""
    tell = functools.partial(case.strategy.tell, None, _members(SIZE))
    for fitness in (np.ones(SIZE - 1), np.ones((SIZE, 1)), np.float32(1.0), np.ones(0)):
        with refuses(ValueError, words=f"expects fitness of shape ({SIZE},)", what=f"Fitness of shape {fitness.shape}"):
            tell(fitness)
    with refuses(TypeError, words="expects fitness values that are real numbers", what="A dictionary as fitness"):
        tell({"a": 1})


@_promise
def says_which_members_it_takes(case: StrategyCase) -> None:
    """`tell` takes any number of members from two on, or refuses with the reason in `needs_all_members`."""
    strategy, why = case.strategy, case.strategy.needs_all_members

    def tell(number: int) -> Any:
        def after(state: Any) -> Any:
            _, state = strategy.ask(case.key, state, lambda x: x)
            evaluation = Evaluation.of(jnp.arange(number, dtype=jnp.float32), number)
            if strategy.groups.sensitivity is not None:
                evaluation = evaluation._replace(gradient=_members(number))
            return strategy.mean(strategy.tell(state, _members(number), evaluation))

        return jax.eval_shape(after, jax.eval_shape(strategy.init, case.key, SOLUTION))

    for number in (SIZE - 2, SIZE + 2):
        if why is None:
            tell(number)
        else:
            with refuses(ValueError, words=f"expects the {SIZE} members that", what=f"{number} members instead of 6"):
                tell(number)
    if why is None:
        with refuses(ValueError, words="expects at least 2 members", what="A single member"):
            tell(1)


@_promise
def refuses_wrong_solutions(case: StrategyCase) -> None:
    """`init` refuses solutions that are empty, or have leaves that are not floating-point arrays."""
    init = functools.partial(case.strategy.init, case.key)
    for empty in ({}, (), [], {"a": {}}):
        with refuses(ValueError, words="empty pytree", what=f"The solution {empty}"):
            init(empty)
    with refuses(ValueError, words="no entries", what="A solution without entries"):
        init(np.zeros((0, 3)))
    for leaf in (np.arange(3), 3, "three", True, np.ones(2, complex)):
        with refuses(TypeError, words="floating-point arrays, but ['n'] is", what=f"A solution with the leaf {leaf!r}"):
            init({"n": leaf, "x": np.ones(2)})


@_promise
def checks_its_settings(case: StrategyCase) -> None:
    """Settings that are no numbers, and numbers out of bounds, are refused by name when the strategy is made."""
    for field in dataclasses.fields(case.strategy):
        bounds = field.metadata.get("zoo_bounds", {})
        if not bounds.get("number"):
            continue
        with refuses(TypeError, words=f"{field.name} must be a number", what=f"{field.name}='big'"):
            case.make(**{field.name: "big"})
        for bound, words in (("above", "greater than"), ("at_least", "at least")):
            if bounds.get(bound) is not None:
                low = bounds[bound] - 1
                says = f"{field.name} must be {words} {low + 1:g}, got {low:g}"
                with refuses(ValueError, words=says, what=f"{field.name}={low:g}"):
                    case.make(**{field.name: low})
    with refuses(ValueError, words="population_size must be at least", what="population_size=0"):
        case.make(population_size=0)
    with refuses(TypeError, words="population_size must be a whole number", what="population_size=8.5"):
        case.make(population_size=8.5)


@_promise
def declares_what_is_tuned(case: StrategyCase) -> None:
    """Each setting of its search space is a leaf that it has, and both ends of the range are valid values."""
    for name, each in case.strategy.search_space().items():
        (distribution,) = resolve({name: each}, case.strategy).values()
        for end in (0.0, 1.0):
            changed = with_value(case.strategy, name, distribution.at(end))
            require(
                jax.tree.structure(changed) == jax.tree.structure(case.strategy),
                f"search_space() has {name!r}, which is not a leaf, so that each of its values would be compiled. "
                "Declare it with zoo.number.",
            )


@_promise
def goes_to_other_processes(case: StrategyCase) -> None:
    """The strategy survives pickling with its settings, and its `repr` is at most 15 lines long."""
    again = pickle.loads(pickle.dumps(case.strategy))
    require_equal(again, case.strategy, "After pickling, the strategy")
    lines = repr(case.strategy).count("\n") + 1
    require(lines <= 15, f"The repr of the strategy is {lines} lines long.")


@_promise
def leaks_no_tracers(case: StrategyCase) -> None:
    """Nothing that is traced is kept outside of the function that is traced (`jax_check_tracer_leaks`)."""
    with jax.checking_leaks():
        state = jax.eval_shape(case.strategy.init, case.key, SOLUTION)
        jax.eval_shape(case.one_generation, state, case.key, _FITNESS)


def _equal(one: Any, two: Any) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(two)))


def check_strategy(
    factory: Any,
    *,
    problems: Mapping[str, Problem] | None = None,
    reaches: float = 0.01,
    std_per_sigma: float = 1.0,
    skip: Sequence[str] = (),
    strict: bool = True,
) -> None:
    """Checks that a strategy keeps the promises of its interface (`STRATEGY_CHECKS`), one after the other.

    It takes five to twenty seconds, most of them for compiling. The strategy is run on a solution with a matrix and a
    scalar, with six members.

    Args:
        factory: The strategy's class, its id, or a function of settings that returns a strategy. It must take
            `population_size`; six, and multiples of six up to 1 998, must be valid.
        problems: Problems by family that the strategy is run on. Defaults to `example_problems()`. An entry
            "unrolled" and an entry "function" are required.
        reaches: The fitness to which 200 generations of 18 members must bring a quadratic, as a fraction of the fitness
            of the start; with `sigma` 0.3 and `learning_rate` 0.05, if the strategy has these settings.
        std_per_sigma: The initial standard deviation of a parameter as a multiple of the setting `sigma`, for seven
            parameters. It is 1 unless `sigma` means something else.
        skip: Names of checks that are left out.
        strict: Whether the checks run in JAX's strict modes (`strict_modes`). Switch it off for a strategy that calls a
            library which promotes ranks or dtypes.

    Raises:
        BrokenPromiseError: At the first promise that does not hold, with the promise and what was found.
        TypeError: If `factory` does not make a strategy.
        ValueError: If `skip` names a check that does not exist, or `problems` has no "unrolled" or "function".

    >>> import zoo.testing
    >>> zoo.testing.check_strategy("snes")  # doctest: +SKIP
    """
    case = StrategyCase(factory, problems=problems, reaches=reaches, std_per_sigma=std_per_sigma)
    run_checks(STRATEGY_CHECKS, case, skip=skip, strict=strict)
