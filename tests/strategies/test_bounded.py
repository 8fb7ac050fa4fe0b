"""Bounds: never violated, repaired as by hand, equal to the base if infinite, and visible to base and fitness."""

from typing import Any, NamedTuple

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.the_loop import is_finite

SIZE = 6
SOLUTION = {"w": jnp.linspace(-0.5, 0.5, 3), "b": jnp.asarray(0.25)}
FEW = hypothesis.settings(max_examples=40, deadline=None, derandomize=True)


class SpyState(NamedTuple):
    mean: Any
    population: Any
    fitness: Any
    gradient: Any


class Spy(zoo.Strategy):
    """Samples what it is given, and remembers what it is told."""

    population_size: int | None = zoo.static(default=SIZE)
    samples: Any = zoo.leaf()
    next_mean: Any = zoo.leaf(default=None)
    scale: float = zoo.number(default=0.5)

    def mean(self, state):
        return state.mean

    def std(self, state):
        return jax.tree.map(lambda x: jnp.full_like(x, self.scale), state.mean)

    def _init(self, key, solution):
        return SpyState(solution, self.samples, jnp.zeros(SIZE), solution)

    def _ask(self, key, state, surrogate):
        return self.samples, state if surrogate is None else state._replace(gradient=surrogate(state.mean))

    def _tell(self, state, population, evaluation):
        mean = state.mean if self.next_mean is None else self.next_mean
        return state._replace(mean=mean, population=population, fitness=evaluation.fitness)


def bounded(base, **settings):
    return zoo.make_strategy("bounded", base=base, **settings)


def fold(x, lower, upper):
    """Mirrors at the bound that is passed, one reflection at a time, until the number lies within the bounds."""
    while not lower <= x <= upper:
        x = 2 * lower - x if x < lower else 2 * upper - x
    return x


@jax.jit
def repaired(strategy, solution):
    key = jax.random.key(0)
    return strategy.ask(key, strategy.init(key, solution))[0]


# No subnormal numbers, because XLA treats them as zero.
number = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False) | st.floats(
    -8, 8, width=32, allow_subnormal=False
)
infinite = st.sampled_from([np.inf, -np.inf])


@FEW
@hypothesis.given(
    bounds=st.lists(number | infinite, min_size=2, max_size=2, unique=True),
    samples=st.lists(number | infinite, min_size=SIZE, max_size=SIZE),
    repair=st.sampled_from(["reflect", "clip"]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_no_bound_is_ever_violated(bounds, samples, repair, dtype):
    lower, upper = map(dtype, sorted(bounds))
    hypothesis.assume(lower < upper and lower < np.inf and upper > -np.inf)
    with jax.enable_x64(dtype == np.float64):
        samples = np.asarray(samples, dtype)
        base = Spy(samples={"x": samples})
        inside = np.clip(np.zeros((), dtype), lower, upper)
        population = repaired(bounded(base, lower=lower, upper=upper, repair=repair), {"x": inside})["x"]
        assert population.dtype == dtype
        population = np.asarray(population)
    assert np.all((population >= lower) & (population <= upper))
    is_inside = (samples >= lower) & (samples <= upper)
    assert np.array_equal(population[is_inside], samples[is_inside])
    if repair == "clip":
        assert np.array_equal(population, np.clip(samples, lower, upper))


@FEW
@hypothesis.given(
    lower=st.floats(-3, 3) | st.just(-np.inf),
    width=st.floats(0.1, 10) | st.just(np.inf),
    samples=st.lists(st.floats(-50, 50), min_size=SIZE, max_size=SIZE),
)
def test_reflection_is_that_by_hand(lower, width, samples):
    upper = 2.0 if lower == -np.inf else lower + width  # one-sided bounds as well
    with jax.enable_x64(True):
        base = Spy(samples={"x": np.asarray(samples)})
        inside = np.clip(0.0, lower, upper)
        population = repaired(bounded(base, lower=lower, upper=upper), {"x": np.asarray(inside)})["x"]
        np.testing.assert_allclose(population, [fold(x, lower, upper) for x in samples], rtol=1e-12, atol=1e-12)


@jax.jit
def run(strategy, solution, target, keys):
    """Runs generations on a shifted sphere. Returns the state, and the smallest and largest entry of all members."""

    def generation(state, key):
        population, state = strategy.ask(key, state)
        fitness = zoo.map_members(lambda x: sum(jnp.sum((x[n] - target[n]) ** 2) for n in x), population)
        entries = jnp.concatenate([x.ravel() for x in jax.tree.leaves(population)])
        state = strategy.tell(state, population, fitness)
        return state, (entries.min(), entries.max(), strategy.mean(state))

    state, (least, largest, means) = jax.lax.scan(generation, strategy.init(keys[0], solution), keys)
    return state, (least.min(), largest.max()), means


@pytest.mark.parametrize("repair", ["reflect", "clip"])
@pytest.mark.parametrize("base", ["open_es", "snes", "cma_es"])
@hypothesis.settings(max_examples=8, deadline=None, derandomize=True)
@hypothesis.given(
    center=st.floats(-10, 10), width=st.floats(1e-3, 10), sigma=st.floats(1e-3, 100), seed=st.integers(0, 99)
)
def test_members_and_mean_stay_within(base, repair, center, width, sigma, seed):
    lower, upper = np.float32(center), np.float32(center + width)
    settings = {"lower": float(lower), "upper": float(upper), "repair": repair, "population_size": SIZE}
    strategy = bounded({"id": base, "sigma": sigma}, **settings)
    solution = jax.tree.map(lambda x: jnp.full_like(x, (lower + upper) / 2), SOLUTION)
    target = jax.tree.map(lambda x: x + 2 * width, solution)
    state, (least, largest), means = run(strategy, solution, target, jax.random.split(jax.random.key(seed), 10))
    assert lower <= least <= largest <= upper
    assert all(np.all((x >= lower) & (x <= upper)) for x in jax.tree.leaves((means, state.base.mean)))
    assert is_finite(state)


@pytest.mark.parametrize("repair", ["reflect", "clip"])
@pytest.mark.parametrize(
    "base",
    [
        "cma_es",
        "sep_cma_es",
        {"id": "snes", "sigma": 0.3},
        {"id": "open_es", "population_size": 32, "learning_rate": 0.03},
    ],
)
def test_finds_the_optimum_on_the_boundary(base, repair):
    """On a sphere, the search finds the projection of the centre onto the box. Some of the bounds are inactive."""
    strategy = bounded(base, lower={"w": np.array([-1.0, -np.inf, -1.0]), "b": -1.0}, upper=1.0, repair=repair)
    target = {"w": jnp.array([3.0, -3.0, 0.4]), "b": jnp.asarray(-1.5)}
    keys = jax.random.split(jax.random.key(0), (3, 300))
    states, _, means = jax.vmap(run, in_axes=(None, None, None, 0))(strategy, SOLUTION, target, keys)
    for name, expected in {"w": [1.0, -3.0, 0.4], "b": -1.0}.items():
        np.testing.assert_allclose(means[name][:, -20:].mean(axis=1), [expected] * 3, atol=0.05)
        np.testing.assert_allclose(states.base.mean[name], [expected] * 3, atol=0.1)  # it has not drifted away


@pytest.mark.parametrize("id", ["open_es", "pgpe"])
def test_repaired_pairs_count_by_where_they_lie(id, x64):
    """The estimate is the covariance of shaped fitness and members.

    For symmetric pairs this equals their difference.
    """
    strategy = zoo.make_strategy(id, population_size=6, shaping="centered_ranks", sigma=0.5)
    mean, fitness = np.array([0.1, -0.4]), np.array([3.0, 1.0, 2.0, 0.0, 5.0, 4.0])
    state = strategy.init(jax.random.key(0), mean)
    population, state = strategy.ask(jax.random.key(1), state)
    ranks = fitness / 5 - 0.5
    mirrored = np.stack([np.abs(population[:, 0]), population[:, 1]], axis=1)
    for members, repaired in ((population, None), (population, np.zeros(6, bool)), (mirrored, np.ones(6, bool))):
        evaluation = zoo.Evaluation.of(fitness, 6)._replace(repaired=repaired)
        expected = (ranks - ranks.mean()) @ (np.asarray(members) - mean) / (6 * 0.5**2)
        np.testing.assert_allclose(strategy.estimate(state, members, evaluation), expected, rtol=1e-9)


@pytest.mark.parametrize("base", ["open_es", "pgpe"])
def test_pairs_around_a_start_on_a_bound_differ(base):
    """A start on a bound is moved inside, because a reflected pair would be one point and the search would not move."""
    base = {"id": base, "sigma": 0.2, "learning_rate": 0.05}
    strategy = bounded(base, lower={"w": np.array([0.0, 0.0, -2.0]), "b": 0.0}, upper=1.0, population_size=SIZE)
    solution = {"w": jnp.array([0.0, 1.0, -0.5]), "b": jnp.asarray(0.0)}
    start = strategy.mean(strategy.init(jax.random.key(0), solution))
    np.testing.assert_allclose(start["w"], [0.1, 0.9, -0.5], rtol=1e-6)
    assert start["b"] == pytest.approx(0.1)
    target = jax.tree.map(lambda x: jnp.full_like(x, 0.5), solution)
    _, _, means = run(strategy, solution, target, jax.random.split(jax.random.key(0), 300))
    for mean in jax.tree.leaves(means):
        np.testing.assert_allclose(mean[-20:].mean(axis=0), np.full(mean.shape[1:], 0.5), atol=0.1)
    clips = bounded(base, lower=0.0, repair="clip", population_size=SIZE)
    assert clips.mean(clips.init(jax.random.key(0), jnp.zeros(2))).tolist() == [0.0, 0.0]
    ranks = bounded("snes", lower=0.0, population_size=SIZE)
    assert ranks.mean(ranks.init(jax.random.key(0), jnp.zeros(2))).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("repair", ["reflect", "clip"])
@pytest.mark.parametrize("base", ["open_es", "snes", "cma_es", "random_search"])
def test_without_bounds_it_is_the_base(base, repair):
    """Without bounds, results equal the base bit for bit when run operation by operation.

    (In a compiled program, a multiplication and an addition may become one operation.)
    """
    alone = zoo.make_strategy(base, population_size=SIZE)
    wrapped = bounded(alone, repair=repair)
    states = [strategy.init(jax.random.key(0), SOLUTION) for strategy in (alone, wrapped)]
    for key in jax.random.split(jax.random.key(1), 3):
        populations, told = [], []
        for strategy, state in zip((alone, wrapped), states, strict=True):
            population, asked = strategy.ask(key, state)
            populations.append(population)
            told.append(strategy.tell(asked, population, np.cos(10 * np.asarray(population["b"]))))
        states = told
        pairs = zip(*map(jax.tree.leaves, (populations[0], populations[1])), strict=True)
        assert all(np.array_equal(*pair) for pair in pairs)
        pairs = zip(*map(jax.tree.leaves, (states[0], states[1].base)), strict=True)
        assert all(np.array_equal(*pair) for pair in pairs)
    assert all(
        map(np.array_equal, *(jax.tree.leaves(s.mean(x)) for s, x in zip((alone, wrapped), states, strict=True)))
    )


def test_the_evaluated_point_enters_the_update(key):
    samples = {"w": np.linspace(-3, 3, 3 * SIZE, dtype=np.float32).reshape(SIZE, 3), "b": np.zeros(SIZE, np.float32)}
    outside = {"w": np.array([2.0, 0, -2], np.float32), "b": np.float32(0)}
    for repair, mean in {"reflect": [0.0, 0, 0], "clip": [1, 0, -1]}.items():
        strategy = bounded(Spy(samples=samples, next_mean=outside), lower=-1.0, upper=1.0, repair=repair)
        population, state = strategy.ask(key, strategy.init(key, SOLUTION), jax.grad(lambda x: jnp.sum(x["w"] ** 2)))
        assert np.max(np.abs(population["w"])) <= 1
        told = strategy.tell(state, population, np.arange(SIZE))
        assert all(map(np.array_equal, jax.tree.leaves(told.base.population), jax.tree.leaves(population)))
        # The mean is repaired as well, and the surrogate gradient is taken at the repaired point.
        assert np.array_equal(told.base.mean["w"], mean)
        _, asked = strategy.ask(
            key,
            told._replace(base=told.base._replace(mean=outside)),
            lambda x: jax.tree.map(lambda y: 10 * y, x),
        )
        np.testing.assert_array_equal(asked.base.gradient["w"], 10 * np.asarray(mean))


def penalised(fitness, samples, penalty):
    """Computes the documented penalty in NumPy, for the box [-1, 1], standard deviation 0.5 and 4 parameters."""
    distance = [np.sum(((x - np.clip(x, -1, 1)) / 0.5) ** 2) / 4 for x in samples]
    finite = np.where(np.isnan(fitness), np.inf, fitness)
    finite = np.clip(finite, None, np.max(finite[np.isfinite(finite)]))
    spread = np.quantile(finite, 0.75) - np.quantile(finite, 0.25) or np.ptp(finite)
    return fitness + penalty * spread * np.array(distance)


def test_penalty_is_the_documented_one(key):
    samples = np.random.default_rng(0).normal(size=(SIZE, 4)).astype(np.float32) * 2
    samples[1] /= 10  # inside the box
    base = Spy(samples={"w": samples[:, :3], "b": samples[:, 3]})

    @jax.jit
    def told(fitness, penalty):
        strategy = bounded(base, lower=-1.0, upper=1.0, repair="clip", penalty=penalty)
        population, state = strategy.ask(key, strategy.init(key, SOLUTION))
        return strategy.tell(state, population, fitness).base.fitness

    fitness = np.array([3.0, -1.0, 0.5, 2.0, 7.0, 0.1], np.float32)
    expected = penalised(fitness, samples, 1.5)
    np.testing.assert_allclose(told(fitness, 1.5), expected, rtol=1e-5)
    np.testing.assert_allclose(told(1e6 * fitness + 1e6, 1.5), 1e6 * expected + 1e6, rtol=1e-5)
    assert told(fitness, 1.5)[1] == fitness[1]
    assert np.array_equal(told(fitness, 0.0), fitness)
    mostly_equal = np.array([1.0, 1, 1, 1, 1, 3], np.float32)  # the interquartile range is zero
    np.testing.assert_allclose(told(mostly_equal, 1.5), penalised(mostly_equal, samples, 1.5), rtol=1e-5)
    for same in (np.ones(SIZE), np.full(SIZE, np.nan), np.full(SIZE, np.inf), np.full(SIZE, -np.inf)):
        assert np.array_equal(told(same.astype(np.float32), 1.5), np.where(np.isnan(same), np.inf, same))
    bad = np.array([np.nan, 1.0, np.inf, 2.0, 3.0, 5.0], np.float32)
    expected = penalised(bad, samples, 1.5)
    np.testing.assert_allclose(told(bad, 1.5), np.where(np.isnan(expected), np.inf, expected), rtol=1e-5)


def test_penalty_of_what_is_infinitely_far_away_is_no_nan(key):
    samples = {"x": np.array([np.inf, -np.inf, 1e30, 0, 0, 0.5], np.float32)}
    for scale in (0.0, 1e-30, 1.0):
        for penalty in (0.0, 2.0):
            base = Spy(samples=samples, scale=scale)
            strategy = bounded(base, lower=-1, upper=1, repair="clip", penalty=penalty)
            population, state = strategy.ask(key, strategy.init(key, {"x": 0.0}))
            fitness = strategy.tell(state, population, np.arange(SIZE)).base.fitness
            assert not np.any(np.isnan(fitness))
            assert np.array_equal(fitness[3:], [3, 4, 5])


def test_sweeps_over_bounds_in_one_program(key):
    traces = []

    @jax.jit
    @jax.vmap
    def population(strategy):
        traces.append(1)
        return strategy.ask(key, strategy.init(key, SOLUTION))[0]

    def swept(width):
        return bounded("snes", lower=-width, upper={"w": width, "b": np.float32(width)}, population_size=SIZE)

    for widths in ((0.5, 1), (2, 3.0)):  # whole numbers are allowed
        stacked = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(y, float) for y in x]), *map(swept, widths))
        largest = np.max(
            np.abs(population(stacked.replace(base=stacked.base.replace(sigma=jnp.full(2, 9.0))))["w"]), (1, 2)
        )
        assert np.all(largest <= widths)
        assert np.all(largest > 0.8 * np.array(widths))
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"repair": "wrap"}, ValueError, "repair must be 'reflect' or 'clip', got 'wrap'"),
        ({"penalty": -1}, ValueError, "penalty must be at least 0"),
        (
            {"lower": 1, "upper": 1},
            ValueError,
            "lower must be below Bounded.upper, got 1 and 1. To keep an entry fixed",
        ),
        ({"lower": np.nan}, ValueError, "lower must be a number, got nan"),
        ({"lower": 0, "upper": {"w": np.array([1, -2.0])}}, ValueError, "got 0 and -2 in w"),
        ({"base": "pes"}, TypeError, "Bounded cannot wrap PES.*open_es"),
        ({"base": {"id": "frozen", "base": "nres"}}, TypeError, "Bounded cannot wrap Frozen"),
    ],
)
def test_wrong_settings(settings, error, message):
    with pytest.raises(error, match=message):
        zoo.make_strategy("bounded", **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"lower": {"w": 0.0}},
            r"Bounded.lower must have the structure of the solution: expected shape \(\) in b, got only w\.",
        ),
        ({"upper": np.ones(3)}, "Bounded.upper must have the structure"),
        ({"upper": {"w": np.ones(2), "b": 1.0}}, r"Bounded.upper .* expected shape \(3,\) in w, got \(2,\)"),
        ({"upper": {"w": np.ones((1, 3)), "b": 1.0}}, r"expected shape \(3,\) in w, got \(1, 3\)"),
        ({"upper": 0.3}, r"but w has an entry 0.5 outside \[-inf, 0.3\]"),
        ({"lower": {"w": -1.0, "b": 0.3}}, r"but b has an entry 0.25 outside \[0.3, inf\]"),
    ],
)
def test_bounds_that_do_not_fit_the_solution(settings, message, key):
    strategy = zoo.make_strategy("bounded", **settings)
    with pytest.raises(ValueError, match=message):
        strategy.init(key, SOLUTION)


def test_traced_solution_outside_is_clipped(key):
    strategy = bounded("snes", upper=0.3)
    mean = jax.jit(lambda x: strategy.mean(strategy.init(key, x)))(SOLUTION)
    np.testing.assert_allclose(mean["w"], [-0.5, 0, 0.3], atol=1e-7)


@pytest.mark.parametrize("upper", [1.0, np.inf])
def test_nothing_is_computed_that_is_no_number(upper):
    """No NaN is computed, even where it would not be used: `jax_debug_nans` would end a loop that is not compiled."""
    strategy = bounded("snes", upper=upper)
    with jax.debug_nans(True):
        jax.block_until_ready(strategy._repair(jax.tree.map(lambda x: 3 * x, SOLUTION)))
