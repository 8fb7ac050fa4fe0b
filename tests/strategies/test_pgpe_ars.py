"""PGPE, ARS and ClipUp against closed forms and NumPy transcriptions of their papers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo
from tests.the_loop import ask, init, tell
from zoo.strategies.gradient.ars import ARS
from zoo.strategies.gradient.clip_up import clip_up
from zoo.strategies.gradient.open_es import OpenES
from zoo.strategies.gradient.pgpe import PGPE

POINT = np.array([1.0, -2.0, 0.5])
STD = np.array([0.2, 0.7, 1.1])
CURVATURE = np.diag([1.0, 2.0, 3.0]) + 0.3


def cubic(x):
    """Returns x^T A x / 2 + sum x^3, whose gradients are known if x is smoothed by N(m, diag s^2).

    The gradient with respect to m is A m + 3 m^2 + 3 s^2. The gradient with respect to s is A_ii s + 6 m s.
    """
    return 0.5 * x @ CURVATURE @ x + jnp.sum(x**3)


@functools.partial(jax.jit, static_argnums=1)
def evaluate(population, fn=cubic):
    fitness = zoo.map_members(fn, population)
    return zoo.Evaluation(fitness, jnp.ones(fitness.shape, bool), jnp.asarray(len(fitness)))


def test_pgpe_estimates_are_unbiased_without_shaping(key):
    """The means of 40 000 estimates for the mean and for the standard deviations are unbiased (5 sigma)."""
    strategy = PGPE(population_size=6, shaping="none")
    state = init(strategy, key, POINT)._replace(std=np.float32(STD))

    @jax.jit
    @jax.vmap
    def estimate(k):
        population, _ = strategy.ask(k, state)
        told = state, population, evaluate(population)
        return strategy.estimate(*told), strategy.estimate_std(*told)

    expected = CURVATURE @ POINT + 3 * POINT**2 + 3 * STD**2, np.diag(CURVATURE) * STD + 6 * POINT * STD
    for samples, value in zip(estimate(jax.random.split(key, 40_000)), expected, strict=True):
        samples = np.asarray(samples, np.float64)
        error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
        assert np.all(np.abs(samples.mean(axis=0) - value) < 5 * error)
        assert np.all(5 * error < 0.2 * np.abs(value).max())  # the test can see the n - 1 of the baseline


@pytest.mark.parametrize("shaping", ["none", "centered_ranks"])
def test_pgpe_of_equal_stds_estimates_as_open_es(shaping, key):
    strategies = [made(population_size=8, sigma=0.3, shaping=shaping) for made in (PGPE, OpenES)]
    states = [init(strategy, key, {"a": POINT, "b": 1.5}) for strategy in strategies]
    populations = [strategy.ask(key, state)[0] for strategy, state in zip(strategies, states, strict=True)]
    assert all(map(np.array_equal, *map(jax.tree.leaves, populations)))
    evaluation = evaluate(populations[0], lambda x: cubic(x["a"]) + x["b"] ** 2)
    estimates = [
        jax.jit(strategy.estimate)(state, populations[0], evaluation)
        for strategy, state in zip(strategies, states, strict=True)
    ]
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=2e-5, atol=1e-6), *estimates)


@pytest.mark.parametrize("std_learning_rate", [0.1, 3.0])
def test_pgpe_generations_against_numpy(std_learning_rate, x64):
    """Updates equal Sehnke et al. 2010, section 2.3, with the bound of Toklu et al. 2020 and the mean as baseline.

    The baseline is unbiased.
    """
    strategy = PGPE(
        population_size=8,
        sigma=0.5,
        shaping="none",
        optimizer=optax.sgd,
        learning_rate=0.01,
        std_learning_rate=std_learning_rate,
    )
    mean, std = POINT, np.full(3, 0.5)
    state = init(strategy, jax.random.key(0), mean)
    was_bounded = 0
    for k in jax.random.split(jax.random.key(0), 5):
        population, state = ask(strategy, k, state)
        evaluation = evaluate(population)
        state = tell(strategy, state, population, evaluation)
        x, f = np.asarray(population), np.asarray(evaluation.fitness)
        mean_step, std_step = np.zeros(3), np.zeros(3)
        for plus in range(4):
            noise = x[plus] - mean
            np.testing.assert_allclose(x[plus + 4] - mean, -noise, atol=1e-12)
            mean_step += noise * (f[plus] - f[plus + 4]) / 2 / 4
            std_step += ((f[plus] + f[plus + 4]) / 2 - f.mean()) * (noise**2 - std**2) / std / 3
        mean = mean - 0.01 * mean_step
        new_std = std - std_learning_rate * std_step
        was_bounded += np.sum(np.abs(new_std / std - 1) > 0.2)
        std = np.clip(new_std, 0.8 * std, 1.2 * std)
        np.testing.assert_allclose(strategy.mean(state), mean, rtol=1e-9)
        np.testing.assert_allclose(strategy.std(state), std, rtol=1e-9)
    assert was_bounded > 0
    assert was_bounded < 15 or std_learning_rate > 1


def test_clip_up_against_numpy():
    """Steps equal Toklu et al.

    2020, Algorithm 1, for gradients of any size and for zero. The tree counts as one vector.
    """
    rng = np.random.default_rng(0)
    optimizer = clip_up(0.1)
    update = jax.jit(optimizer.update)
    state, velocity, speeds = optimizer.init({"a": jnp.zeros(3), "b": jnp.zeros(())}), np.zeros(4), []
    for scale in (1, 1e-30, 0, 1e30, 3, 3, 3):
        gradient = scale * np.abs(rng.normal(size=4)).astype(np.float32)
        step = gradient / np.linalg.norm(gradient.astype(float)) if scale else gradient
        velocity = 0.9 * velocity + 0.1 * step
        speeds.append(np.linalg.norm(velocity))
        velocity = velocity * min(1, 0.2 / speeds[-1])
        step, state = update({"a": gradient[:3], "b": gradient[3]}, state)
        np.testing.assert_allclose(np.append(step["a"], step["b"]), -velocity, rtol=1e-5)
    assert min(speeds) < 0.2 < max(speeds)


def test_clip_up_by_name(key):
    """The first step is as long as the learning rate, and the learning rate stays a leaf."""
    strategy = PGPE(population_size=6, optimizer="clip_up")

    def first_step(learning_rate):
        made = strategy.replace(learning_rate=learning_rate)
        population, state = made.ask(key, made.init(key, POINT))
        return jnp.linalg.norm(made.mean(made.tell(state, population, evaluate(population))) - POINT)

    np.testing.assert_allclose(jax.jit(jax.vmap(first_step))(np.array([0.1, 0.3])), [0.1, 0.3], rtol=1e-5)


@pytest.mark.parametrize("num_top", [None, 2])
def test_ars_against_numpy(num_top, x64):
    """Updates equal Mania et al. 2018, Algorithm 2, for costs. The step does not depend on the scale of the fitness."""
    key = jax.random.key(0)
    strategy = ARS(population_size=10, sigma=0.2, learning_rate=0.3, num_top_directions=num_top)
    state = init(strategy, key, POINT)
    population, _ = ask(strategy, key, state)
    evaluation = evaluate(population)
    told = tell(strategy, state, population, evaluation)
    x, f = np.asarray(population), np.asarray(evaluation.fitness)
    pairs = [(f[k], f[k + 5], (x[k] - POINT) / 0.2) for k in range(5)]
    pairs = sorted(pairs, key=lambda pair: min(pair[0], pair[1]))[: num_top or 5]
    spread = np.std([value for plus, minus, _ in pairs for value in (plus, minus)])
    gradient = sum((plus - minus) * z for plus, minus, z in pairs) / (len(pairs) * spread)
    np.testing.assert_allclose(told.mean, POINT - 0.3 * gradient, rtol=1e-9)
    scaled = tell(strategy, state, population, f * 1e300)
    np.testing.assert_allclose(scaled.mean, told.mean, rtol=1e-9)
    assert np.array_equal(tell(strategy, state, population, np.ones(10)).mean, POINT)


def test_errors():
    for made in (PGPE, ARS):
        with pytest.raises(ValueError, match="population_size must be even, got 7"):
            made(population_size=7)
    with pytest.raises(ValueError, match=r"num_top_directions must be at most population_size / 2 = 4.*got 5"):
        ARS(population_size=8, num_top_directions=5)
    with pytest.raises(ValueError, match="max_std_change must be at most 1"):
        PGPE(max_std_change=1.5)
