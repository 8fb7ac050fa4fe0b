"""Online strategies (nres, pes, gpes, es_single), their biased and whole-episode counterparts, and backpropagation."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo
from strategies.gradient.bptt import BPTT
from strategies.gradient.es_single import ESSingle
from strategies.gradient.full_es import FullES
from strategies.gradient.gpes import GPES
from strategies.gradient.nres import NRES
from strategies.gradient.open_es import OpenES
from strategies.gradient.pes import PES
from strategies.gradient.tbptt import TBPTT
from strategies.gradient.tes import TES
from strategies.noise import normal_like
from tests.loop import Loop, generation, start

DECAY = 0.9 * np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]], np.float32)
DRIVE = np.array([[0.8, -0.5, 0.3], [0.2, 0.7, -0.6]], np.float32)
CENTER = np.array([1.0, -0.5], np.float32)
COST = np.array([0.7, -1.3], np.float32)
THETA = np.array([0.4, -0.3, 0.2], np.float32)
SIGMA = 0.5
NEVER = 1e9


class Line(zoo.UnrolledProblem):
    """x <- A x + B solution; the loss is a cubic polynomial in x. Variants differ in leaves, so they share programs.

    Half of the episodes start at CENTER + spread and half at CENTER - spread; independently, half terminate after
    `short` steps. An episode also terminates where x[0] exceeds `limit`. A step's noise is added to its loss.
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

    def initial_solution(self, key):
        return jnp.asarray(THETA)

    def reset(self, key):
        is_up, is_short = jax.random.bernoulli(key, shape=(2,))
        start = CENTER + jnp.where(is_up, self.spread, -self.spread)
        return {"x": start, "time": jnp.zeros((), jnp.int32), "length": jnp.where(is_short, self.short, NEVER)}

    def step(self, key, solution, inner):
        x, time = DECAY @ inner["x"] + DRIVE @ solution, inner["time"] + 1
        loss = loss_of(self, x) + self.noise * jax.random.uniform(key)
        return {**inner, "x": x, "time": time}, loss, (time >= inner["length"]) | (x[0] > self.limit)


def loss_of(problem, x):
    """Returns the loss of states `[..., 2]`."""
    return problem.linear * x @ COST + problem.quadratic * (x**2).sum(-1) / 2 + problem.cubic * x**3 @ COST / 3


# The problem by hand, in NumPy and double precision


def unroll(problem, thetas, x, time=0, terminated=False, length=NEVER):
    """Unrolls by one step per solution in `thetas`; returns x, terminated and the loss of each step.

    All may have leading axes. Time is that of the episode's clock, which runs on when a member terminated.
    """
    losses = []
    for theta in thetas:
        is_active = ~np.asarray(terminated) & (np.asarray(time) < problem.horizon)
        moved = x @ DECAY.T.astype(float) + theta @ DRIVE.T.astype(float)
        losses.append(np.where(is_active, loss_of(problem, moved), 0))
        x = np.where(is_active[..., None], moved, x)
        time = time + 1
        terminated = terminated | (is_active & ((time >= length) | (moved[..., 0] > problem.limit)))
    return x, terminated, losses


def num_windows(problem):
    return -(-problem.horizon // problem.window)


def window_losses(problem, thetas, x, length=NEVER):
    """Returns each window's share of the objective of an episode, window w being run with `thetas[w]`."""
    windows = [t // problem.window for t in range(problem.horizon)]
    _, _, losses = unroll(problem, [thetas[w] for w in windows], x, length=length)
    return [sum(loss for w, loss in zip(windows, losses, strict=True) if w == v) / problem.horizon for v in range(3)]


def mean_window_losses(problem, thetas):
    """The same, averaged over the starts and lengths of an episode."""
    episodes = [(CENTER + sign * problem.spread, length) for sign in (1, -1) for length in (problem.short, NEVER)]
    return [sum(shares) / 4 for shares in zip(*[window_losses(problem, thetas, *e) for e in episodes], strict=True)]


def differentiate(fn, point):
    """Returns the gradient of a polynomial of degree four at most: central differences are exact."""
    gradient = []
    for e in np.eye(len(point)):
        gradient.append((8 * (fn(point + e) - fn(point - e)) - (fn(point + 2 * e) - fn(point - 2 * e))) / 12)
    return np.array(gradient)


def smoothed_gradient(fn, num_blocks, sigma):
    """Returns the gradient at THETA of E[fn(blocks)], the blocks being theta plus independent noise each.

    Args:
        fn: Maps solutions, `[num_blocks, n, 3]`, to `[n]`: a polynomial of degree three at most.
        num_blocks: How many solutions it takes.
        sigma: Standard deviation of the noise.
    """
    size = 3 * num_blocks
    # The mean over these points is the expectation, up to degree three.
    points = sigma * np.sqrt(size) * np.concatenate([np.eye(size), -np.eye(size)])
    points = points.reshape(2 * size, num_blocks, 3).swapaxes(0, 1)
    return differentiate(lambda theta: np.mean(fn(theta + points)), THETA.astype(float))


def target(problem, blocks, sigma=SIGMA):
    """Returns the gradient of the objective smoothed by independent noise per block; `blocks[w]` is that of window
    w.""" return smoothed_gradient(
        lambda solutions: sum(mean_window_losses(problem, [solutions[b] for b in blocks])), max(blocks) + 1, sigma
    )


def truncated_target(problem, sigma=SIGMA):
    """Returns the sum over the windows of the smoothed gradient with respect to the window's own solution alone."""

    def loss(window, solutions):
        return mean_window_losses(problem, [solutions[0] if w == window else THETA for w in range(3)])[window]

    return sum(smoothed_gradient(functools.partial(loss, window), 1, sigma) for window in range(3))


def sampled_target(problem, blocks, num_samples=400_000):
    """Returns the same as `target` for any loss, as mean and standard error of antithetic differences of episodes.

    And how often the two members of a pair terminate in different steps.
    """
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((max(blocks) + 1, num_samples, 3))
    x = CENTER + rng.choice([1, -1], (num_samples, 1)) * problem.spread
    length = rng.choice([problem.short, NEVER], num_samples)
    losses, steps = [], []
    for sign in (1, -1):
        thetas = THETA + sign * SIGMA * noise
        losses.append(sum(window_losses(problem, [thetas[b] for b in blocks], x, length)))
        steps.append(sum(unroll(problem, [thetas[blocks[t // 3]]], x, t)[2][0] != 0 for t in range(0)) if False else 0)
    samples = ((losses[0] - losses[1]) / 2)[:, None] * noise.sum(0) / SIGMA
    return samples.mean(0), samples.std(0, ddof=1) / np.sqrt(num_samples)


# The loop


class Generation(NamedTuple):
    """What happened in one generation."""

    before: Loop
    asked: Any
    population: Any
    evaluation: zoo.Evaluation
    estimate: Any
    after: Loop


def play(strategy, problem, loop, keys):
    """Returns the generations, stacked."""

    def body(loop, key):
        key_ask, key_evaluate = jax.random.split(key)
        surrogate = problem.surrogate_gradient(key_evaluate, loop.problem_state)
        population, state = strategy.ask(key_ask, loop.state, surrogate)
        evaluation, problem_state = problem.evaluate(key_evaluate, population, loop.problem_state)
        after = Loop(strategy.tell(state, population, evaluation), problem_state)
        estimate = strategy.estimate(state, population, evaluation)
        return after, Generation(loop, state, population, evaluation, estimate, after)

    return jax.lax.scan(body, loop, keys)[1]


@functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # they run for less than it takes
def sample_estimates(strategy, problem, keys):
    """Returns estimates at a fixed mean, `[len(keys), windows of an episode, 3]`.

    After an episode's windows of burn-in, so that every worker has been reset: ages and sums are those of a long run.
    """

    def replica(key):
        key_start, key_play = jax.random.split(key)
        keys = jax.random.split(key_play, 2 * num_windows(problem))
        return play(strategy, problem, start(strategy, problem, key_start), keys).estimate[len(keys) // 2 :]

    return jax.vmap(replica)(keys)


def sample(strategy, problem, num_replicas=10_000, seed=0):
    keys = jax.random.split(jax.random.key(seed), num_replicas)
    return np.asarray(sample_estimates(strategy, problem, keys), np.float64)


def mean_and_error(samples):
    return samples.mean(0), samples.std(0, ddof=1) / np.sqrt(len(samples))
