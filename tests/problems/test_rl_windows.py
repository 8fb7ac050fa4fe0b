"""Tests control in windows of an episode by online strategies, and linear policies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.problems.unrolled.examples import jit
from tests.the_loop import is_finite, signature
from zoo.testing.loop import start


@pytest.mark.parametrize(
    ("id", "network", "name", "size"),
    [
        ("Pendulum-v1", "mlp", "pes", 4),
        ("Swimmer-misc", "linear", "nres", 4),
        ("Reacher-misc", "linear", "pes", 2),
        ("Reacher-misc", "mlp", "nres", 2),
    ],
)
def test_online_strategies_control_in_windows(id, network, name, size, key):
    problem = zoo.make_problem(f"rl/{id}", network=network, hidden=(3,), horizon=6, window=2)
    strategy = zoo.make_strategy(name, population_size=size)

    @jit
    def play(key):
        before = start(strategy, problem, key)

        def body(loop, key):
            key_ask, key_evaluate = jax.random.split(key)
            population, state = strategy.ask(key_ask, loop.state, None)
            evaluation, problem_state = problem.evaluate(key_evaluate, population, loop.problem_state)
            return type(loop)(strategy.tell(state, population, evaluation), problem_state), evaluation

        return before, *jax.lax.scan(body, before, jax.random.split(key, 4))

    before, after, evaluations = play(key)
    assert signature(after) == signature(before)
    assert is_finite((after, evaluations))
    num_pairs = size // 2
    phases = before.problem_state.time[:num_pairs]
    assert set(np.asarray(phases)) <= ({0, 2, 4} if num_pairs > 1 else {0})
    assert len(set(np.asarray(phases))) == num_pairs
    # Every member takes two steps. The first generation also counts the pairs' warm-up.
    np.testing.assert_array_equal(evaluations.steps, [2 * size + phases.sum(), 2 * size, 2 * size, 2 * size])
    np.testing.assert_array_equal(evaluations.done[:, :num_pairs], evaluations.done[:, num_pairs:])
    np.testing.assert_array_equal(evaluations.done[:3].sum(axis=0), 1)  # once in the three windows of an episode
    assert np.all(evaluations.fitness != 0)


def test_a_linear_policy_starts_at_zero_without_bias(key):
    for id, shape in (("Pendulum-v1", (3, 1)), ("Swimmer-misc", None), ("Reacher-misc", None)):
        problem = zoo.make_problem(f"rl/{id}", network="linear")
        (kernel,) = jax.tree.leaves(jit(problem.initial_solution)(key))
        observation = problem._observation_size
        assert kernel.shape[0] == observation
        assert kernel.ndim == 2
        assert shape is None or kernel.shape == shape
        assert not kernel.any()
        outputs = problem._network.apply({"params": {"Dense_0": {"kernel": kernel + 2}}}, jnp.ones((5, observation)))
        np.testing.assert_allclose(outputs, 2 * observation * np.ones((5, kernel.shape[1])))
