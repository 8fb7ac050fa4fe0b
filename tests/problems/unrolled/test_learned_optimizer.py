"""Tests the learned optimizer against its update by hand in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.problems.unrolled.examples import LEARNED, Recorded, jit
from tests.the_loop import is_finite

MOMENTA = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
TIME_SCALES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)


def quadratic(x, center, scale):
    return scale * sum(jnp.sum(jnp.square(x[name] - center[name])) for name in x)


def quadratic_task(scale=1.0, dtype=float):
    """Returns a deterministic task with two tensors, like a small layer."""
    rng = np.random.default_rng(0)
    center, solution = ({"w": rng.normal(size=(3, 2)), "b": rng.normal(size=2)} for _ in range(2))
    cast = functools.partial(jax.tree.map, lambda x: jnp.asarray(x, dtype))
    return zoo.from_function(quadratic, cast(solution), data=(cast(center), jnp.asarray(scale, dtype)))


def learned_update(weights, params, gradients, momenta, time, decays, time_scales, step_size, magnitude_scale):
    """Returns one update of a learned optimizer, computed parameter by parameter, in dictionaries of NumPy arrays.

    Args:
        weights: Layers of the optimizer's network as pairs (kernel, bias). In the first, time features come last.
    """
    new_momenta = {k: [d * m + (1 - d) * gradients[k] for d, m in zip(decays, momenta[k], strict=True)] for k in params}
    new_params = {}
    for name, values in params.items():
        features = [x / np.sqrt(1e-5 + np.mean(x**2)) for x in (gradients[name], values, *new_momenta[name])]
        updated = np.empty_like(values)
        for index in np.ndindex(values.shape):
            x = np.array([feature[index] for feature in features] + [np.tanh(time / s - 1) for s in time_scales])
            for kernel, bias in weights[:-1]:
                x = np.maximum(x @ kernel + bias, 0)
            direction, magnitude = x @ weights[-1][0] + weights[-1][1]
            updated[index] = values[index] - step_size * direction * np.exp(magnitude_scale * magnitude)
        new_params[name] = updated
    return new_params, new_momenta


def layers_of(solution):
    """Returns the layers of the optimizer's network, and joins the two parts of the first: features and time."""
    parts = jax.tree.map(lambda x: np.asarray(x, np.float64), solution["params"])
    features, time, *rest = [parts[f"Dense_{i}"] for i in range(len(parts))]
    assert "bias" not in time
    first = (np.concatenate([features["kernel"], time["kernel"]]), features["bias"])
    return [first, *[(layer["kernel"], layer["bias"]) for layer in rest]]


def test_the_optimizer_network_has_1762_weights(key):
    solution = jax.eval_shape(zoo.make_problem(LEARNED).initial_solution, key)
    assert sum(x.size for x in jax.tree.leaves(solution)) == 1762 == (19 + 1) * 32 + (32 + 1) * 32 + (32 + 1) * 2


@pytest.mark.parametrize(
    ("settings", "time", "scale"),
    [
        ({}, 0, 1e-3),  # a scale at which the epsilon of the root mean square matters
        (
            {
                "step_size": 0.02,
                "magnitude_scale": 0.5,
                "momenta": (0.2, 0.7),
                "time_scales": (2.0, 500.0, 40.0),
                "optimizer_hidden": (5,),
            },
            250,
            1e4,
        ),
    ],
)
def test_updates_of_the_learned_optimizer_are_those_by_hand(settings, time, scale, x64):
    """Four steps equal the update by hand, on tasks with small and with large gradients."""
    key = jax.random.key(0)
    problem = zoo.make_problem(LEARNED, task=quadratic_task(scale, np.float64), **settings)
    solution = jax.tree.map(
        lambda x: x.astype(np.float64) + 0.3 * jax.random.normal(key, x.shape, np.float64),
        jit(problem.initial_solution)(key),
    )
    recorded = Recorded(problem, key, solution, num_steps=4, time=time)
    center, scale = jax.tree.map(np.asarray, problem.task.data)
    params = jax.tree.map(np.asarray, recorded.inners[0].params)
    constants = {
        "decays": settings.get("momenta", MOMENTA),
        "time_scales": settings.get("time_scales", TIME_SCALES),
        "step_size": settings.get("step_size", 0.001),
        "magnitude_scale": settings.get("magnitude_scale", 0.001),
    }
    momenta = {name: [np.zeros_like(value)] * len(constants["decays"]) for name, value in params.items()}
    for i in range(4):
        gradients = {name: 2 * scale * (params[name] - center[name]) for name in params}
        before = params
        params, momenta = learned_update(layers_of(solution), params, gradients, momenta, time + i, **constants)
        inner = recorded.inners[i + 1]
        assert inner.time == time + i + 1
        for name in params:
            got = np.asarray(inner.params[name] - recorded.inners[i].params[name])
            step = params[name] - before[name]
            assert np.abs(step).max() > 0.1 * constants["step_size"]
            np.testing.assert_allclose(got, step, rtol=1e-3, atol=1e-4 * np.abs(step).max())
            np.testing.assert_allclose(inner.optimizer_state[name], momenta[name], rtol=1e-4, atol=1e-8 * scale)


def test_a_learned_optimizer_takes_no_harm_from_a_zero_gradient(key):
    """A zero gradient, as in a dead unit, gives finite updates."""
    problem = zoo.make_problem(LEARNED, task=quadratic_task(0.0), optimizer_hidden=(4,))

    def end(solution):
        inner, loss, _ = problem.step(key, solution, problem.reset(key))
        return loss + sum(jnp.sum(p) for p in jax.tree.leaves(inner.params)), inner

    (value, inner), gradient = jit(jax.value_and_grad(end, has_aux=True))(jit(problem.initial_solution)(key))
    assert is_finite((value, inner, gradient))
    assert any(np.any(np.asarray(g) != 0) for g in jax.tree.leaves(gradient))
