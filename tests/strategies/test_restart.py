"""Restarts: a rung of the ladder is the base at that size, runs end by their criteria, schedules follow the papers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.the_loop import ask, init, is_finite, tell
from zoo.strategies.distribution.cma_es import CMAES
from zoo.strategies.distribution.snes import SNES
from zoo.strategies.population.de import DE
from zoo.strategies.wrappers.bipop import BIPOP
from zoo.strategies.wrappers.ipop import IPOP
from zoo.testing.loop import generation, start

D = 4
NEVER = {"tol_fun": 0.0, "tol_x": 0.0, "tol_up": np.inf, "max_condition": np.inf}


def sphere(x):
    return jnp.sum(x**2, axis=-1)


def rastrigin(x):
    return jnp.sum(x**2 + 10 * (1 - jnp.cos(2 * jnp.pi * x)), axis=-1)


def train(strategy, fn, state, key, num_asks):
    """Returns the final state and what `watch` saw after each `tell`: run, restarts, recommended fitness."""

    def body(state, k):
        population, state = strategy.ask(k, state)
        state = strategy.tell(state, population, fn(population))
        return state, (state.run, state.num_restarts, fn(strategy.mean(state)), fn(population).min())

    return jax.lax.scan(body, state, jax.random.split(key, num_asks))


def at_rung(state, rung):
    return state._replace(run=state.run._replace(rung=jnp.asarray(rung, jnp.int32)))


@pytest.mark.parametrize("base", [CMAES(sigma=0.5), SNES(sigma=0.5), DE(sigma=0.5)], ids=["cma_es", "snes", "de"])
def test_a_rung_is_the_base_at_that_size(base, key):
    """Two generations of 4 blocks of 6 members equal two generations of the base with 24 members, bit for bit."""
    strategy = IPOP(base=base, population_size=6, max_doublings=2, **NEVER)
    large = base.replace(population_size=24)
    solution = np.linspace(-1, 1, D, dtype=np.float32)
    expected = init(large, key, solution)
    state = at_rung(init(strategy, key, solution), 2)
    state = state._replace(base=(*state.base[:-1], expected))
    for k in jax.random.split(key, 2):
        keys = jax.random.split(k, 4)
        members, expected = ask(large, jax.random.split(keys[0])[1], expected)
        members = np.asarray(members)
        expected = tell(large, expected, members, np.sum(members**2, axis=1))
        for block, each in enumerate(keys):
            population, state = ask(strategy, each, state)
            np.testing.assert_array_equal(population, members[6 * block : 6 * (block + 1)])
            state = tell(strategy, state, population, np.sum(np.square(population), axis=1))
        for got, want in zip(jax.tree.leaves(state.base[-1]), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)  # another program rounds differently
    assert int(state.run.num_evaluations) == 48
    assert int(state.run.num_generations) == 2


def test_states_are_shared_where_they_look_alike(key):
    """A base whose state does not depend on the population size is stored once, others once for each rung."""
    solution = np.zeros(D, np.float32)
    for base, number in ((CMAES(), 1), (DE(), 3)):
        strategy = IPOP(base=base, population_size=6, max_doublings=2)
        assert len(jax.eval_shape(strategy.init, key, solution).base) == number


def flat(x):
    return jnp.zeros(x.shape[:-1])


@functools.partial(jax.jit, static_argnums=(1, 3))
def ends(strategy, fn, key, num_asks):
    """Returns whether the first run was over after each generation."""
    _, (run, restarts, _, _) = train(strategy, fn, strategy.init(key, jnp.ones(D)), key, num_asks)
    return run.is_over & (restarts == 0)


def first(condition):
    """Returns the first generation (counted from 1) in which a condition holds."""
    where = np.flatnonzero(condition)
    return int(where[0]) + 1 if len(where) else None


def ellipsoid(x):
    return jnp.sum(jnp.broadcast_to(10.0 ** np.arange(D), x.shape) * x**2, axis=-1)


def stuck(x):
    """Returns the same fitness in every generation, although members differ."""
    return jnp.arange(x.shape[0], dtype=x.dtype) if x.ndim > 1 else jnp.zeros(())


def hopeless(x):
    """Makes no progress, because the last bits decide which member is best."""
    return jnp.sin(1e4 * jnp.sum(x, axis=-1))


def linear(x):
    return x[..., 0]


def test_each_criterion_ends_a_run(key):
    """Each criterion alone ends a run in the generation in which the base, run by itself, first meets it."""
    base = SNES(sigma=0.5, population_size=8)

    @functools.partial(jax.jit, static_argnums=0)
    def run_base(fn):
        def body(state, k):
            population, state = base.ask(jax.random.split(k)[1], state)
            state = base.tell(state, population, fn(population))
            return state, base.std(state)

        return jax.lax.scan(body, base.init(key, jnp.ones(D)), jax.random.split(key, 200))[1]

    def make(**settings):
        return IPOP(base=base, population_size=8, max_doublings=0, **{**NEVER, **settings})

    shrinking, growing = np.asarray(run_base(ellipsoid)), np.asarray(run_base(linear))
    assert first(ends(make(), ellipsoid, key, 200)) is None
    by_tol_x = first((shrinking < 0.2 * 0.5).all(axis=1))
    assert by_tol_x == first(ends(make(tol_x=0.2), ellipsoid, key, 200))
    by_condition = first((shrinking.max(axis=1) / shrinking.min(axis=1)) ** 2 > 10)
    assert by_condition == first(ends(make(max_condition=10.0), ellipsoid, key, 200))
    by_tol_up = first(growing.max(axis=1) > 3 * 0.5)
    assert by_tol_up == first(ends(make(tol_up=3.0), linear, key, 200))
    assert len({by_tol_x, by_condition, by_tol_up, None}) == 4

    # These take 10 + 30 d / population size generations of equal fitness, and 120 + 30 d / population size without
    # progress.
    assert first(ends(make(), flat, key, 60)) == 25
    # This criterion is checked in every tenth generation.
    assert first(ends(make(), stuck, key, 200)) == 140
    # Steps are lost to rounding at a mean of 1 with deviations below 1e-8.
    tiny = make().replace(base=base.replace(sigma=1e-9))
    assert first(ends(tiny, hopeless, key, 60)) == 1


@pytest.mark.parametrize(("d", "size", "limit"), [(1, 64, 200), (4, 49, 450)])
def test_a_run_has_a_budget(d, size, limit, key):
    """A run has 100 + 50 (d + 3)^2 / sqrt(population size) generations, also if that is a whole number."""
    strategy = IPOP(base=SNES(sigma=0.5), population_size=size, max_doublings=0, **NEVER, stagnation=4)
    state = init(strategy, key, np.ones(d))
    _, (run, _, _, _) = jax.jit(train, static_argnums=(1, 4))(strategy, hopeless, state, key, limit + 5)
    assert first(run.is_over) == limit


def test_ipop_doubles_up_to_the_last_rung(key):
    strategy = IPOP(base=SNES(sigma=1.0), population_size=8, max_doublings=2)
    state = init(strategy, key, np.ones(D, np.float32))
    traces = []

    @jax.jit
    def go(state, key):
        traces.append(1)
        return train(strategy, flat, state, key, 25 * (1 + 2 * 4) * 4)

    state, (run, restarts, _, _) = go(state, key)
    first = np.flatnonzero(np.diff(np.asarray(restarts))) + 1
    assert np.asarray(run.rung)[first].tolist()[:4] == [1, 2, 2, 2]
    assert len(traces) == 1
    # 10 + 30 d / population size generations with 8, 16 and 32 members.
    lengths = np.diff(np.concatenate([[0], first]))[:3]
    assert lengths.tolist() == [25, 18 * 2, 14 * 4]


def test_restarts_start_around_the_initial_solution(key):
    """With spread 0, starts equal the initial solution. Otherwise their deviation is the base's times the spread.

    The test uses 40 restarts and 5 sigma.
    """
    starts_of = jax.jit(jax.vmap(lambda s, key, state: s.ask(key, state)[1].base[0].mean, (None, 0, None)))
    for spread in (0.0, 2.0):
        strategy = IPOP(base=SNES(sigma=0.25), population_size=8, max_doublings=0, spread=spread)
        state = init(strategy, key, np.full(100, 3.0, np.float32))
        state = state._replace(run=state.run._replace(is_over=jnp.asarray(True)))
        starts = np.asarray(starts_of(strategy, jax.random.split(key, 40), state))
        error = 0.5 / np.sqrt(2 * starts.size)
        assert abs((starts - 3).std() - 0.25 * spread) <= 5 * error * (spread > 0)


def test_mean_is_that_of_the_best_run(key):
    """After a run ends, the recommended solution is as good as the best member of all runs."""
    strategy = BIPOP(base=CMAES(sigma=1.0), population_size=8, max_doublings=2)
    state = init(strategy, key, np.full(D, 3.0, np.float32))
    state, (_, restarts, recommended, best) = jax.jit(train, static_argnums=(1, 4))(
        strategy, rastrigin, state, key, 3000
    )
    assert restarts[-1] >= 3
    ended = np.flatnonzero(np.diff(np.asarray(restarts)))
    at_end, reached = np.asarray(recommended)[ended], np.minimum.accumulate(np.asarray(best))[ended]
    np.testing.assert_allclose(at_end, reached, atol=0.02)
    assert np.all(np.diff(at_end) < 0.02)


def test_bipop_schedule_is_the_papers(key):
    """Regimes, sizes and budgets equal a plain Python transcription that is given the runs' lengths."""
    strategy = BIPOP(base=SNES(sigma=0.5), population_size=8, max_doublings=3)
    state = init(strategy, key, np.ones(D, np.float32))
    state, (run, restarts, _, _) = jax.jit(train, static_argnums=(1, 4))(strategy, flat, state, key, 4000)
    last = np.append(np.flatnonzero(np.diff(np.asarray(restarts))), len(restarts) - 1)
    runs = jax.tree.map(lambda x: np.asarray(x)[last], run)
    large, small, k, last_large = 0, 0, 0, float(runs.num_evaluations[0])
    kinds = []
    for i in range(1, len(last)):
        is_small = small < large
        if is_small:
            assert runs.rung[i] <= max(k - 1, 0)
            assert 0.01 <= runs.sigma_factor[i] < 1
            assert runs.budget[i] == last_large / 2
            small += runs.num_evaluations[i]
        else:
            k = min(k + 1, 3)
            assert runs.rung[i] == k
            assert runs.sigma_factor[i] == 1
            assert runs.budget[i] == np.inf
            large += runs.num_evaluations[i]
            last_large = runs.num_evaluations[i]
        kinds.append(is_small)
    assert len(kinds) > 10
    assert 0.3 < np.mean(kinds) < 0.95
    assert len(set(runs.rung[1:][kinds])) >= 2  # small runs of several sizes


@pytest.mark.parametrize("base", ["open_es", {"id": "frozen", "base": {"id": "bounded", "base": "open_es"}}])
def test_a_small_step_size_reaches_the_base(base, key):
    """A small step size reaches the base, also if its sigma comes from the settings, and within wrappers."""
    strategy = BIPOP(base=base, population_size=500, max_doublings=0)
    state = init(strategy, key, np.zeros(20, np.float32))
    state = state._replace(run=state.run._replace(sigma_factor=jnp.asarray(0.1)))
    population, _ = ask(strategy, key, state)
    assert np.asarray(population).std() == pytest.approx(0.01, rel=0.05)


def test_a_batch_is_its_members_one_by_one(key):
    strategy = BIPOP(base=CMAES(sigma=1.0), population_size=6, max_doublings=1)
    keys = jax.random.split(key, 3)

    def go(key):
        state, _ = train(strategy, rastrigin, strategy.init(key, jnp.full(2, 2.5)), key, 300)
        return strategy.mean(state), state.num_restarts

    together, restarts = jax.jit(jax.vmap(go))(keys)
    alone = [jax.jit(go)(k) for k in keys]
    assert restarts.tolist() == [int(r) for _, r in alone]
    assert min(restarts) >= 1
    np.testing.assert_allclose(together, [m for m, _ in alone], atol=1e-3)


def test_fitness_that_is_never_finite(key):
    strategy = IPOP(base=CMAES(), population_size=6, max_doublings=1)
    state = init(strategy, key, np.ones(D, np.float32))
    state, _ = jax.jit(train, static_argnums=(1, 4))(
        strategy, lambda x: jnp.full(x.shape[:-1], jnp.nan), state, key, 300
    )
    assert is_finite((strategy.mean(state), strategy.std(state)))


def test_surrogates_reach_the_base_in_blocks(key):
    """Hybrid gets the gradient of each member block by block in a large generation."""
    strategy = IPOP(
        base={"id": "hybrid", "base": "snes", "es_leaves": "a", "learning_rate": 0.1},
        population_size=4,
        max_doublings=1,
    )
    problem = zoo.from_function(
        lambda x: jnp.sum(x["a"] ** 2) + jnp.sum(x["b"] ** 2), {"a": np.ones(2), "b": np.ones(3)}
    )

    def block(loop, _):
        return generation(strategy, problem, loop, key)

    @jax.jit
    def run():
        loop = start(strategy, problem, key)
        loop, _ = jax.lax.scan(block, loop._replace(state=at_rung(loop.state, 1)), length=2)
        return strategy.mean(loop.state)

    assert np.all(np.asarray(run()["b"]) < 0.95)


def test_in_a_run_with_suggestions(key):
    """The sigma that a problem suggests reaches the base."""
    result = zoo.run("ipop", zoo.make_problem("blackbox/sphere", num_dims=2), num_steps=1200)
    assert result.strategy.base.sigma == 2.0
    assert result.score < 1e-3


@pytest.mark.parametrize("base", ["pes", "nres", "tes", "full_es", "tbptt", {"id": "frozen", "base": "pes"}])
def test_online_strategies_cannot_be_restarted(base):
    with pytest.raises(TypeError, match="members continue from inner states"):
        IPOP(base=base)
