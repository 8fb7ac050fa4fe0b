"""Tests the learning-rate schedule of an MLP against optax's SGD with momentum."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo
from tests.problems.unrolled.examples import MLP, NOISY, Recorded, jit


def check_sgd(task, recorded, optimizer, start=0):
    """Trains with an optax optimizer on the same batches. Returns the loss on each batch before its update."""
    loss_and_gradient = jit(jax.value_and_grad(task.fitness, argnums=1))
    params, state = recorded.inners[0].params, optimizer.init(recorded.inners[0].params)
    state = jax.tree.map(lambda x: jnp.asarray(start, x.dtype) if x.ndim == 0 else x, state)  # sets the step count
    losses = []
    for key, inner in zip(recorded.keys, recorded.inners[1:], strict=True):
        loss, gradient = loss_and_gradient(key, params)
        losses.append(loss)
        updates, state = optimizer.update(gradient, state)
        params = optax.apply_updates(params, updates)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), inner.params, params)
    return losses


def num_different(keys):
    return len({str(jax.random.key_data(key)) for key in keys})


def test_mlp_schedule_is_sgd_with_momentum_on_the_same_batches(key):
    """Steps equal optax's. With held-out data, the loss of a step is on a held-out batch after the update."""
    problem = zoo.make_problem(MLP, hidden=(4,), batch_size=8, decay_time=10.0, held_out=0.2)
    recorded = Recorded(problem, key, jnp.array([-0.5, 0.4]), num_steps=3)

    def rate(t):
        return np.exp(-0.5) / (1 + t / 10) ** np.exp(0.4)

    losses = check_sgd(problem.task, recorded, optax.sgd(rate, momentum=0.9))
    assert num_different(recorded.keys + recorded.outer_keys) == 6  # each step has other batches
    held_out = jit(problem.outer_task.fitness)
    for i in range(3):
        np.testing.assert_allclose(
            recorded.losses[i], held_out(recorded.outer_keys[i], recorded.inners[i + 1].params), rtol=1e-5
        )
        assert abs(recorded.losses[i] - held_out(recorded.outer_keys[i], recorded.inners[i].params)) > 1e-3
        assert abs(recorded.losses[i] - losses[i]) > 1e-3


@pytest.mark.parametrize(
    ("settings", "momentum", "decay_time", "time"),
    [({}, 0.9, 5000, 200), ({"momentum": 0.5, "decay_time": 20}, 0.5, 20, 3)],
)
def test_mlp_schedule_trains_any_task_with_a_gradient(settings, momentum, decay_time, time, key):
    """The schedule trains any task with a gradient. The loss of a step is on its batch, before the update."""
    problem = zoo.make_problem(MLP, task=NOISY, **settings)
    recorded = Recorded(problem, key, jnp.log(jnp.array([0.03, 30.0])), num_steps=3, time=time)
    rate = lambda t: 0.03 / (1 + t / decay_time) ** 30  # noqa: E731
    losses = check_sgd(NOISY, recorded, optax.sgd(rate, momentum=momentum), start=time)
    np.testing.assert_allclose(recorded.losses, losses, rtol=1e-5)
    assert num_different(recorded.keys) == 3


def test_the_search_for_an_mlp_schedule_starts_at_a_setting(key):
    problem = zoo.make_problem(MLP, task=NOISY)
    np.testing.assert_allclose(problem.initial_solution(key), [np.log(0.003), np.log(30)], rtol=1e-6)
    moved = problem.replace(initial_theta=(1.0, 2.0))
    np.testing.assert_array_equal(moved.initial_solution(key), [1.0, 2.0])
