"""Online strategies (nres, pes, gpes, es_single): perturbations and their sums, the loop by hand, settings, runs.

`test_online_estimates.py` tests bias and variance. `tests/mutations` has the mistakes that these tests notice.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo
from tests.strategies.online_examples import (
    DRAWS,
    FITNESS,
    KEYS,
    NUM_GENERATIONS,
    NUM_PAIRS,
    SIGMA,
    STRATEGIES,
    THETA,
    Line,
    check_start,
    compile_quickly,  # noqa: F401 - a fixture, of all tests here
    play,
    reset_by_hand,
    settings,
    unroll,
)
from zoo.core.noise import normal_like
from zoo.strategies.gradient.bptt import BPTT
from zoo.strategies.gradient.es_single import ESSingle
from zoo.strategies.gradient.full_es import FullES
from zoo.strategies.gradient.gpes import GPES
from zoo.strategies.gradient.nres import NRES
from zoo.strategies.gradient.pes import PES
from zoo.strategies.gradient.tbptt import TBPTT
from zoo.strategies.gradient.tes import TES
from zoo.testing.examples import Decay
from zoo.testing.loop import generation, start

# Perturbations and their sums, from given fitness and resets


class Script(NamedTuple):
    """What `run_script` returns: arrays with a leading axis of generations."""

    mean: Any  # before the update
    asked: Any
    population: Any
    estimate: Any
    told: Any


def run_script(strategy, mean, keys, fitness, done, sigmas):
    """Runs generations with given keys, fitness, resets and standard deviations."""

    def body(state, xs):
        key, fitness, done, sigma = xs
        current = strategy.replace(sigma=sigma)
        before = current.mean(state)
        population, state = current.ask(key, state)
        evaluation = zoo.Evaluation(fitness, done, jnp.asarray(fitness.shape[0]))
        told = current.tell(state, population, evaluation)
        return told, Script(before, state, population, current.estimate(state, population, evaluation), told)

    return jax.lax.scan(body, strategy.init(keys[0], mean), (keys, fitness, done, sigmas))[1]


run_script_jit = jax.jit(run_script)
PERIODS = {"pes": 1, "gpes": 2, "nres": None}
DONE = np.zeros((NUM_GENERATIONS, 2 * NUM_PAIRS), bool)
DONE[[2, 5, 8, 11], 0] = True  # pair 0 ends by the plus member alone
DONE[[0, 5, 6], NUM_PAIRS + 1] = True  # pair 1 ends by the minus member alone, once after one window
DONE[4, [2, NUM_PAIRS + 2]] = True  # pair 2 ends by both; pair 3 never ends
CONSTANT = np.full(NUM_GENERATIONS, SIGMA, np.float32)
CHANGING = SIGMA * np.float32(0.9) ** np.arange(NUM_GENERATIONS, dtype=np.float32)


def script_by_hand(noise_period, sigmas):
    """Returns each pair's perturbation and its episode's sum of z / sigma, `[generation, pair, 3]`."""
    perturbations, weights = np.zeros_like(DRAWS), np.zeros_like(DRAWS)
    for pair in range(NUM_PAIRS):
        drawn, age = [], 0
        for g in range(NUM_GENERATIONS):
            if age % (noise_period or NUM_GENERATIONS) == 0:
                drawn.append((float(sigmas[g]), DRAWS[g, pair]))
            perturbations[g, pair] = drawn[-1][0] * drawn[-1][1]
            weights[g, pair] = sum(z / sigma for sigma, z in drawn)
            age += 1
            if DONE[g, pair] or DONE[g, pair + NUM_PAIRS]:
                drawn, age = [], 0
    return perturbations, weights


@pytest.mark.parametrize("how", ["constant", "schedule", "replace"])
@pytest.mark.parametrize("id", PERIODS)
def test_perturbations_and_estimates_are_those_of_a_script_by_hand(id, how):
    """A perturbation keeps the sigma it was drawn with. Sums restart when either partner ends the pair's episode."""
    strategy = STRATEGIES[id](NUM_PAIRS)
    if how == "schedule":
        strategy = strategy.replace(sigma_schedule=nine_tenths)
    sigmas = CONSTANT if how == "constant" else CHANGING
    script = run_script_jit(strategy, THETA, KEYS, FITNESS, DONE, CHANGING if how == "replace" else CONSTANT)
    perturbations, weights = script_by_hand(PERIODS[id], sigmas)
    mean = np.asarray(script.mean)[:, None]
    np.testing.assert_allclose(script.population[:, :NUM_PAIRS], mean + perturbations, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(script.population[:, NUM_PAIRS:], mean - perturbations, rtol=1e-4, atol=1e-5)
    half = (FITNESS[:, :NUM_PAIRS] - FITNESS[:, NUM_PAIRS:]) / 2
    estimate = np.mean(half[..., None] * weights, axis=1)
    np.testing.assert_allclose(script.estimate, estimate, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(script.told.descent.mean, script.mean - 0.05 * script.estimate, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(script.told.descent.generation, np.arange(NUM_GENERATIONS) + 1)


def nine_tenths(generation):
    return 0.9**generation


def test_limits_of_the_noise_period_are_pes_and_nres():
    """gpes equals pes with period 1 and nres without a period, exactly, also in the middle of an episode."""
    make = functools.partial(GPES, **settings(NUM_PAIRS))
    for id, periods in {"pes": [1], "nres": [None, NUM_GENERATIONS]}.items():
        expected = run_script_jit(STRATEGIES[id](NUM_PAIRS), THETA, KEYS, FITNESS, DONE, CHANGING)
        for period in periods:
            got = run_script_jit(make(noise_period=period), THETA, KEYS, FITNESS, DONE, CHANGING)
            for field in ("population", "estimate"):
                np.testing.assert_array_equal(getattr(got, field), getattr(expected, field))


@pytest.mark.parametrize("num_dims", [3, 2**14], ids=["small", "large"])
def test_a_held_perturbation_is_bit_identical_and_a_new_one_is_the_keys(num_dims):
    """Held perturbations do not change, and new ones come from the key, also if only new rows are drawn."""
    mean = {"w": jnp.ones((num_dims - 1, 1)), "b": jnp.asarray(2.0)}
    script = jax.device_get(
        run_script_jit(STRATEGIES["nres"](NUM_PAIRS), mean, KEYS[:7], FITNESS[:7], DONE[:7], CONSTANT[:7])
    )
    is_new = np.concatenate([np.ones((1, NUM_PAIRS), bool), DONE[:6, :NUM_PAIRS] | DONE[:6, NUM_PAIRS:]])
    held = script.asked.perturbation
    for g in range(7):
        drawn = normal_like(KEYS[g], mean, num_samples=NUM_PAIRS)
        for now, old, new in zip(*map(jax.tree.leaves, (held, held, drawn)), strict=True):
            np.testing.assert_allclose(now[g][is_new[g]], np.asarray(new)[is_new[g]], rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(now[g][~is_new[g]], old[g - 1][~is_new[g]])


def test_state_holds_no_more_than_needed(key):
    """NRES stores only perturbations, and PES only their sum."""
    held = {}
    for id in ("nres", "es_single", "pes", "gpes"):
        state = STRATEGIES[id](NUM_PAIRS).init(key, THETA)
        held[id] = (state.perturbation is not None, state.earlier is not None)
        assert all(x.shape == (NUM_PAIRS, 3) for x in (state.perturbation, state.earlier) if x is not None)
    assert held == {"nres": (True, False), "es_single": (True, False), "pes": (False, True), "gpes": (True, True)}


@pytest.fixture(params=["nres", "pes", "gpes", "es_single", "full_es", "tes"])
def midway(request):
    """Returns a strategy in the middle of an episode: state after `ask`, population, and number of pairs."""
    strategy = STRATEGIES[request.param](NUM_PAIRS)
    state = strategy.init(KEYS[0], THETA)
    for k in KEYS[:2]:
        population, asked = strategy.ask(k, state)
        size = len(population)
        evaluation = zoo.Evaluation(jnp.arange(float(size)) ** 2, jnp.zeros(size, bool), jnp.asarray(size))
        state = strategy.tell(asked, population, evaluation)
    return strategy, asked, population


def estimate_of(midway, fitness):
    strategy, state, population = midway
    unperturbed = np.full(len(population) - len(fitness), 123.0, np.float32)
    fitness = jnp.concatenate([jnp.asarray(fitness, jnp.float32), unperturbed])
    done = jnp.zeros(len(population), bool)
    return np.asarray(strategy.estimate(state, population, zoo.Evaluation(fitness, done, jnp.asarray(8))))


def test_partners_are_antithetic(midway):
    plus, minus = np.split(FITNESS[0], 2)
    estimate = estimate_of(midway, FITNESS[0])
    assert np.all(estimate != 0)
    np.testing.assert_array_equal(estimate_of(midway, np.concatenate([minus, plus])), -estimate)
    np.testing.assert_array_equal(estimate_of(midway, np.concatenate([plus, plus])), np.zeros(3))
    _, state, population = midway
    plus, minus = population[:NUM_PAIRS], population[NUM_PAIRS : 2 * NUM_PAIRS]
    np.testing.assert_allclose(plus + minus, np.tile(2 * state.descent.mean, (NUM_PAIRS, 1)), rtol=1e-5, atol=1e-6)


def test_invalid_fitness_counts_as_the_worst_and_poisons_nothing(midway):
    strategy, _, _ = midway
    assert strategy.shaping == "none"
    worst = FITNESS[0].copy()
    worst[1] = np.max(np.delete(worst, 1))
    for value in (np.nan, np.inf):
        invalid = FITNESS[0].copy()
        invalid[1] = value
        np.testing.assert_array_equal(estimate_of(midway, invalid), estimate_of(midway, worst))
        if not isinstance(strategy, TES):  # its unperturbed members are finite here
            np.testing.assert_array_equal(estimate_of(midway, np.full(2 * NUM_PAIRS, value)), np.zeros(3))


# One window per episode: all of them are OpenAI-ES


@functools.partial(jax.jit, static_argnames="fn")
def descend(strategy, fn, solution, keys):
    """Returns the means of generations whose evaluation is a bare fitness."""

    def body(state, key):
        population, state = strategy.ask(key, state)
        fitness = jax.vmap(fn)(population)
        state = strategy.tell(state, population, fitness[: strategy.population_size])
        return state, strategy.mean(state)

    return jax.lax.scan(body, strategy.init(keys[0], solution), keys)[1]


def quartic(x):
    return sum(jnp.sum((leaf - 0.3) ** 2 + (leaf + 0.2) ** 4) for leaf in jax.tree.leaves(x))


@pytest.mark.parametrize(
    ("ids", "num_dims"),
    [(("nres", "pes", "gpes", "es_single", "full_es"), 6), (("nres", "gpes"), 2**13)],
    ids=["small", "large"],
)
def test_where_all_is_done_they_are_open_es(ids, num_dims):
    """If every window ends an episode, they equal open_es with Adam bit for bit.

    The large case (8 pairs of 2^13 numbers) makes nres and gpes renew their noise row by row.
    """
    solution = {"w": jnp.linspace(-1, 1, num_dims - 2).reshape(2, -1), "b": jnp.array([0.5, 2.0])}
    keys = jax.random.split(jax.random.key(1), 4)

    def means(id):
        strategy = STRATEGIES[id](8).replace(optimizer=optax.adam)
        return jax.tree.leaves(descend(strategy, quartic, solution, keys))

    expected = means("open_es")
    assert not np.array_equal(expected[0][0], expected[0][1])
    for id in ids:
        for got, leaf in zip(means(id), expected, strict=True):
            np.testing.assert_array_equal(got, leaf)


def test_they_are_open_es_on_a_plain_problem(key):
    """On a plain problem, where every evaluation ends the episode, they equal open_es in the loop."""
    problem = zoo.from_function(lambda x: jnp.sum((x - 0.3) ** 4), jnp.asarray(THETA))

    def train(strategy):
        loop, fitness = start(strategy, problem, key), []
        for k in KEYS[:4]:
            loop, f = generation(strategy, problem, loop, k)
            fitness.append(f)
        return loop.state.descent.mean, np.array(fitness)

    expected = train(STRATEGIES["open_es"](NUM_PAIRS))
    for id in ("nres", "pes", "es_single"):
        for got, leaf in zip(train(STRATEGIES[id](NUM_PAIRS)), expected, strict=True):
            np.testing.assert_array_equal(got, leaf)


def test_they_are_open_es_where_a_window_is_an_episode(key):
    """On an unrolled problem with one window per episode they equal open_es. full_es ignores a shorter window."""
    problem = Line(window=None, noise=1.0, short=4.0)
    expected = play(STRATEGIES["open_es"](NUM_PAIRS), problem, key, num_generations=4)
    assert expected.evaluation.done.all()
    for id, played in {"nres": problem, "pes": problem, "full_es": problem.replace(window=3)}.items():
        got = play(STRATEGIES[id](NUM_PAIRS), played, key, num_generations=4)
        np.testing.assert_allclose(
            got.after.state.descent.mean, expected.after.state.descent.mean, rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(got.evaluation.fitness, expected.evaluation.fitness, rtol=1e-5)
        np.testing.assert_array_equal(got.evaluation.steps, expected.evaluation.steps)


def test_tes_is_open_es_where_a_window_is_an_episode(key):
    """Fitness and estimate equal open_es, apart from the unperturbed members of tes."""
    problem = Line(window=None, noise=1.0, short=4.0)
    expected = play(STRATEGIES["open_es"](NUM_PAIRS), problem, key, num_generations=4)
    got = play(STRATEGIES["tes"](NUM_PAIRS), problem, key, num_generations=4)
    np.testing.assert_allclose(got.evaluation.fitness[:, : 2 * NUM_PAIRS], expected.evaluation.fitness, rtol=1e-5)
    np.testing.assert_allclose(got.estimate, expected.estimate, rtol=1e-4, atol=1e-5)


# The loop by hand


def test_trajectory_is_that_of_gpes_by_hand(key):
    """The trajectory equals gpes computed pair by pair in NumPy. Its seven pairs reset and pause at different times."""
    problem, num_pairs = Line(limit=1.3, short=5.0), 7
    strategy = STRATEGIES["gpes"](num_pairs)
    played = jax.device_get(play(strategy, problem, key, num_generations=9))
    first = jax.tree.map(lambda x: x[0], played.before.problem_state)
    groups = np.tile(np.arange(num_pairs), 2)
    check_start(problem, first, groups)
    assert sorted(np.bincount(first.time[:num_pairs] // 3)) == [2, 2, 3]

    mean = THETA.astype(float)
    x, time, terminated = (np.array(v) for v in (first.inner["x"], first.time, first.terminated))
    length, windows = np.array(first.inner["length"]), first.time // 3
    age, drawn = np.zeros(num_pairs, int), [[] for _ in range(num_pairs)]
    warm_up = np.sum(first.inner["time"][:num_pairs])
    num_paused = num_reset = 0
    for g in range(9):
        population = played.population[g]
        noise = (population[:num_pairs] - population[num_pairs:]) / (2 * SIGMA)
        estimate, num_steps = np.zeros(3), 0
        for pair in range(num_pairs):
            if age[pair] % 2 == 0:
                drawn[pair].append(noise[pair])
            fitness = []
            for member, sign in ((pair, 1), (pair + num_pairs, -1)):
                theta = mean + sign * SIGMA * drawn[pair][-1]
                np.testing.assert_allclose(population[member], theta, rtol=1e-4, atol=1e-4)
                arguments = (x[member], time[member], terminated[member], length[member])
                x[member], terminated[member], losses, steps = unroll(problem, [theta] * 3, *arguments)
                fitness.append(3 / 7 * np.sum(losses))
                num_steps += steps
                num_paused += steps < min(3, 7 - time[member])
                np.testing.assert_allclose(played.evaluation.fitness[g, member], fitness[-1], rtol=1e-4, atol=1e-4)
            estimate += (fitness[0] - fitness[1]) / 2 * np.sum(drawn[pair], axis=0) / SIGMA / num_pairs
            members = [pair, pair + num_pairs]
            windows[pair] += 1
            windows[members[1]] = windows[pair]
            age[pair] += 1
            time[members] += 3
            assert np.all(played.evaluation.done[g, members] == (windows[pair] == 3))
            if windows[pair] == 3:
                x[members], length[members] = reset_by_hand(
                    problem, jax.tree.map(lambda v, g=g: v[g], played.after.problem_state.inner), members
                )
                time[members], terminated[members], windows[members], age[pair], drawn[pair] = 0, False, 0, 0, []
                num_reset += 1
        np.testing.assert_array_equal(played.after.problem_state.time[g], time)
        assert played.evaluation.steps[g] == num_steps + (warm_up if g == 0 else 0)
        assert np.max(np.bincount(time[:num_pairs] // 3)) - np.min(np.bincount(time[:num_pairs] // 3)) <= 1
        np.testing.assert_allclose(played.estimate[g], estimate, rtol=1e-3, atol=1e-3)
        mean = mean - 0.05 * estimate
        np.testing.assert_allclose(played.after.state.descent.mean[g], mean, rtol=1e-3, atol=1e-4)
    assert num_reset == 3 * num_pairs
    assert num_paused > 10
    assert np.linalg.norm(mean - THETA) > 0.1


# Errors, settings, runs


@pytest.mark.parametrize("strategy", [NRES, PES, GPES, ESSingle, FullES])
def test_odd_population_sizes(strategy):
    with pytest.raises(ValueError, match=rf"{strategy.__name__} samples antithetic pairs.*must be even, got 7\. Use 8"):
        strategy(population_size=7)


def test_errors():
    for size in (7, 8):
        with pytest.raises(ValueError, match=rf"TES .*must be a multiple of 3, got {size}\. Use 9"):
            TES(population_size=size)
    with pytest.raises(ValueError, match=r"GPES\.noise_period must be at least 1, got 0"):
        GPES(noise_period=0)
    with pytest.raises(TypeError, match=r"GPES\.noise_period must be a whole number, got 1\.5"):
        GPES(noise_period=1.5)


def test_groups():
    for strategy in (NRES, PES, GPES):
        assert strategy(population_size=6).groups.ids.tolist() == [0, 1, 2, 0, 1, 2]
    assert ESSingle(population_size=6).groups.ids.tolist() == [0] * 6
    assert FullES(population_size=6).groups.ids.tolist() == [0, 1, 2, 0, 1, 2]
    assert FullES(population_size=6).groups.whole_episodes
    for shaping_or_size in ({"shaping": "centered_ranks"}, {"antithetic": False}):
        assert FullES(population_size=6, **shaping_or_size).groups.ids.tolist() == [0] * 6
    assert TBPTT(population_size=3).groups.ids.tolist() == [0, 1, 2]
    assert BPTT(population_size=3).groups.ids.tolist() == [0, 1, 2]
    assert BPTT(population_size=3).groups.whole_episodes


class InterruptionError(Exception):
    """Stands for any error that ends a run."""


def test_an_interrupted_run_resumes_bit_identically(tmp_path):
    """A run interrupted in the middle of episodes resumes with its perturbations, ages and sums."""

    def interrupt(progress):
        if progress.generation == 4:
            raise InterruptionError

    run = functools.partial(zoo.run, STRATEGIES["nres"](3), Line(short=5.0), num_generations=6, num_scores=3)
    expected = run()
    with pytest.raises(InterruptionError):
        run(checkpoint=tmp_path, callback=interrupt)
    seen = []
    resumed = run(checkpoint=tmp_path, callback=lambda progress: seen.append(progress.generation))
    assert seen[-1] == 6
    assert 2 not in seen
    for got, leaf in zip(*map(jax.tree.leaves, (resumed.state, expected.state)), strict=True):
        np.testing.assert_array_equal(got, leaf)
    for got, leaf in zip(*map(jax.tree.leaves, (resumed.problem_state, expected.problem_state)), strict=True):
        np.testing.assert_array_equal(got, leaf)
    for name, values in expected.history.items():
        np.testing.assert_array_equal(resumed.history[name], values)


def test_benchmark_by_id():
    """All four lower the score within a budget of steps, although their generations cost different numbers of steps."""
    ids = ["nres", "tes", "full_es", "tbptt"]
    results = zoo.benchmark(
        ids,
        [Decay()],
        num_seeds=1,
        num_steps=2000,
        num_scores=1,
        progress=False,
        strategy_settings={id: {"population_size": 6, "learning_rate": 0.05} for id in ids},
    )
    curves = results.curves
    for id in ids:
        curve = curves[curves.strategy == id]
        assert curve.value.iloc[-1] < 0.3 * curve.value.iloc[0]
        assert 2000 - 6 * 6 < curve.steps.iloc[-1] <= 2000
    last = curves.groupby("strategy").generation.max()
    assert last["full_es"] == 2000 // 36
    assert all(2000 / 12 - 3 < last[id] <= 2000 / 12 for id in ("nres", "tes", "tbptt"))
