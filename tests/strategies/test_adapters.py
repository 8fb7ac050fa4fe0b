"""Adapters to other libraries do the same arithmetic as the libraries, and run in a benchmark beside es-zoo."""

import importlib
import sys

import cma
import evosax.algorithms
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo
from tests.the_loop import is_finite, signature
from zoo.core.promotion import promotion_of_others
from zoo.strategies.adapters.evosax import EvosaxStrategy
from zoo.strategies.adapters.peers import finite_in_order
from zoo.strategies.adapters.pycma import PyCMA

SOLUTION = {"w": np.linspace(-1, 1, 3, dtype=np.float32), "b": np.float32(0.5)}
SHAPES = {name: (leaf.shape, np.dtype(np.float32)) for name, leaf in SOLUTION.items()}
SIZE = 8
# One algorithm for each thing that the adapter does is compiled and run. The others are only traced, which finds most
# mistakes.
RUN = ("CMA_ES", "GuidedES", "PersistentES", "RandomSearch", "SNES", "SV_Open_ES", "MR15_GA", "PSO", "SimpleGA")


def quadratic(x):
    return sum(jnp.sum((leaf - 0.25) ** 2) for leaf in jax.tree.leaves(x))


@pytest.fixture
def without(monkeypatch):
    """Makes a package look as if it were not installed."""

    def remove(package):
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        find = importlib.import_module

        def import_module(name, *args):
            if name.partition(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)
            return find(name, *args)

        monkeypatch.setattr(importlib, "import_module", import_module)

    return remove


def train(strategy, key, num_generations=3):
    """Runs the usual loop. One member of the second generation and every member of the third cannot be evaluated."""

    def generation(state, inputs):
        k, invalid = inputs
        population, state = strategy.ask(k, state, jax.grad(quadratic))
        fitness = jnp.where(invalid, jnp.nan, zoo.map_members(quadratic, population))
        return strategy.tell(state, population, fitness), population

    invalid = np.zeros((num_generations, SIZE), bool)
    invalid[1, 2] = invalid[2] = True
    state = strategy.init(key, SOLUTION)
    state, populations = jax.lax.scan(generation, state, (jax.random.split(key, num_generations), invalid))
    return state, populations, strategy.mean(state), strategy.std(state)


@pytest.mark.parametrize("name", evosax.algorithms.algorithms)
def test_every_evosax_algorithm_runs_in_the_unchanged_loop(name, key):
    strategy = zoo.make_strategy(f"evosax/{name}", population_size=SIZE, sigma=0.3)
    assert strategy.for_solution(SOLUTION).population_size == SIZE
    assert strategy.replace(population_size=None).for_solution(SOLUTION).population_size % 2 == 0
    if name not in RUN:
        _, populations, mean, std = jax.eval_shape(lambda k: train(strategy, k), key)
    else:
        _, populations, mean, std = jax.jit(lambda k: train(strategy, k))(key)
        assert is_finite((populations, mean, std))
        assert all(np.all(x > 0) for x in jax.tree.leaves(std))
        assert quadratic(mean) < 1.1 * quadratic(SOLUTION)
        spread = np.std(np.asarray(populations["w"][0]) - SOLUTION["w"])  # standard deviation of 24 numbers
        assert 0.1 < spread < 0.6
    for tree in (mean, std):
        assert {name: (leaf.shape, leaf.dtype) for name, leaf in tree.items()} == SHAPES
    assert populations["w"].shape == (3, SIZE, 3)


def test_evosax_distribution_is_evosaxs_own(key):
    """PGPE equals evosax called by hand, with another optimizer, sigma and parameter."""
    settings = {"population_size": SIZE, "sigma": 0.4, "learning_rate": 0.05, "params": {"std_lr": 0.2}}
    strategy = EvosaxStrategy(algorithm="PGPE", **settings)
    solution, keys = np.linspace(-1, 1, 4, dtype=np.float32), jax.random.split(key, 4)
    direct = evosax.algorithms.PGPE(population_size=SIZE, solution=solution, optimizer=optax.adam(0.05))
    their_init, their_ask, their_tell = map(promotion_of_others(), (direct.init, direct.ask, direct.tell))
    params = direct.default_params.replace(std_init=0.4, std_lr=0.2)
    expected = their_init(jax.random.split(key, 3)[0], solution, params)
    state, ask, tell = strategy.init(key, solution), jax.jit(strategy.ask), jax.jit(strategy.tell)
    for k in keys:
        key_ask, key_tell = jax.random.split(k)
        own, expected = their_ask(key_ask, expected, params)
        population, state = ask(k, state)
        np.testing.assert_allclose(population, own, rtol=1e-6)
        fitness = np.sum(np.asarray(own) ** 2, axis=1)
        expected, _ = their_tell(key_tell, own, fitness, expected, params)
        state = tell(state, population, fitness)
        np.testing.assert_allclose(strategy.mean(state), direct.get_mean(expected), rtol=1e-5)
        np.testing.assert_allclose(strategy.std(state), expected.std, rtol=1e-5)


def test_evosax_population_is_evosaxs_own(key):
    """Differential evolution equals evosax called by hand from the adapter's initial population."""
    strategy = EvosaxStrategy(algorithm="DifferentialEvolution", population_size=SIZE, sigma=0.4)
    solution, (first, *keys) = np.linspace(-1, 1, 4, dtype=np.float32), jax.random.split(key, 4)
    direct = evosax.algorithms.DifferentialEvolution(population_size=SIZE, solution=solution)
    their_init, their_ask, their_tell = map(promotion_of_others(), (direct.init, direct.ask, direct.tell))
    params = direct.default_params
    ask, tell = jax.jit(strategy.ask), jax.jit(strategy.tell)
    state = strategy.init(key, solution)
    np.testing.assert_allclose(strategy.std(state), 0.4, rtol=1e-6)
    np.testing.assert_array_equal(strategy.mean(state), solution)
    own, state = ask(first, state)
    np.testing.assert_array_equal(own[0], solution)
    fitness = np.sum(np.asarray(own) ** 2, axis=1)
    expected = their_init(jax.random.split(first)[1], own, fitness, params)
    state = tell(state, own, fitness)
    for k in keys:
        key_ask, key_tell = jax.random.split(k)
        own, expected = their_ask(key_ask, expected, params)
        population, state = ask(k, state)
        np.testing.assert_allclose(population, own, rtol=1e-6)
        fitness = np.sum(np.asarray(own) ** 2, axis=1)
        expected, _ = their_tell(key_tell, own, fitness, expected, params)
        state = tell(state, population, fitness)
        np.testing.assert_allclose(strategy.mean(state), expected.best_solution, rtol=1e-6)
        np.testing.assert_allclose(strategy.std(state), np.std(expected.population, axis=0), rtol=1e-5)


def test_evosax_settings(key):
    problem = zoo.from_function(quadratic, SOLUTION)
    suggest = {"sigma": 0.7, "learning_rate": 0.3}
    complete = zoo.registry.complete_settings
    assert complete("evosax/Open_ES", {}, suggest, SOLUTION) == suggest
    assert complete("evosax/SNES", {}, suggest, SOLUTION) == {"sigma": 0.7}  # 0.3 is small for a natural step
    assert complete("evosax/CMA_ES", {}, suggest, SOLUTION) == {"sigma": 0.7}
    options = {"optimizer": optax.sgd(1.0)}
    assert "learning_rate" not in complete("evosax/Open_ES", {"options": options}, suggest, SOLUTION)
    with pytest.raises(ValueError, match="CMA_ES has no optimizer"):
        zoo.make_strategy("evosax/CMA_ES", learning_rate=0.1)
    with pytest.raises(ValueError, match="has no parameter 'speed'; its Params are "):
        zoo.make_strategy("evosax/CMA_ES", problem=problem, params={"speed": 1.0}).init(key, SOLUTION)
    for name, size in (("Open_ES", 7), ("ESMC", 7), ("SV_CMA_ES", 9)):
        strategy = zoo.make_strategy(f"evosax/{name}", population_size=size)
        with pytest.raises(ValueError, match=f"evosax/{name} .*population_size"):
            strategy.ask(key, strategy.init(key, SOLUTION))
    with pytest.raises(ValueError, match="'evosax/CMA_ES'"):
        zoo.make_strategy("evosax/CMAES")
    strategy = zoo.make_strategy("evosax/GuidedES", population_size=SIZE)
    state = strategy.init(key, SOLUTION)
    with pytest.raises(TypeError, match="needs a surrogate gradient"):
        strategy.ask(key, state)


@pytest.mark.parametrize(("package", "id"), [("evosax", "evosax/CMA_ES"), ("cma", "pycma")])
def test_a_peer_that_is_not_installed(package, id, without, key):
    without(package)
    assert not [known for known in zoo.list_strategies() if known.startswith("evosax/")] or package != "evosax"
    with pytest.raises(ModuleNotFoundError, match=r"is not installed: pip install es-zoo\[peers\]"):
        zoo.make_strategy(id).init(key, np.zeros(13))


def test_pycma_is_pycmas_own(x64):
    """A run equals pycma called by hand with the same seeds, to the last bit.

    NumPy's global generator does not change.
    """
    key, start, size = jax.random.key(3), np.linspace(-1, 1, 4), 7
    strategy = PyCMA(population_size=size, sigma=0.4, options={"CMA_active": False})
    state, ask, tell = jax.jit(strategy.init)(key, start), jax.jit(strategy.ask), jax.jit(strategy.tell)
    keys, populations, fitness, means, stds = jax.random.split(key, 6), [], [], [], [strategy.std(state)]
    before = np.random.get_state()  # noqa: NPY002
    for k in keys:
        population, state = ask(k, state)
        populations.append(population)
        fitness.append(np.sum(np.arange(1, 5) * np.asarray(population) ** 2, axis=1))
        state = tell(state, population, fitness[-1])
        means.append(strategy.mean(state))
        stds.append(strategy.std(state))
    assert all(map(np.array_equal, before, np.random.get_state()))  # noqa: NPY002

    options = {"popsize": size, "seed": np.nan, "verbose": -9, "CMA_active": False}
    direct = cma.CMAEvolutionStrategy(start, 0.4, options)
    np.testing.assert_array_equal(stds.pop(0), direct.stds)
    for k, population, f, mean, std in zip(keys, populations, fitness, means, stds, strict=True):
        np.random.seed(int(jax.random.bits(k, dtype=jnp.uint32)))  # noqa: NPY002
        own = direct.ask()
        np.testing.assert_array_equal(population, own)
        direct.tell(own, list(f))
        np.testing.assert_array_equal(mean, direct.mean)
        np.testing.assert_array_equal(std, direct.stds)


def test_pycma_in_single_precision_takes_its_own_samples(key):
    """Samples that were only rounded are told to pycma as drawn. Samples that were changed are told as changed."""
    strategy = PyCMA(population_size=6)
    asked, state = strategy.ask(key, strategy.init(key, SOLUTION))
    fitness = np.array([1.0, np.nan, 3.0, np.inf, -np.inf, 2.0])
    told = strategy.tell(state, asked, fitness)
    assert is_finite((strategy.mean(told), strategy.std(told)))
    moved = strategy.tell(state, jax.tree.map(lambda x: x + 1, asked), fitness)
    assert not np.array_equal(moved.mean["w"], told.mean["w"])
    nothing = strategy.tell(state, asked, np.full(6, np.nan))
    assert all(map(np.array_equal, jax.tree.leaves(strategy.mean(nothing)), jax.tree.leaves(SOLUTION)))
    assert signature(told) == signature(state)


@pytest.mark.parametrize("id", ["pycma", "evosax/SNES"])
def test_a_member_that_could_not_be_evaluated_ranks_behind_all_others(id, key):
    """NaN and infinite fitness count like finite numbers of the same order, because both strategies use ranks."""
    strategy = zoo.make_strategy(id, population_size=6)

    @jax.jit
    def tell(state, members, fitness):
        state = strategy.tell(state, members, fitness)
        return strategy.mean(state), strategy.std(state)

    asked, state = strategy.ask(key, strategy.init(key, SOLUTION))
    numbers, odd = [4.0, 7.0, 6.0, 1.0, 5.0, -2.0], [4.0, np.nan, 6.0, 1.0, 5.0, -np.inf]
    expected, told = (tell(state, asked, np.array(fitness, np.float32)) for fitness in (numbers, odd))
    assert all(map(np.array_equal, jax.tree.leaves(told), jax.tree.leaves(expected)))


def test_the_best_member_has_the_lowest_fitness_also_if_it_is_infinite(key):
    strategy = zoo.make_strategy("evosax/RandomSearch", population_size=4)
    state = strategy.init(key, SOLUTION)
    asked, state = strategy.ask(key, state)
    state = strategy.tell(state, asked, np.array([2.0, 1.0, -np.inf, np.nan]))
    assert all(
        np.array_equal(best, x[2]) for best, x in zip(*map(jax.tree.leaves, (state.best_solution, asked)), strict=True)
    )


@pytest.mark.parametrize(
    ("fitness", "order"),
    [
        ([0.0, np.inf, -np.inf], [2, 0, 1]),
        ([3e38, np.inf, -3e38], [2, 0, 1]),
        ([-1e-38, np.inf, -np.inf], [2, 0, 1]),
        ([np.inf, -np.inf, np.inf], [1, 0, 2]),
    ],
)
def test_finite_fitness_in_the_same_order(fitness, order):
    result = np.asarray(finite_in_order(jnp.array(fitness, jnp.float32)))
    assert np.isfinite(result).all()
    assert list(np.argsort(result, stable=True)) == order
    assert len(set(result.tolist())) == len(set(fitness))


def test_pycma_settings(key, monkeypatch):
    for name in ("popsize", "seed", "bounds"):
        with pytest.raises(ValueError, match=f"must not have '{name}'"):
            PyCMA(options={name: 1})
    with pytest.raises(ValueError, match="at least 3, got 2"):
        PyCMA(population_size=2)
    monkeypatch.setattr("zoo.strategies.adapters.pycma._capacity", lambda *args: 1000)
    with pytest.raises(Exception, match="state was made for 1000"):
        PyCMA().init(key, np.zeros(2))


def test_one_benchmark_of_the_zoo_and_its_peers(tmp_path):
    ids = ["cma_es", "evosax/CMA_ES", "pycma"]
    arguments = {"num_seeds": 2, "num_steps": 200, "num_scores": 1, "progress": False, "out": tmp_path}
    settings = {"problem_settings": {"blackbox/sphere": {"num_dims": 3}}}
    results = zoo.benchmark(ids, ["blackbox/sphere"], **arguments, **settings)
    assert len(results.failures) == 0
    curves = zoo.Results.load(tmp_path).curves
    assert set(curves.strategy) == set(ids)
    end = curves[curves.steps > 0]
    assert len(end) == 6
    assert np.all(end.value < 5)  # it starts at about 20


def test_pycma_resumes_from_a_checkpoint(tmp_path):
    problem = zoo.from_function(quadratic, SOLUTION)
    run = {"strategy": zoo.make_strategy("pycma", population_size=6), "problem": problem, "num_scores": 2}
    whole = zoo.run(**run, num_generations=4)
    zoo.run(**run, num_generations=4, checkpoint=tmp_path, callback=lambda progress: progress.generation == 2)
    resumed = zoo.run(**run, num_generations=4, checkpoint=tmp_path)
    assert resumed.num_generations == 4
    assert all(map(np.array_equal, jax.tree.leaves(resumed.mean), jax.tree.leaves(whole.mean)))
