"""Initial spreads for each parameter act as a scaling of the parameters, in every strategy that takes them."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.the_loop import IDS, tell
from zoo.core import spread_over
from zoo.core.population import materialize

SIZE = 6
SPREAD = {"w": jnp.array([0.01, 3.0, 20.0]), "b": 0.5}
MEAN = math.exp(np.mean(np.log([0.01, 3.0, 20.0, 0.5])))
START = {"w": jnp.array([1.0, -2.0, 3.0]), "b": jnp.asarray([0.7])}
HAVE_SPREADS = [
    "cma_es",
    "cr_fm_nes",
    "de",
    "lm_ma_es",
    "lra_cma_es",
    "ma_es",
    "one_plus_one_es",
    "pgpe",
    "pso",
    "pycma",
    "random_search",
    "sep_cma_es",
    "simple_ga",
    "snes",
    "xnes",
]


def make(id, sigma, **settings):
    if id == "pgpe":
        settings = {"learning_rate": 1.0, "optimizer": "sgd", **settings}  # adam's steps would not be scaled
    return zoo.make_strategy(id, population_size=SIZE, sigma=sigma, **settings)


def bowl(x):
    """A function whose values are far enough apart that rounding does not change ranks."""
    weights = jnp.array([1.0, 3.0, 7.0], x["w"].dtype)
    return jnp.sum((x["w"] - 1) ** 2 * weights) + jnp.sum(jnp.abs(x["b"] + 2))


def scaled(x, units):
    return jax.tree.map(jnp.multiply, x, units)


@functools.partial(jax.jit, static_argnames="num_generations")
def search(strategy, start, units, num_generations=8):
    """Searches f(units * x).

    Returns the first deviations, members, mean and last deviations, in units of `units * x`.
    """

    def generation(state, key):
        population, state = strategy.ask(key, state)
        population = materialize(population)
        shown = scaled(population, jax.tree.map(lambda u: u[None], units))
        return strategy.tell(state, population, zoo.map_members(bowl, shown)), shown

    state = strategy.init(jax.random.key(1), start)
    first = strategy.std(state)
    state, members = jax.lax.scan(generation, state, jax.random.split(jax.random.key(0), num_generations))
    return scaled(first, units), members, scaled(strategy.mean(state), units), scaled(strategy.std(state), units)


@pytest.mark.parametrize("id", HAVE_SPREADS)
def test_a_spread_is_a_scaling_of_the_parameters(id):
    """A search of f(x) with spread s equals a search of f(u x) with one step size from m / u, where s = sigma u."""
    spread = spread_over(SPREAD, START)
    units = jax.tree.map(lambda s: s / MEAN, spread)
    ones = jax.tree.map(jnp.ones_like, units)
    even = {"w": jnp.full(3, MEAN), "b": MEAN}  # for each parameter as well, so that both are one program
    found = search(make(id, SPREAD), START, ones)
    expected = search(make(id, even), jax.tree.map(jnp.divide, START, units), units)
    for name, s in spread.items():
        np.testing.assert_allclose(found[0][name], s, rtol=1e-4)
        for one, other in zip(found, expected, strict=True):
            one, other, s = (np.asarray(x) for x in (one[name], other[name], s))
            np.testing.assert_allclose(one / s, other / s, rtol=1e-3, atol=1e-3)


def test_a_list_is_the_spread_of_a_vector_and_one_number_may_be_an_array():
    strategy = zoo.make_strategy("snes", sigma=[0.1, 0.2])
    np.testing.assert_allclose(strategy.init(jax.random.key(0), jnp.zeros(2)).std, [0.1, 0.2])
    strategy = zoo.make_strategy("one_plus_one_es", sigma=jnp.array([0.1, 0.2, 0.4]))
    population, _ = strategy.ask(jax.random.key(0), strategy.init(jax.random.key(0), jnp.zeros(3)))
    assert population.shape == (1, 3)
    assert zoo.make_strategy("cma_es", sigma=jnp.asarray(0.1)).init(jax.random.key(0), jnp.zeros(2)).units is None


@pytest.mark.parametrize("id", [id for id in HAVE_SPREADS if id != "pycma"])
def test_a_spread_of_a_solution_in_half_precision(id):
    """The units of a half-precision solution are in single precision, because sums of many logarithms overflow half."""
    start, strategy = jax.tree.map(lambda x: x.astype(jnp.float16), START), make(id, SPREAD)
    ones = jax.tree.map(jnp.ones_like, start)
    assert {str(x.dtype) for x in jax.tree.leaves(jax.eval_shape(search, strategy, start, ones))} == {"float16"}
    state = jax.eval_shape(strategy.init, jax.random.key(0), start)
    units = [getattr(state, name, None) for name in ("sigma", "units", "variances", "std")]
    assert {str(x.dtype) for x in jax.tree.leaves(units)} <= {"float32"}
    if id in ("one_plus_one_es", "sep_cma_es", "cr_fm_nes", "snes"):
        start, spread = jnp.zeros(20_000, jnp.float16), jnp.full(20_000, 1e-3)
        std = jax.jit(lambda strategy: strategy.std(strategy.init(jax.random.key(0), start)))(make(id, spread))
        np.testing.assert_allclose(std, 1e-3, rtol=2e-3)


def test_restarts_and_masks_search_with_the_spread():
    spread = jnp.array([0.1, 10.0, 7.0])
    base = zoo.make_strategy("cma_es", sigma=spread)
    start = jnp.zeros(3)
    for wrapper in ("ipop", "bounded", "frozen"):
        strategy = zoo.make_strategy(wrapper, base=base).for_solution(start)
        np.testing.assert_allclose(strategy.std(strategy.init(jax.random.key(0), start)), spread, rtol=1e-5)
    masked = zoo.make_strategy("masked", base=base, mask=jnp.array([True, True, False]))
    state = masked.init(jax.random.key(0), start)
    np.testing.assert_allclose(state.base.sigma, 1.0, rtol=1e-6)  # the geometric mean over the searched parameters


@pytest.mark.parametrize(
    ("sigma", "error", "words"),
    [
        ({"w": 0.1}, ValueError, "must have the structure of the solution"),
        ({"w": jnp.ones(2), "b": 1.0}, ValueError, "must broadcast to the solution: expected shape (3,) in w"),
        (jnp.ones(3), ValueError, "must have the structure of the solution"),
    ],
)
@pytest.mark.parametrize("id", ["cma_es", "snes", "de"])
def test_a_spread_that_does_not_fit(id, sigma, error, words):
    strategy = make(id, sigma)
    with pytest.raises(error, match=re.escape(words)) as raised:
        jax.eval_shape(lambda: strategy.std(strategy.init(jax.random.key(0), START)))
    assert f"{type(strategy).__name__}.sigma" in str(raised.value)


@pytest.mark.parametrize("id", [id for id in [*IDS, "evosax/CMA_ES"] if id not in HAVE_SPREADS])
def test_others_have_one_number(id):
    """Other strategies take one number only, and their error says what to do instead."""
    if not hasattr(zoo.make_strategy(id), "sigma"):
        return
    with pytest.raises(TypeError, match="sigma must be a number"):
        zoo.make_strategy(id, sigma={"w": 0.1, "b": 0.2})
    strategy = zoo.make_strategy(id, sigma=jnp.ones(3))  # as for a sweep
    with pytest.raises(ValueError, match="sigma is one number, got an array of shape"):
        jax.eval_shape(strategy.init, jax.random.key(0), START)


def test_the_way_out_is_in_the_message():
    with pytest.raises(ValueError, match=r"let the problem scale the solution.* such as snes, pgpe or cma_es"):
        zoo.run(zoo.make_strategy("open_es", sigma=jnp.ones(10)), "blackbox/sphere", num_generations=1)


def test_cma_es_searches_as_pycma_does_with_its_stds(x64):
    """Told the same members, means equal pycma's. Deviations differ only by the damping of the step size."""
    cma = pytest.importorskip("cma")
    spread, start = np.array([1e-3, 1.0, 50.0, 0.2]), np.array([1.0, 2.0, 3.0, 4.0])
    sigma = float(np.exp(np.mean(np.log(spread))))
    options = {"CMA_stds": spread / sigma, "seed": 3, "verbose": -9, "popsize": 8}
    theirs = cma.CMAEvolutionStrategy(start, sigma, options)
    strategy = zoo.make_strategy("cma_es", population_size=8, sigma=spread)
    state = strategy.init(jax.random.key(0), start)
    for _ in range(3):
        members = np.array(theirs.ask())
        fitness = np.sum((members / spread - 1) ** 2 * np.arange(1, 5), axis=1)
        theirs.tell(list(members), list(fitness))
        state = tell(strategy, state, members, fitness)
        np.testing.assert_allclose(strategy.mean(state) / spread, theirs.mean / spread, rtol=1e-9)
        ratio = np.asarray(strategy.std(state)) / theirs.stds
        np.testing.assert_allclose(ratio, ratio.mean(), rtol=0.01)
        assert 0.9 < ratio.mean() < 1.1
