"""Runs that continue from the result of another run."""

import dataclasses

import jax
import numpy as np
import pytest

import zoo
from tests.loop.examples import BOWL, NOISY, PAIRS, SNES, Walk, assert_same_run


@pytest.mark.parametrize(
    ("strategy", "problem", "unit", "total"),
    [(PAIRS, Walk(), "num_generations", 12), (SNES, NOISY, "num_steps", 72)],
    ids=["walk", "noisy"],
)
def test_it_is_the_run_that_was_not_interrupted(strategy, problem, unit, total):
    expected = zoo.run(strategy, problem, 3, num_scores=6, **{unit: total})
    half = zoo.run(strategy, problem, 3, num_scores=3, **{unit: total // 2})
    state = jax.tree.map(np.array, half.state)
    for _ in range(2):  # the second pass checks that the result is unchanged
        whole = zoo.run(start=half, num_scores=6, **{unit: total})
        assert_same_run(whole, expected)
    jax.tree.map(np.testing.assert_array_equal, half.state, state)
    again = zoo.run(start=zoo.run(start=half, num_scores=4, **{unit: 3 * total // 4}), num_scores=6, **{unit: total})
    assert again.history["steps"].tolist() == expected.history["steps"].tolist()
    jax.tree.map(np.testing.assert_array_equal, again.mean, expected.mean)


def test_numbers_may_change_and_a_target_stops_at_once():
    half = zoo.run(SNES, BOWL, 0, num_generations=4, num_scores=2)
    slower = zoo.run(SNES.replace(mean_learning_rate=0.0), start=half, num_generations=8, num_scores=4)
    jax.tree.map(np.testing.assert_array_equal, slower.mean, half.mean)
    assert slower.strategy.mean_learning_rate == 0
    assert slower.num_generations == 8
    stopped = zoo.run(start=half, target=half.score, num_generations=8, num_scores=4)
    assert (stopped.stopped_by, stopped.num_generations) == ("target", 4)


def test_what_will_not_do_is_named(tmp_path):
    half = zoo.run(SNES, BOWL, 0, num_generations=4, num_scores=2)
    with pytest.raises(ValueError, match=r"has done 4 generations, .*: num_generations=4 leaves no room"):
        zoo.run(start=half, num_generations=4)
    with pytest.raises(ValueError, match="of another strategy or problem"):
        zoo.run(PAIRS, start=half, num_generations=8)
    with pytest.raises(ValueError, match="from checkpoint or from start"):
        zoo.run(start=half, num_generations=8, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="from solution or from start"):
        zoo.run(start=half, num_generations=8, solution=half.mean)
    with pytest.raises(TypeError, match="start to be the result of a run, got dict"):
        zoo.run(start=dataclasses.asdict(half), num_generations=8)
    with pytest.raises(TypeError, match="needs a strategy and a problem, or start"):
        zoo.run(SNES)
