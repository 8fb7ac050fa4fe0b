"""Strategies that keep members: DE, PSO and the genetic algorithm against their definitions, in NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.the_loop import ask, init, is_finite, primitives_around, tell
from zoo.core.noise import uniform_like
from zoo.strategies.population import de
from zoo.strategies.population.de import DE
from zoo.strategies.population.pso import PSO
from zoo.strategies.population.simple_ga import SimpleGA

SOLUTION = {"b": np.float64(0.5), "w": np.array([[1.0, -2.0, 3.0]])}
D = 4


def flat(population):
    """Returns a population or solution as an array whose last axis holds the parameters."""
    b, w = np.asarray(population["b"]), np.asarray(population["w"])
    return np.concatenate([b[..., None], w.reshape(*b.shape, 3)], axis=-1)


def tree(array):
    return {"b": jnp.asarray(array[..., 0]), "w": jnp.asarray(array[..., None, 1:])}


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def ellipsoid(x):
    return jnp.sum(10 ** (3 * jnp.arange(x.size) / (x.size - 1)) * x**2)


def within(value, expected, variance, count, sigmas=5):
    """Returns whether a mean of `count` draws is as expected, within `sigmas` standard errors."""
    return abs(value - expected) < sigmas * np.sqrt(variance / count)


MUTANTS = {  # mutants of member x, from the best member and distinct other members
    "rand": lambda x, best, f, a, b, c: a + f * (b - c),
    "best": lambda x, best, f, b, c: best + f * (b - c),
    "current_to_best": lambda x, best, f, b, c: x + f * (best - x) + f * (b - c),
}


@pytest.mark.parametrize("mutation", MUTANTS)
def test_de_trials_are_crossed_with_a_mutant_of_distinct_members(mutation, x64):
    """Each trial fits exactly one choice of partners. All choices, and all crossed parameters, are equally frequent."""
    size, f, rate, num_trials = 6, 0.6, 0.4, 3000
    rng = np.random.default_rng(0)
    members, fitness = rng.normal(size=(size, D)), rng.normal(size=size)
    strategy = DE(population_size=size, differential_weight=f, crossover_rate=rate, mutation=mutation)
    state = de.DEState(tree(members), jnp.asarray(fitness))
    keys = jax.random.split(jax.random.key(1), num_trials)
    trials = flat(jax.jit(jax.vmap(lambda k: strategy.ask(k, state)[0]))(keys))  # [num_trials, size, D]
    crossed = trials != members

    num_partners = 3 if mutation == "rand" else 2
    for i, x in enumerate(members):
        choices = list(itertools.permutations([j for j in range(size) if j != i], num_partners))
        best = members[np.argmin(fitness)]
        mutants = np.array([MUTANTS[mutation](x, best, f, *members[list(choice)]) for choice in choices])
        fits = np.all(~crossed[:, i, None] | np.isclose(trials[:, i, None], mutants, rtol=1e-12, atol=0), axis=-1)
        assert np.all(fits.sum(axis=1) == 1)
        counts, expected = fits.sum(axis=0), num_trials / len(choices)
        chi2, freedom = np.sum((counts - expected) ** 2 / expected), len(choices) - 1
        assert abs(chi2 - freedom) < 5 * np.sqrt(2 * freedom)

    assert np.all(crossed.any(axis=-1))
    probability = rate + (1 - rate) / D
    for rate_of_parameter in crossed.mean(axis=(0, 1)):
        assert within(rate_of_parameter, probability, probability * (1 - probability), num_trials * size)


@pytest.mark.parametrize("fitness", [[0.5, np.nan, 2.0, -1.0], [np.inf, 1.0, np.nan, 3.5]])
def test_de_keeps_what_is_not_worse(fitness, x64):
    strategy, old = DE(population_size=4), np.array([1.0, 1.0, 2.0, 3.0])
    state = de.DEState(tree(np.zeros((4, D))), jnp.asarray(old))
    told = tell(strategy, state, tree(np.ones((4, D))), np.array(fitness))
    accepted = np.array([f <= o for f, o in zip(fitness, old, strict=True)])
    np.testing.assert_array_equal(flat(told.members), np.broadcast_to(accepted[:, None], (4, D)))
    np.testing.assert_array_equal(told.fitness, np.where(accepted, fitness, old))


def test_pso_against_numpy(x64):
    """Ten generations equal NumPy, which uses only the random factors of the code under test."""
    size, key = 5, jax.random.key(2)
    strategy = PSO(population_size=size, sigma=0.7, inertia=0.6, cognitive=1.3, social=1.7)
    state = init(strategy, key, SOLUTION)
    std, factors = jax.jit(strategy.std), jax.jit(lambda k, x: [uniform_like(kk, x) for kk in jax.random.split(k)])
    v = own = own_fitness = x = None
    for generation, k in enumerate(jax.random.split(key, 10)):
        population, state = ask(strategy, k, state)
        if generation:
            r_own, r_all = map(flat, factors(k, population))
            v = 0.6 * v + 1.3 * r_own * (own - x) + 1.7 * r_all * (own[np.argmin(own_fitness)] - x)
            x = x + v
            np.testing.assert_allclose(flat(population), x, rtol=1e-12)
        else:
            x, v = flat(population), np.zeros((size, D))
        fitness = np.sum((x - 1) ** 2, axis=1)
        fitness[generation % size] = np.nan
        clean = np.where(np.isnan(fitness), np.inf, fitness)
        better = clean < own_fitness if generation else np.ones(size, bool)
        own = np.where(better[:, None], x, own if generation else x)
        own_fitness = np.where(better, clean, own_fitness if generation else clean)
        state = tell(strategy, state, population, fitness)
        np.testing.assert_allclose(flat(strategy.mean(state)), own[np.argmin(own_fitness)], rtol=1e-12)
        np.testing.assert_allclose(flat(std(state)), x.std(axis=0), rtol=1e-12)


def test_pso_defaults_are_clerc_and_kennedys():
    strategy = PSO()
    assert strategy.inertia == pytest.approx(0.7298437881283576, rel=1e-12)
    assert strategy.cognitive == strategy.social == pytest.approx(1.496179765663133, rel=1e-12)


def test_uniform_factors_are_independent_and_uniform(key):
    draws = flat(jax.jit(uniform_like)(key, tree(np.zeros((20_000, D)))))
    assert draws.min() >= 0
    assert draws.max() < 1
    np.testing.assert_allclose(np.cov(draws.T) * 12, np.eye(D), atol=5 / np.sqrt(20_000))
    assert all(within(mean, 0.5, 1 / 12, 20_000) for mean in draws.mean(axis=0))


def test_simple_ga_children(x64):
    """With almost no mutation, children consist of their parents' entries. With mutation, the spread equals `std`."""
    size, num_parents, rate = 20_002, 3, 0.3
    parents = np.random.default_rng(0).normal(size=(num_parents, D))
    strategy = SimpleGA(population_size=size, num_parents=num_parents, num_elites=2, crossover_rate=rate, sigma=1e-9)
    std = jax.jit(lambda strategy, state: strategy.std(state))
    state = init(strategy, jax.random.key(0), SOLUTION)._replace(parents=tree(parents))
    children = flat(ask(strategy, jax.random.key(1), state)[0])
    np.testing.assert_array_equal(children[:2], parents[:2])
    children = children[2:]
    origin = np.argmin(np.abs(children[:, None] - parents), axis=1)  # [size - 2, D]
    np.testing.assert_allclose(np.take_along_axis(parents, origin, axis=0), children, atol=1e-7)
    for parent in range(num_parents):
        for share in np.mean(origin == parent, axis=0):
            assert within(share, 1 / 3, 2 / 9, size - 2)
    # Two parameters come from one parent if neither or both are crossed, or if both parents are the same member.
    together = rate**2 + (1 - rate) ** 2
    together += (1 - together) / num_parents
    assert within(np.mean(origin[:, 0] == origin[:, 3]), together, together * (1 - together), size - 2)

    state = state._replace(generation=jnp.asarray(10))
    wide = strategy.replace(sigma=0.5, sigma_decay=0.9)
    expected = np.sqrt(parents.var(axis=0) + (0.5 * 0.9**10) ** 2)
    np.testing.assert_allclose(flat(std(wide, state)), expected, rtol=1e-6)
    children = flat(ask(wide, jax.random.key(1), state)[0])[2:]
    np.testing.assert_allclose(children.std(axis=0), expected, rtol=5 / np.sqrt(2 * size))
    floor = std(wide.replace(sigma_floor=0.5), state._replace(parents=tree(np.zeros((num_parents, D)))))
    np.testing.assert_allclose(flat(floor), 0.25, rtol=1e-6)


def test_simple_ga_selects_the_best_stably(key):
    strategy = SimpleGA(population_size=6, num_parents=3)
    population = np.arange(6.0)
    state = init(strategy, key, 0.0)
    told = tell(strategy, state, population, np.array([2.0, np.nan, 1.0, 2.0, -np.inf, 5.0]))
    np.testing.assert_array_equal(told.parents, [4.0, 2.0, 0.0])
    told = tell(strategy, state, population, np.full(6, np.nan))
    np.testing.assert_array_equal(told.parents, [0.0, 1.0, 2.0])  # the elite stays


@pytest.mark.parametrize("id", ["de", "pso", "simple_ga"])
def test_recommends_the_best_member_ever_asked(id, key):
    """The best member so far is recommended, and the initial population is drawn again until one member is finite."""
    strategy = zoo.make_strategy(id, population_size=8, sigma=0.5)

    def generation(state, inputs):
        number, k = inputs
        population, state = strategy.ask(k, state)
        fitness = jnp.where(number < 2, jnp.nan, jnp.sum(jnp.abs(population - 1), axis=1))
        return strategy.tell(state, population, fitness), (population, fitness, strategy.mean(state))

    start = np.zeros(2, np.float32)
    inputs = jnp.arange(40), jax.random.split(key, 40)

    @jax.jit
    def run(key):
        state, results = jax.lax.scan(generation, strategy.init(key, start), inputs)
        return strategy.mean(state), results

    mean, (populations, fitness, means) = jax.device_get(run(key))
    for population in populations[:3]:
        np.testing.assert_array_equal(population[0], start)
        assert np.all(np.any(np.asarray(population[1:]) != start, axis=1))
    np.testing.assert_array_equal(means[:3], np.zeros((3, 2)))
    best = populations.reshape(-1, 2)[np.nanargmin(fitness)]
    np.testing.assert_array_equal(mean, best)
    assert np.nanmin(fitness) < 0.5  # it starts at 2


@pytest.mark.parametrize("id", ["de", "pso"])
def test_batched_seeds_draw_the_initial_population_once(id, key):
    """The noise of the first generation stays inside a conditional, however the strategy is batched."""
    strategy = zoo.make_strategy(id, population_size=4)
    states = jax.vmap(jax.vmap(lambda k: strategy.init(k, np.zeros(3))))(jax.random.split(key, (2, 2)))
    ask = jax.vmap(jax.vmap(strategy.ask))
    enclosing = list(primitives_around("erf_inv", jax.make_jaxpr(ask)(jax.random.split(key, (2, 2)), states).jaxpr))
    assert enclosing
    assert all("cond" in path for path in enclosing)


@pytest.mark.parametrize(
    ("id", "settings", "fn", "evaluations", "target"),
    [
        ("de", {"population_size": 40, "differential_weight": 0.7}, rosenbrock, 20_000, 1e-6),
        ("de", {"population_size": 40, "mutation": "best"}, ellipsoid, 6_000, 1e-6),
        ("de", {"population_size": 40, "mutation": "current_to_best"}, ellipsoid, 6_000, 1e-6),
        ("pso", {}, ellipsoid, 10_000, 1e-6),
        ("pso", {}, rosenbrock, 20_000, 1e-1),
        ("simple_ga", {"sigma": 0.3}, ellipsoid, 20_000, 1e-2),
    ],
)
def test_converges_in_so_many_evaluations(id, settings, fn, evaluations, target, key):
    """The median of seven seeds reaches the target in five dimensions within this number of evaluations."""
    strategy = zoo.make_strategy(id, **{"sigma": 1.0, **settings}).for_solution(np.zeros(5))

    def run(key):
        def generation(state, k):
            population, state = strategy.ask(k, state)
            return strategy.tell(state, population, jax.vmap(fn)(population)), None

        keys = jax.random.split(key, evaluations // strategy.population_size)
        return fn(strategy.mean(jax.lax.scan(generation, strategy.init(key, np.full(5, -1.0)), keys)[0]))

    assert np.median(jax.jit(jax.vmap(run))(jax.random.split(key, 7))) < target


@pytest.mark.parametrize(
    "strategy", [DE(population_size=5, differential_weight=1.9), PSO(population_size=5, inertia=1.5)], ids=["de", "pso"]
)
def test_nothing_overflows_on_a_plateau_or_with_unstable_settings(strategy, key):
    def generation(state, k):
        population, state = strategy.ask(k, state)
        return strategy.tell(state, population, jnp.ones(5)), None

    @jax.jit
    def run(keys):
        state, _ = jax.lax.scan(generation, strategy.init(key, 1.0), keys)
        return state, strategy.std(state)

    state, std = jax.device_get(run(jax.random.split(key, 1000)))
    assert np.max(np.abs(state.members)) > 1e30  # it did drift
    assert is_finite((state, std))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DE(population_size=3), "population_size must be at least 4 for mutation='rand'"),
        (lambda: DE(population_size=2, mutation="best"), "population_size must be at least 3 for mutation='best'"),
        (lambda: DE(mutation="worst"), "mutation must be one of 'rand', 'best', 'current_to_best', got 'worst'"),
        (lambda: DE(crossover_rate=1.1), "crossover_rate must be at most 1"),
        (lambda: PSO(inertia=-0.1), "inertia must be at least 0"),
        (lambda: SimpleGA(num_parents=9, population_size=8).init(jax.random.key(0), 1.0), "num_parents=9"),
        (lambda: SimpleGA(num_parents=2, num_elites=3).init(jax.random.key(0), 1.0), "num_elites=3, num_parents=2"),
        (lambda: SimpleGA(population_size=1).init(jax.random.key(0), 1.0), "at least one child"),
    ],
)
def test_invalid_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()
