"""What every strategy promises, checked for all that are registered: a new one is covered by its registry row.

Nearly all of the time goes into compiling, so the checks of one strategy share a few programs (`Programs`), and what
can be told from shapes and dtypes, or before anything runs, is only traced.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.the_loop import FAMILIES, IDS, Loop, generation, is_finite, samples, signature, start, told, with_settings
from zoo.core.population import materialize

SIZE = 6  # whole pairs, and whole triples
SOLUTION = {"w": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), "b": np.float32(0.5)}
# What is left of the start after `test_converges_on_a_quadratic`, for those that sample with a fixed spread.
LEFT = {"random_search": 0.5}
# One of each kind: a gradient, online, a distribution, members, an inner strategy with a surrogate, a mask; restarts
# only under `vmap`, where each seed has its own. What depends on JAX and problems is run for these, and traced for all.
OF_EACH_KIND = ("open_es", "nres", "cma_es", "de", "hybrid", "lottery")


def quadratic(x, target=0.25):
    return sum(jnp.sum((leaf - target) ** 2) for leaf in jax.tree.leaves(x))


def make(id, **settings):
    return zoo.make_strategy(id, **{"population_size": SIZE, **settings})


def swept(strategy, value):
    """The strategy with another value of one of its leaves."""
    return with_settings(strategy, **{"sigma" if samples(strategy) else "learning_rate": value})


def ask_tell(strategy, state, key, fitness):
    """One generation with the given fitness, or the given function of the population."""
    population, state = strategy.ask(key, state, lambda x: jax.grad(quadratic)(x))
    fitness = zoo.map_members(fitness, population) if callable(fitness) else jnp.asarray(fitness)
    return strategy.tell(state, population, told(strategy, population, fitness, quadratic))


def shapes_of(fn):
    return functools.partial(jax.eval_shape, fn)


def equal(one, two):
    return all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(two)))


@functools.cache
def problem_and_solution(family):
    problem = FAMILIES[family]()
    return problem, jax.jit(problem.initial_solution)(jax.random.key(0))


class Programs:
    """The compiled programs that several checks of one strategy share."""

    def __init__(self, id):
        self.strategy = make(id)
        self.num_traces = 0
        self.init = jax.jit(self.strategy.init)
        self.generation = jax.jit(self._generation)
        self.start = jax.jit(start)
        self.train = jax.jit(self._train)

    def _generation(self, state, key, fitness):
        """One generation on `SOLUTION` with the given fitness: what was asked, the new state, its mean and std."""
        population, state = self.strategy.ask(key, state, jax.grad(quadratic))
        state = self.strategy.tell(state, population, told(self.strategy, population, fitness, quadratic))
        return materialize(population), state, (self.strategy.mean(state), self.strategy.std(state))

    def _train(self, strategy, problem, loop, keys):
        """The loop that never changes, under a scan."""
        self.num_traces += 1
        loop, fitness = jax.lax.scan(lambda carry, k: generation(strategy, problem, carry, k), loop, keys)
        return loop, fitness, (strategy.mean(loop.state), strategy.std(loop.state))


@pytest.fixture(params=IDS, scope="module")  # so that all checks of one strategy follow each other
def id(request):
    return request.param


@pytest.fixture(scope="module")
def programs(id):
    return Programs(id)


@pytest.fixture
def state(programs, key):
    return programs.init(key, SOLUTION)


@pytest.mark.parametrize("family", FAMILIES)
def test_runs_on_every_family_in_the_unchanged_loop(id, programs, family, key):
    """On unrolled problems; of the other families most strategies are told by shapes and dtypes."""
    strategy, (problem, solution) = programs.strategy, problem_and_solution(family)
    if strategy.groups.sensitivity is not None and not problem.differentiable:
        with pytest.raises(TypeError, match="follows the derivative of the inner state with respect to the solution"):
            jax.eval_shape(start, strategy, problem, key, solution)
        return
    loop = jax.eval_shape(start, strategy, problem, key, solution)
    if strategy.takes_surrogate(loop.state) and not problem.differentiable:
        with pytest.raises(TypeError, match="needs a surrogate gradient, and this problem has none"):
            jax.eval_shape(generation, strategy, problem, loop, key)
        return
    compiles = family == "unrolled" or id in OF_EACH_KIND
    make_loop, train = (programs.start, programs.train) if compiles else (shapes_of(start), shapes_of(programs._train))
    loop = make_loop(strategy, problem, key, solution)
    keys = jax.random.split(key, 3)
    end, fitness, (mean, std) = train(strategy, problem, loop, keys)
    num_traces = programs.num_traces
    assert signature(end) == signature(loop)  # which a scan demands, up to weak types
    assert signature(mean) == signature(jax.eval_shape(strategy.mean, loop.state))
    assert fitness.shape == (3, strategy.for_solution(mean).population_size)
    if not compiles:
        return
    assert is_finite((mean, std, fitness))

    # A second call, and one with another value of a leaf, use the same program.
    programs.train(strategy, problem, end, keys)
    programs.train(swept(strategy, 0.3), problem, end, keys)
    assert programs.num_traces == num_traces


def test_loop_resumes_exactly_from_a_stored_state(programs, key):
    """The state holds everything: a loop cut in two ends bit-identical."""
    strategy, (problem, solution) = programs.strategy, problem_and_solution("unrolled")
    first, second = jax.random.split(key, (2, 3))
    ends = []
    for stored in (False, True):
        loop, _, _ = programs.train(strategy, problem, programs.start(strategy, problem, key, solution), first)
        if stored:
            leaves, structure = jax.tree.flatten(loop)
            loop = Loop(*jax.tree.unflatten(structure, [np.asarray(x) for x in leaves]))
        ends.append(programs.train(strategy, problem, loop, second))
    assert equal(*ends)


def test_vmaps_over_seeds_and_hyperparameters(id, programs, key):
    problem, solution = problem_and_solution("function")
    strategies = [swept(programs.strategy, value) for value in (0.1, 0.2)]
    keys = jax.random.split(key, 3)

    def train(strategy, key):
        loop = start(strategy, problem, key, solution)
        return programs._train(strategy, problem, loop, jax.random.split(key, 3))[2][0]

    stacked = jax.tree.map(lambda *x: jnp.stack(x), *strategies)
    batched = jax.jit(jax.vmap(jax.vmap(train, in_axes=(None, 0)), in_axes=(0, None)))
    if id not in (*OF_EACH_KIND, "bipop"):
        mean = jax.eval_shape(batched, stacked, keys)
        assert jax.tree.map(jnp.shape, mean) == jax.tree.map(lambda x: (2, 3, *jnp.shape(x)), solution)
        return
    batched = batched(stacked, keys)
    loop = programs.start(strategies[1], problem, keys[2], solution)
    single = programs.train(strategies[1], problem, loop, jax.random.split(keys[2], 3))[2][0]
    for got, expected in zip(jax.tree.leaves(batched), jax.tree.leaves(single), strict=True):
        assert got.shape == (2, 3, *expected.shape)
        np.testing.assert_allclose(got[1, 2], expected, rtol=1e-4, atol=1e-5)


def test_converges_and_its_std_stays_positive(id, key):
    """On a quadratic, the state donated.

    In 200 generations of 18 it is below a hundredth of the start (but see `LEFT`). Started at the optimum, nothing
    underflows to zero or becomes NaN in 3 000.
    """
    strategy = make(id, population_size=18)

    @functools.partial(jax.jit, donate_argnums=1)
    def train(strategy, state, num_generations, target):
        def body(i, state):
            return ask_tell(strategy, state, jax.random.fold_in(key, i), lambda x: quadratic(x, target))

        state = jax.lax.fori_loop(0, num_generations, body, state)
        std = strategy.std(state)
        if hasattr(state, "mask"):  # what a strategy has pruned is not searched
            std = jax.tree.map(lambda s, kept: jnp.where(kept, s, 1), std, state.mask)
        return state, strategy.mean(state), std

    # Initialised without `jit`, which would hide a state that has one array twice: it could not be donated.
    coarse = with_settings(strategy, sigma=0.3, learning_rate=0.05)
    _, mean, _ = train(coarse, coarse.init(key, SOLUTION), 200, 0.25)
    assert quadratic(mean) < quadratic(SOLUTION) * LEFT.get(id, 0.01)

    _, mean, std = train(strategy, strategy.init(key, jax.tree.map(np.zeros_like, SOLUTION)), 3000, 0.0)
    assert is_finite((mean, std))
    assert all(bool(np.all(np.asarray(x) > 0)) == samples(strategy) for x in jax.tree.leaves(std))


def test_population_comes_from_the_keys(programs, state, key):
    """The same keys, the same population; others, another. An initial population may have come with `init`'s key."""
    fitness = np.arange(SIZE, dtype=np.float32)
    other_key = jax.random.key(1)
    other_state = programs.init(other_key, SOLUTION)
    first, told, _ = programs.generation(state, key, fitness)
    again, _, _ = programs.generation(state, key, fitness)
    other, _, _ = programs.generation(other_state, other_key, fitness)
    second, _, _ = programs.generation(told, key, fitness)
    second_again, _, _ = programs.generation(told, key, fitness)
    second_other, _, _ = programs.generation(told, other_key, fitness)
    assert equal(first, again)
    assert equal(second, second_again)
    if samples(programs.strategy):
        assert not any(map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(other)))
        assert not any(map(np.array_equal, jax.tree.leaves(second), jax.tree.leaves(second_other)))


def test_population_has_the_solutions_structure_and_spread(id, key):
    size = 333 * SIZE
    strategy = with_settings(make(id, population_size=size), sigma=0.25)

    @jax.jit
    def ask(key):
        state = strategy.init(key, SOLUTION)
        population, asked = strategy.ask(key, state, jax.grad(quadratic))
        return (
            materialize(population),
            strategy.std(state),
            strategy.std(asked),
        )  # a subspace may have come with the surrogate

    population, initial_std, std = ask(key)
    for name, leaf in population.items():
        assert leaf.shape == (size, *np.shape(SOLUTION[name]))
        assert leaf.dtype == np.float32
        if not samples(strategy):
            assert np.array_equal(leaf, np.broadcast_to(SOLUTION[name], leaf.shape))
            assert not np.any(std[name])
            continue
        # Members may be unperturbed: a baseline, or the initial solution as the first of an initial population.
        moved = np.asarray(leaf)[np.any((np.asarray(leaf) != SOLUTION[name]).reshape(size, -1), axis=1)]
        assert len(moved) >= 2 * size // 3
        # Standard deviation of the sample standard deviation: 1/sqrt(2n); antithetic pairs count once. 5 sigma.
        np.testing.assert_allclose(moved.std(axis=0), std[name], rtol=5 / np.sqrt(2 * len(moved) / 2))
        # That of guided ES and its kin is the length of a perturbation.
        each = 0.25 / np.sqrt(7) if hasattr(strategy, "subspace_dims") and id != "self_guided_es" else 0.25
        np.testing.assert_allclose(initial_std[name], np.full(np.shape(SOLUTION[name]), each), rtol=1e-6)


def test_float64(programs, x64):
    key = jax.random.key(0)
    solution = jax.tree.map(lambda x: np.asarray(x, np.float64), SOLUTION)
    state = jax.eval_shape(programs.strategy.init, key, solution)
    _, told, outcome = jax.eval_shape(programs._generation, state, key, np.arange(SIZE, dtype=np.float64))
    assert {x.dtype for x in jax.tree.leaves(outcome)} == {np.dtype(np.float64)}
    assert signature(told) == signature(state)


def test_numpy_float64_solution_without_x64_becomes_float32(programs, key):
    strategy = programs.strategy
    state = jax.eval_shape(strategy.init, key, {"x": np.ones(3)})
    assert jax.eval_shape(strategy.mean, state)["x"].dtype == np.float32


def test_invalid_fitness_never_poisons_the_state(programs, state, key):
    finite = np.arange(SIZE, dtype=np.float32)
    for value in (np.nan, np.inf, -np.inf):
        for some in ([0], [2, 5], range(SIZE)):
            fitness = finite.copy()
            fitness[list(some)] = value
            _, told, outcome = programs.generation(state, key, fitness)
            assert is_finite(outcome), (value, some)
            _, _, outcome = programs.generation(told, key, finite)  # nor is the damage hidden in the state
            assert is_finite(outcome), (value, some)


def test_a_huge_penalty_never_freezes_the_search(programs, state, key):
    """Finite fitness that cannot be squared leaves the state finite, and later generations still move something."""
    finite = np.arange(SIZE, dtype=np.float32)
    for value in (5e18, 1e20, 1e30, -1e30, 3e38):
        fitness = finite.copy()
        fitness[[2, 5]] = value
        _, told, outcome_of_penalty = programs.generation(state, key, fitness)
        assert is_finite(outcome_of_penalty), value
        for i, k in enumerate(jax.random.split(key, 3)):
            _, later, outcome = programs.generation(told, k, finite - i - 1)
            assert is_finite(outcome), value
            assert not equal(later, told) or value < 0, value  # of a member so good no better one comes
            told = later
        if (
            hasattr(programs.strategy, "estimate") and samples(programs.strategy) and value > 1e19
        ):  # the other members are learned from
            assert not equal(outcome_of_penalty[0], programs.strategy.mean(state)), value
        if samples(programs.strategy) and value > 0:  # an optimizer's step is no smaller for it
            steps = []
            for start in (state, programs.generation(state, key, fitness)[1]):
                _, _, (mean, _) = programs.generation(start, jax.random.fold_in(key, 7), finite - 9)
                before = programs.strategy.mean(start)
                steps.append(max(np.abs(mean[name] - before[name]).max() for name in mean))
            assert steps[1] >= 0.05 * steps[0], (value, steps)


def test_debugging_nans_stops_at_none(programs, key):
    """With `jax_debug_nans`, JAX looks at all that a program returns, and so at the whole state."""
    strategy, (problem, solution) = programs.strategy, problem_and_solution("unrolled")
    finite, some = np.arange(SIZE, dtype=np.float32), np.arange(SIZE, dtype=np.float32)
    some[2] = np.inf
    with jax.debug_nans(True):
        state = programs.init(key, SOLUTION)
        for fitness in (finite, np.ones(SIZE, np.float32), some, finite):
            _, state, _ = programs.generation(state, key, fitness)
        jax.block_until_ready(state)
        loop = programs.start(strategy, problem, key, solution)
        jax.block_until_ready(programs.train(strategy, problem, loop, jax.random.split(key, 3)))


def test_nan_counts_as_the_worst(programs, state, key):
    worst, nan = np.arange(SIZE, dtype=np.float32), np.arange(SIZE, dtype=np.float32)
    worst[3], nan[3] = np.inf, np.nan
    assert equal(programs.generation(state, key, worst), programs.generation(state, key, nan))


def test_equal_fitness_keeps_the_state_finite(programs, state, key):
    for k in jax.random.split(key, 5):
        _, state, outcome = programs.generation(state, k, np.ones(SIZE, np.float32))
        assert is_finite(outcome)


def test_one_dimension_and_a_scalar_solution(id, key):
    """With a population far above the dimension, and also with equal fitness."""
    strategy = make(id, population_size=16 * SIZE)

    @jax.jit
    def train(slope):
        def body(state, k):
            return ask_tell(strategy, state, k, lambda x: slope * quadratic(x)), None

        state, _ = jax.lax.scan(body, strategy.init(key, 1.5), jax.random.split(key, 3))
        return strategy.mean(state), strategy.std(state)

    for slope in (1.0, 0.0):
        mean, std = train(slope)
        assert mean.shape == std.shape == ()
        assert is_finite((mean, std))


def test_default_population_size(id, key):
    strategy = zoo.make_strategy(id)
    state = jax.eval_shape(strategy.init, key, SOLUTION)
    population = jax.eval_shape(
        lambda key, state: materialize(strategy.ask(key, state, jax.grad(quadratic))[0]), key, state
    )
    size = strategy.for_solution(SOLUTION).population_size
    groups = strategy.for_solution(SOLUTION).groups
    assert len(groups.ids if isinstance(groups, zoo.Groups) else groups) == size
    assert {len(leaf) for leaf in jax.tree.leaves(population)} == {size}
    if hasattr(strategy, "base"):  # a wrapper without a size of its own has its base's
        strategy = strategy.replace(base=strategy.base.replace(population_size=None))
    opened = strategy.replace(population_size=None)
    assert opened.for_solution(SOLUTION).population_size >= 2
    with pytest.raises(ValueError, match="population_size is not set"):
        _ = opened.groups


# From here on nothing is compiled: what comes in is checked, and put in one form, before a strategy sees it.


@pytest.fixture
def population():
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (SIZE, *np.shape(x))), SOLUTION)


def test_bare_fitness_is_an_evaluation_that_is_done(programs, population, monkeypatch):
    strategy = programs.strategy
    monkeypatch.setattr(type(strategy), "_tell", lambda self, state, population, evaluation: evaluation)
    fitness = np.arange(SIZE, dtype=np.float32)
    evaluation = zoo.Evaluation(jnp.asarray(fitness), jnp.ones(SIZE, bool), jnp.asarray(SIZE, jnp.int32))
    whole = strategy.tell(None, population, evaluation)
    assert isinstance(whole, zoo.Evaluation)
    for bare in (fitness, jnp.asarray(fitness), fitness.astype(int), [*fitness]):
        told = strategy.tell(None, population, bare)
        assert signature(told) == signature(whole)
        assert equal(told, whole)


def test_wrong_fitness(programs, population):
    tell = functools.partial(programs.strategy.tell, None, population)
    for fitness in (np.ones(SIZE - 1), np.ones((SIZE, 1)), np.float32(1.0), np.ones(0)):
        with pytest.raises(ValueError, match=rf"expects fitness of shape \({SIZE},\)"):
            tell(fitness)
    with pytest.raises(TypeError, match="expects fitness values that are real numbers"):
        tell({"a": 1})


def test_wrong_solution(programs, key):
    init = functools.partial(programs.strategy.init, key)
    for empty in ({}, (), [], {"a": {}}):
        with pytest.raises(ValueError, match="empty pytree"):
            init(empty)
    with pytest.raises(ValueError, match="no entries"):
        init(np.zeros((0, 3)))
    for leaf in (np.arange(3), 3, "three", True, np.ones(2, complex)):
        with pytest.raises(TypeError, match=r"floating-point arrays, but \['n'\] is"):
            init({"n": leaf, "x": np.ones(2)})


def test_settings_are_checked(id, programs):
    strategy = programs.strategy
    checked = set()
    for field in dataclasses.fields(strategy):
        bounds = field.metadata.get("zoo_bounds", {})
        if not bounds.get("number"):
            continue
        with pytest.raises(TypeError, match=f"{field.name} must be a number"):
            make(id, **{field.name: "big"})
        for bound, words in (("above", "greater than"), ("at_least", "at least")):
            if bounds.get(bound) is not None:
                low = bounds[bound] - 1
                with pytest.raises(ValueError, match=f"{field.name} must be {words} {low + 1:g}, got {low:g}"):
                    make(id, **{field.name: low})
                checked.add(field.name)
    assert checked & {"sigma", "learning_rate"} or hasattr(strategy, "base")
    with pytest.raises(ValueError, match="population_size must be at least"):
        make(id, population_size=0)
    with pytest.raises(TypeError, match="population_size must be a whole number"):
        make(id, population_size=8.5)
