"""Backpropagation through windows (tbptt) and through whole episodes (bptt). full_es also evaluates whole episodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.strategies.online_examples import (
    STRATEGIES,
    THETA,
    Line,
    compile_quickly,  # noqa: F401 - a fixture, of all tests here
    differentiate,
    play,
    unroll,
)


@pytest.mark.parametrize("id", ["full_es", "bptt"])
def test_whole_episodes_whatever_the_window(id, key):
    strategy = STRATEGIES[id](4)
    played = play(strategy, Line(window=3), key, num_generations=4)
    assert played.evaluation.done.all()
    np.testing.assert_array_equal(played.evaluation.steps, [7 * strategy.population_size] * 4)
    np.testing.assert_array_equal(played.after.problem_state.time, 0)
    endless = Line(horizon=None, window=3)
    with pytest.raises(ValueError, match=r"whole episodes, and Line has no horizon.*Use an online strategy \(nres"):
        endless.init(key, strategy.groups, THETA)
    with pytest.raises(ValueError, match="whole episodes, and Line has no horizon"):
        zoo.run(strategy, endless, num_generations=1)


@pytest.mark.parametrize("id", ["bptt", "tbptt"])
def test_backpropagation_is_the_gradient_of_what_the_workers_go_through(id, key):
    """The estimate is the gradient of the losses on the workers' own paths, checked by differences in NumPy.

    The paths of bptt are whole episodes. The paths of tbptt are one window from the workers' current states.
    """
    problem = Line(cubic=0.5, short=5.0)
    played = jax.device_get(play(STRATEGIES[id](4), problem, key, num_generations=4))
    num_steps, scale = (7, 1 / 7) if id == "bptt" else (3, 3 / 7)
    for g in range(4):
        state = jax.tree.map(lambda x, g=g: x[g], played.before.problem_state)

        def fitness(theta, state=state):
            thetas = [np.asarray(theta)] * num_steps
            _, _, losses, _ = unroll(
                problem, thetas, state.inner["x"], state.time, state.terminated, state.inner["length"]
            )
            return scale * np.mean(np.sum(losses, axis=0))

        mean = played.before.state.descent.mean[g].astype(float)
        np.testing.assert_allclose(played.estimate[g], differentiate(fitness, mean), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(played.after.state.descent.mean[g], mean - 0.01 * played.estimate[g], rtol=1e-5)
        np.testing.assert_array_equal(played.population[g], np.tile(played.before.state.descent.mean[g], (4, 1)))
    assert np.unique(played.before.problem_state.time).tolist() == ([0] if id == "bptt" else [0, 3, 6])


@pytest.mark.parametrize("id", ["bptt", "tbptt"])
def test_backpropagation_ignores_fitness_and_leaves_out_what_is_not_finite(id, key):
    strategy = STRATEGIES[id](4)
    state = strategy.init(key, {"x": jnp.asarray(THETA), "y": 1.0})
    population, asked = strategy.ask(key, state, lambda x: jax.tree.map(jnp.ones_like, x))
    fitness = [0.0] * 4, [np.nan, 1.0, np.inf, -5.0]
    means = [strategy.mean(strategy.tell(asked, population, each)) for each in fitness]
    np.testing.assert_array_equal(means[0]["x"], means[1]["x"])
    np.testing.assert_allclose(means[0]["x"], THETA - 0.01, rtol=1e-5)
    for value in (np.nan, np.inf):
        bad = {"x": jnp.array([1.0, value, 1.0]), "y": jnp.asarray(1.0)}
        population, asked = strategy.ask(key, state, lambda x, bad=bad: bad)
        mean = strategy.mean(strategy.tell(asked, population, [0.0] * 4))
        np.testing.assert_array_equal(mean["x"], THETA)
        assert mean["y"] == 1


@pytest.mark.parametrize("id", ["bptt", "tbptt"])
def test_backpropagation_needs_a_gradient(id):
    class Rough(Line):
        differentiable = False

    with pytest.raises(TypeError, match=r"BPTT needs a surrogate gradient.*`gradient` method.*differentiable = True"):
        zoo.run(STRATEGIES[id](4), Rough(), num_generations=1)
