"""TES: its population, its unperturbed members as parents, and the steps it spends.

`test_online_estimates.py` tests its bias, and `test_online.py` its limit.
"""

import jax
import numpy as np

from tests.strategies.online_examples import (
    DRAWS,
    FITNESS,
    KEYS,
    NUM_PAIRS,
    SIGMA,
    STRATEGIES,
    THETA,
    Line,
    check_start,
    compile_quickly,  # noqa: F401 - a fixture, of all tests here
    play,
    reset_by_hand,
    unroll,
)
from zoo.strategies.gradient.tes import TES


def test_tes_population():
    strategy = STRATEGIES["tes"](NUM_PAIRS)
    population, state = strategy.ask(KEYS[0], strategy.init(KEYS[0], THETA))
    step = SIGMA * DRAWS[0]
    np.testing.assert_allclose(population[: 2 * NUM_PAIRS], np.concatenate([THETA + step, THETA - step]), rtol=1e-4)
    np.testing.assert_array_equal(population[2 * NUM_PAIRS :], np.tile(state.descent.mean, (NUM_PAIRS, 1)))
    np.testing.assert_array_equal(strategy.groups.ids, np.tile(np.arange(NUM_PAIRS), 3))
    np.testing.assert_array_equal(strategy.groups.parents, np.tile(np.arange(NUM_PAIRS) + 2 * NUM_PAIRS, 3))
    assert TES(population_size=None).for_solution(THETA).population_size % 3 == 0


def test_tes_starts_each_window_where_the_unperturbed_member_ended(key):
    problem = Line(horizon=6, window=2, limit=1.3, short=3.0)
    played = jax.device_get(play(STRATEGIES["tes"](3), problem, key, num_generations=7))
    first = jax.tree.map(lambda x: x[0], played.before.problem_state)
    check_start(problem, first, np.tile(np.arange(3), 3))
    assert sorted(first.time[:3]) == [0, 2, 4]
    num_paused = 0
    for g in range(7):
        before, after = (
            jax.tree.map(lambda x, g=g: x[g], state.problem_state) for state in (played.before, played.after)
        )
        for pair in range(3):
            parent = pair + 6
            begin = (before.inner["x"][parent], before.time[parent], before.terminated[parent])
            is_done = before.time[parent] == 4
            for member in (pair, pair + 3, parent):
                theta = played.population[g, member].astype(float)
                x, terminated, losses, _ = unroll(problem, [theta] * 2, *begin, before.inner["length"][parent])
                np.testing.assert_allclose(
                    played.evaluation.fitness[g, member], 3 / 6 * np.sum(losses), rtol=1e-4, atol=1e-5
                )
                assert played.evaluation.done[g, member] == is_done
                if not is_done:
                    np.testing.assert_allclose(after.inner["x"][member], x, rtol=1e-4, atol=1e-5)
                    assert bool(after.terminated[member]) == bool(terminated)
                    num_paused += bool(terminated)
            if is_done:
                reset_by_hand(problem, after.inner, [pair, pair + 3, parent])
    assert num_paused > 5


def test_tes_spends_three_windows_per_pair(key):
    played = play(STRATEGIES["tes"](3), Line(horizon=6, window=2), key, num_generations=7)
    np.testing.assert_array_equal(played.evaluation.steps, [0 + 2 + 4 + 18] + [18] * 6)


def test_tes_ignores_the_fitness_of_its_unperturbed_members():
    strategy = STRATEGIES["tes"](NUM_PAIRS)
    population, state = strategy.ask(KEYS[0], strategy.init(KEYS[0], THETA))
    means = []
    for fill in (0.0, -1e9, np.nan):
        fitness = np.concatenate([FITNESS[0], np.full(NUM_PAIRS, fill, np.float32)])
        means.append(strategy.tell(state, population, fitness).mean)
    np.testing.assert_array_equal(means[0], means[1])
    np.testing.assert_array_equal(means[0], means[2])
