"""Shared parts of the tests of online strategies: a problem, its gradients in NumPy, the strategies and their loop."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo
from zoo.core.noise import normal_like
from zoo.strategies.gradient.bptt import BPTT
from zoo.strategies.gradient.es_single import ESSingle
from zoo.strategies.gradient.full_es import FullES
from zoo.strategies.gradient.gpes import GPES
from zoo.strategies.gradient.nres import NRES
from zoo.strategies.gradient.open_es import OpenES
from zoo.strategies.gradient.pes import PES
from zoo.strategies.gradient.tbptt import TBPTT
from zoo.strategies.gradient.tes import TES
from zoo.testing.loop import Loop, start

DECAY = 0.9 * np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]], np.float32)
DRIVE = np.array([[0.8, -0.5, 0.3], [0.2, 0.7, -0.6]], np.float32)
CENTER = np.array([1.0, -0.5], np.float32)
COST = np.array([0.7, -1.3], np.float32)
THETA = np.array([0.4, -0.3, 0.2], np.float32)
SIGMA = 0.5
NEVER = 1e9


@pytest.fixture(autouse=True, scope="module")
def compile_quickly():
    """Turns most optimizations off, because the tests spend most of their time compiling.

    Without fusion, a computation under `jit` also equals the same computation operation by operation, bit for bit.
    """
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    jax.config.update(name, True)
    yield
    jax.config.update(name, before)


class Line(zoo.UnrolledProblem):
    """x <- A x + B solution; the loss is a cubic polynomial in x. Variants differ in leaves, so they share programs.

    Half of the episodes start at CENTER + spread and half at CENTER - spread; independently, half terminate after
    `short` steps. An episode also terminates where x[0] exceeds `limit`. Noise of mean zero is added to each loss.
    """

    horizon: int | None = zoo.static(7)
    window: int | None = zoo.static(3)
    linear: float = zoo.number(0.0)
    quadratic: float = zoo.number(1.0)
    cubic: float = zoo.number(0.0)
    noise: float = zoo.number(0.0)
    spread: float = zoo.number(0.5)
    short: float = zoo.number(NEVER)
    limit: float = zoo.number(NEVER)
    terminates: bool = zoo.static(True)  # `False`: `step` says so itself, and the library unrolls in another way

    def initial_solution(self, key):
        return jnp.asarray(THETA)

    def reset(self, key):
        is_up, is_short = jax.random.bernoulli(key, shape=(2,))
        start = CENTER + jnp.where(is_up, self.spread, -self.spread)
        return {"x": start, "time": jnp.zeros((), jnp.int32), "length": jnp.where(is_short, self.short, NEVER)}

    def step(self, key, solution, inner):
        x, time = DECAY @ inner["x"] + DRIVE @ solution, inner["time"] + 1
        loss = loss_of(self, x) + self.noise * jax.random.uniform(key, minval=-1.0)
        terminated = (time.astype(x.dtype) >= inner["length"]) | (x[0] > self.limit) if self.terminates else False
        return {**inner, "x": x, "time": time}, loss, terminated


def loss_of(problem, x):
    """Returns the loss of states `[..., 2]`."""
    return problem.linear * x @ COST + problem.quadratic * (x**2).sum(-1) / 2 + problem.cubic * x**3 @ COST / 3


# By hand, in NumPy


def unroll(problem, thetas, x, time=0, terminated=False, length=NEVER):
    """Runs one step for each solution in `thetas`. Returns x, terminated, the losses of the steps and their number.

    All arguments may have leading axes. `time` keeps counting after an episode has terminated.
    """
    losses, num_steps = [], 0
    for theta in thetas:
        is_active = ~np.asarray(terminated) & (np.asarray(time) < problem.horizon)
        moved = x @ DECAY.T.astype(float) + theta @ DRIVE.T.astype(float)
        losses.append(np.where(is_active, loss_of(problem, moved), 0))
        x = np.where(is_active[..., None], moved, x)
        time, num_steps = time + 1, num_steps + is_active
        terminated = terminated | (is_active & ((time >= length) | (moved[..., 0] > problem.limit)))
    return x, terminated, losses, num_steps


def window_losses(problem, thetas, x, length=NEVER):
    """Returns the fitness of each window of an episode, and the number of steps. Window w uses `thetas[w]`."""
    windows = [t // problem.window for t in range(problem.horizon)]
    _, _, losses, num_steps = unroll(problem, [thetas[w] for w in windows], x, length=length)
    scale = len(thetas) / problem.horizon
    return [scale * sum(x for w, x in zip(windows, losses, strict=True) if w == v) for v in range(3)], num_steps


def mean_window_losses(problem, thetas):
    """Returns the fitness of each window, averaged over the starts and lengths of an episode."""
    episodes = [(CENTER + sign * problem.spread, length) for sign in (1, -1) for length in (problem.short, NEVER)]
    return sum(np.array(window_losses(problem, thetas, *e)[0]) for e in episodes) / 4


def differentiate(fn, point):
    """Returns the gradient of a polynomial of degree at most four, for which these central differences are exact."""
    return np.array(
        [(8 * (fn(point + e) - fn(point - e)) - (fn(point + 2 * e) - fn(point - 2 * e))) / 12 for e in np.eye(3)]
    )


def smoothed_gradient(fn, num_blocks, sigma):
    """Returns the gradient at THETA of the mean of fn(thetas) over thetas[b] = theta + sigma * noise[b].

    Args:
        fn: Maps `[num_blocks, n, 3]` to `[n]`. Must be a polynomial of degree at most three.
        num_blocks: Number of solutions that `fn` takes.
        sigma: Standard deviation of the noise.
    """
    size = 3 * num_blocks
    # Up to degree three, the mean over these points equals the mean over the noise.
    points = sigma * np.sqrt(size) * np.concatenate([np.eye(size), -np.eye(size)])
    points = points.reshape(2 * size, num_blocks, 3).swapaxes(0, 1)
    return differentiate(lambda theta: np.mean(fn(theta + points)), THETA.astype(float))


def target(problem, blocks, sigma=SIGMA):
    """Returns the gradient of the objective, smoothed by independent noise per block. Window w is in `blocks[w]`."""
    return smoothed_gradient(
        lambda thetas: np.mean(mean_window_losses(problem, [thetas[b] for b in blocks]), 0), max(blocks) + 1, sigma
    )


def mean_and_error(samples):
    return samples.mean(0), samples.std(0, ddof=1) / np.sqrt(len(samples))


def assert_unbiased(samples, expected, resolution, error=0.0):
    """Tests the mean at 5 sigma, and checks that the test would notice a difference of `resolution`."""
    mean, own = mean_and_error(samples.mean(1))
    tolerance = 5 * np.hypot(own, error)
    assert np.all(np.abs(mean - expected) < tolerance)
    assert np.linalg.norm(tolerance) < resolution


def reset_by_hand(problem, inner, members):
    """Returns the fresh start of the members of one group, and checks that it is a start of an episode."""
    x, length = np.asarray(inner["x"])[members], np.asarray(inner["length"])[members]
    assert np.all(x == x[0])
    assert np.all(length == length[0])
    sign = np.sign(x[0, 0] - CENTER[0])
    np.testing.assert_allclose(x[0], CENTER + sign * problem.spread, rtol=1e-6)
    return x, length


def check_start(problem, state, groups):
    """Checks that each group is at one phase, and that its state is what the initial solution reaches after a reset."""
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        phase = int(state.time[members[0]])
        assert np.all(np.asarray(state.time)[members] == phase)
        length = float(state.inner["length"][members[0]])
        ends = [
            unroll(problem, np.tile(THETA, (phase, 1)), CENTER + s * problem.spread, length=length) for s in (1, -1)
        ]
        for member in members:
            x = state.inner["x"][member]
            end = min(ends, key=lambda e, x=x: np.abs(e[0] - x).max())
            np.testing.assert_allclose(x, end[0], rtol=1e-5, atol=1e-6)
            assert bool(state.terminated[member]) == bool(end[1])


# The loop


class Generation(NamedTuple):
    """What happened in one generation."""

    before: Loop
    asked: Any
    population: Any
    evaluation: zoo.Evaluation
    estimate: Any
    after: Loop


def generations(strategy, problem, key, *, num_generations):
    """Returns the generations of a run, stacked."""

    def body(loop, key):
        key_ask, key_evaluate = jax.random.split(key)
        surrogate = problem.surrogate_gradient(key_evaluate, loop.problem_state)
        population, state = strategy.ask(key_ask, loop.state, surrogate)
        evaluation, problem_state = problem.evaluate(key_evaluate, population, loop.problem_state)
        after = Loop(strategy.tell(state, population, evaluation), problem_state)
        estimate = strategy.estimate(state, population, evaluation)
        return after, Generation(loop, state, population, evaluation, estimate, after)

    key_start, key_loop = jax.random.split(key)
    loop = start(strategy, problem, key_start)
    return jax.lax.scan(body, loop, jax.random.split(key_loop, num_generations))[1]


play = jax.jit(generations, static_argnames="num_generations")


@jax.jit
def sample_estimates(strategy, problem, keys):
    def replica(key):
        return generations(strategy, problem, key, num_generations=6).estimate[3:]

    return jax.vmap(replica)(keys)


def settings(num_pairs, factor=2):
    return {"population_size": factor * num_pairs, "sigma": SIGMA, "optimizer": optax.sgd, "learning_rate": 0.05}


STRATEGIES = {
    "nres": lambda num_pairs: NRES(**settings(num_pairs)),
    "pes": lambda num_pairs: PES(**settings(num_pairs)),
    "gpes": lambda num_pairs: GPES(noise_period=2, **settings(num_pairs)),
    "es_single": lambda num_pairs: ESSingle(**settings(num_pairs)),
    "full_es": lambda num_pairs: FullES(**settings(num_pairs)),
    "open_es": lambda num_pairs: OpenES(shaping="none", **settings(num_pairs)),
    "tes": lambda num_pairs: TES(**settings(num_pairs, factor=3)),
    "tbptt": lambda num_pairs: TBPTT(population_size=num_pairs, optimizer=optax.sgd),
    "bptt": lambda num_pairs: BPTT(population_size=num_pairs, optimizer=optax.sgd),
}

# A script of keys and fitness

NUM_PAIRS, NUM_GENERATIONS = 4, 12
KEYS = jax.random.split(jax.random.key(3), NUM_GENERATIONS)
DRAWS = np.array([normal_like(k, THETA, num_samples=NUM_PAIRS) for k in KEYS], np.float64)
FITNESS = np.random.default_rng(0).normal(size=(NUM_GENERATIONS, 2 * NUM_PAIRS)).astype(np.float32)
