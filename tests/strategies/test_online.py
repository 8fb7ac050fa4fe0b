"""Online strategies (nres, pes, gpes, es_single), their biased and whole-episode counterparts, and backpropagation.

Mutations of the code that these tests were seen to catch, one at a time:

- accumulator: not cleared on done; without the windows before; left out of the estimate; weighed alone, half or double;
  joined every window, at the old age, or a window off; sigma of the present instead of the one drawn with.
- perturbation: redrawn every window; never stored; never redrawn; renewed in the wrong rows; held and new rows swapped;
  blocks counted by generation instead of by age; age not advanced or not reset; sigma stale or not stored.
- reset flags: ignored; of the plus or of the minus partner only; of both needed; of any pair for all.
- pairs: one group; adjacent members paired; partners' groups apart; reset keys not shared; differences not halved.
- phases: not staggered; in steps instead of windows; not shuffled; one too many; warm-up one window short, forgotten,
  with another solution, its terminations forgotten, its clock stopped, its steps not counted or counted always.
- windows: scale T / W or W / T confused; a window's mean instead of its share; a terminated member not paused.
- tes: parents ignored, or only the inner state taken from them; parents the members themselves, the plus member, or
  shifted; the unperturbed member perturbed or weighed; scale.
- whole episodes: full_es and bptt on windows; fitness shaped by default.
- tbptt: non-finite gradients kept, or left out leaf by leaf; workers in one group.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo
from tests.the_loop import Decay, Loop, generation, start
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

DECAY = 0.9 * np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]], np.float32)
DRIVE = np.array([[0.8, -0.5, 0.3], [0.2, 0.7, -0.6]], np.float32)
CENTER = np.array([1.0, -0.5], np.float32)
COST = np.array([0.7, -1.3], np.float32)
THETA = np.array([0.4, -0.3, 0.2], np.float32)
SIGMA = 0.5
NEVER = 1e9
QUICKLY = {"xla_cpu_use_fusion_emitters": False}


@pytest.fixture(autouse=True, scope="module")
def compile_quickly():
    """Most of the time goes into compiling. And without fusion, what is equal op by op is so under jit, to the bit."""
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
    terminates: bool = zoo.static(True)  # if not, `step` says so, and the library unrolls it in another way

    def initial_solution(self, key):
        return jnp.asarray(THETA)

    def reset(self, key):
        is_up, is_short = jax.random.bernoulli(key, shape=(2,))
        start = CENTER + jnp.where(is_up, self.spread, -self.spread)
        return {"x": start, "time": jnp.zeros((), jnp.int32), "length": jnp.where(is_short, self.short, NEVER)}

    def step(self, key, solution, inner):
        x, time = DECAY @ inner["x"] + DRIVE @ solution, inner["time"] + 1
        loss = loss_of(self, x) + self.noise * jax.random.uniform(key, minval=-1.0)
        terminated = (time >= inner["length"]) | (x[0] > self.limit) if self.terminates else False
        return {**inner, "x": x, "time": time}, loss, terminated


def loss_of(problem, x):
    """Returns the loss of states `[..., 2]`."""
    return problem.linear * x @ COST + problem.quadratic * (x**2).sum(-1) / 2 + problem.cubic * x**3 @ COST / 3


# By hand, in NumPy


def unroll(problem, thetas, x, time=0, terminated=False, length=NEVER):
    """Unrolls by a step per solution in `thetas`; returns x, terminated, the losses of the steps and their number.

    Everything may have leading axes. Time is the clock's, which runs on where an episode has terminated.
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
    """Returns the fitness of each window of an episode, window w run with `thetas[w]`, and the number of steps."""
    windows = [t // problem.window for t in range(problem.horizon)]
    _, _, losses, num_steps = unroll(problem, [thetas[w] for w in windows], x, length=length)
    scale = len(thetas) / problem.horizon
    return [scale * sum(x for w, x in zip(windows, losses, strict=True) if w == v) for v in range(3)], num_steps


def mean_window_losses(problem, thetas):
    """Returns the fitness of each window, averaged over the starts and lengths of an episode."""
    episodes = [(CENTER + sign * problem.spread, length) for sign in (1, -1) for length in (problem.short, NEVER)]
    return sum(np.array(window_losses(problem, thetas, *e)[0]) for e in episodes) / 4


def differentiate(fn, point):
    """Returns the gradient of a polynomial of degree four at most, for which central differences are exact."""
    return np.array(
        [(8 * (fn(point + e) - fn(point - e)) - (fn(point + 2 * e) - fn(point - 2 * e))) / 12 for e in np.eye(3)]
    )


def smoothed_gradient(fn, num_blocks, sigma):
    """Returns the gradient at THETA of the mean of fn(thetas) over thetas[b] = theta + sigma * noise[b].

    Args:
        fn: Maps `[num_blocks, n, 3]` to `[n]`: a polynomial of degree three at most.
        num_blocks: How many solutions it takes.
        sigma: Standard deviation of the noise.
    """
    size = 3 * num_blocks
    # Up to degree three the mean over these points is that over the noise.
    points = sigma * np.sqrt(size) * np.concatenate([np.eye(size), -np.eye(size)])
    points = points.reshape(2 * size, num_blocks, 3).swapaxes(0, 1)
    return differentiate(lambda theta: np.mean(fn(theta + points)), THETA.astype(float))


def target(problem, blocks, sigma=SIGMA):
    """Returns the gradient of the objective, smoothed by independent noise per block; window w is in `blocks[w]`."""
    return smoothed_gradient(
        lambda thetas: np.mean(mean_window_losses(problem, [thetas[b] for b in blocks]), 0), max(blocks) + 1, sigma
    )


def truncated_target(problem, sigma=SIGMA):
    """Returns the mean over the windows of the smoothed gradient with respect to the window's own solution alone."""

    def fitness(window, thetas):
        others = np.broadcast_to(THETA, thetas[0].shape)
        return mean_window_losses(problem, [thetas[0] if w == window else others for w in range(3)])[window]

    return sum(smoothed_gradient(functools.partial(fitness, window), 1, sigma) for window in range(3)) / 3


@functools.cache
def sampled_target(problem, blocks, num_samples=200_000):
    """Returns `target` for any loss, from pairs of whole episodes: mean, standard error.

    And how often partners terminate in different steps.
    """
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((max(blocks) + 1, num_samples, 3))
    x = CENTER + rng.choice([1, -1], (num_samples, 1)) * problem.spread
    length = rng.choice([problem.short, NEVER], num_samples)
    pairs = [window_losses(problem, [THETA + s * SIGMA * noise[b] for b in blocks], x, length) for s in (1, -1)]
    samples = (np.mean(pairs[0][0], 0) - np.mean(pairs[1][0], 0))[:, None] / 2 * noise.sum(0) / SIGMA
    return *mean_and_error(samples), np.mean(pairs[0][1] != pairs[1][1])


def mean_and_error(samples):
    return samples.mean(0), samples.std(0, ddof=1) / np.sqrt(len(samples))


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


play = jax.jit(generations, static_argnames="num_generations", compiler_options=QUICKLY)


@functools.partial(jax.jit, compiler_options=QUICKLY)
def sample_estimates(strategy, problem, keys):
    def replica(key):
        return generations(strategy, problem, key, num_generations=6).estimate[3:]

    return jax.vmap(replica)(keys)


def sample(id, problem, num_thousands):
    """Returns estimates at a fixed mean, `[1000 * num_thousands, 3 windows, 3 dims]`, after an episode of burn-in.

    By then every worker was reset, so that ages and sums are those of a long run.
    """
    strategy = STRATEGIES[id](3).replace(learning_rate=0.0)
    keys = jax.random.split(jax.random.key(0), (num_thousands // 5, 5000))
    return np.concatenate([sample_estimates(strategy, problem, k) for k in keys]).astype(float)


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
BLOCKS = {"nres": [0, 0, 0], "es_single": [0, 0, 0], "full_es": [0, 0, 0], "gpes": [0, 0, 1], "pes": [0, 1, 2]}
PERIODS = {"pes": 1, "gpes": 2, "nres": None}

VARIANTS = {
    "quadratic": {"noise": 10.0},
    "cubic": {"quadratic": 0.5, "cubic": 1.0},
    "short": {"short": 4.0},  # the second window is cut, the third empty
}


# Bias


def assert_unbiased(samples, expected, resolution, error=0.0):
    """5-sigma test of the mean; it has to tell apart what is further away than `resolution`."""
    mean, own = mean_and_error(samples.mean(1))
    tolerance = 5 * np.hypot(own, error)
    assert np.all(np.abs(mean - expected) < tolerance)
    assert np.linalg.norm(tolerance) < resolution


@pytest.mark.parametrize("id", BLOCKS)
def test_estimate_is_unbiased_on_a_quadratic(id):
    """Where all have the same target, the gradient; the window does not divide the horizon."""
    problem = Line(noise=10.0)
    gradient = target(problem, BLOCKS[id])
    np.testing.assert_allclose(gradient, target(problem, [0, 0, 0], sigma=0.0), rtol=1e-6)
    assert_unbiased(sample(id, problem, 5), gradient, np.linalg.norm(gradient) / 4)


@pytest.mark.parametrize(("id", "num_thousands"), [("nres", 10), ("full_es", 5), ("pes", 10), ("gpes", 30)])
def test_estimate_is_unbiased_on_a_cubic(id, num_thousands):
    """Where the target depends on the blocks; the test tells it from the plain gradient and from those of others."""
    problem = Line(quadratic=0.5, cubic=1.0)
    expected = target(problem, BLOCKS[id])
    others = [target(problem, [0, 0, 0], sigma=0.0), target(problem, BLOCKS["pes" if id == "nres" else "nres"])]
    distances = [np.linalg.norm(other - expected) for other in others]
    assert_unbiased(sample(id, problem, num_thousands), expected, min(d for d in distances if d > 1e-6))


@pytest.mark.parametrize("id", ["nres", "pes"])
def test_estimate_is_unbiased_if_the_window_divides_the_horizon(id):
    problem = Line(horizon=6, window=2, noise=10.0, terminates=False)
    expected = target(problem, BLOCKS[id])
    assert_unbiased(sample(id, problem, 5), expected, np.linalg.norm(expected) / 4)


@pytest.mark.parametrize("id", ["nres", "pes"])
def test_estimate_is_unbiased_if_episodes_differ_in_length(id):
    """Half of them end in their second window."""
    problem = Line(short=4.0)
    expected = target(problem, BLOCKS[id])
    assert_unbiased(sample(id, problem, 10), expected, np.linalg.norm(expected - target(Line(), BLOCKS[id])) / 2)


@pytest.mark.parametrize("id", ["nres", "pes", "full_es"])
def test_estimate_is_unbiased_if_partners_terminate_at_different_times(id):
    """Against pairs of whole episodes, run in NumPy."""
    problem = Line(limit=1.4, noise=0.1)
    expected, error, different = sampled_target(problem, tuple(BLOCKS[id]))
    assert different > 0.3
    assert_unbiased(sample(id, problem, 10), expected, np.linalg.norm(expected) / 4, error)


@pytest.mark.parametrize("id", ["tes", "tbptt"])
def test_truncation_is_biased(id):
    """What they estimate instead is the gradient with respect to the window's own solution."""
    problem = Line(quadratic=0.5, cubic=1.0)
    sigma = SIGMA if id == "tes" else 0.0
    expected, unbiased = truncated_target(problem, sigma), target(problem, [0, 0, 0], sigma)
    bias = np.linalg.norm(expected - unbiased)
    assert bias > 0.3 * np.linalg.norm(unbiased)
    assert_unbiased(sample(id, problem, 5), expected, bias / 4)


# Variance


def fitness_gradients(problem, blocks):
    """Returns the gradient of each window's fitness, linear in theta, by the solution of each block so far."""
    num_blocks = max(blocks) + 1

    def gradient(window, block):
        def fitness(theta):
            thetas = [theta if b == block else THETA for b in blocks]
            return mean_window_losses(problem, thetas)[window]

        return differentiate(fitness, THETA.astype(float))

    return [[gradient(w, b) for b in range(num_blocks) if b <= blocks[w]] for w in range(3)]


@pytest.mark.parametrize("id", BLOCKS)
def test_variance_on_a_linear_loss(id):
    """A pair in a window with block gradients u_1 to u_m has E|g|^2 = m d sum |u_b|^2 + 2 |sum u_b|^2.

    Three pairs are averaged, of nres, pes and gpes one in each window, of es_single all in the same one; their variance
    about the gradient is compared. Li et al. 2023, theorem 2; that of an episode is (d + 1) |g|^2.
    """
    problem = Line(linear=1.0, quadratic=0.0, noise=1.0)
    gradients = fitness_gradients(problem, BLOCKS[id])
    sums = np.array([np.sum(u, axis=0) for u in gradients])
    mean = sums.mean(0)
    np.testing.assert_allclose(mean, target(problem, BLOCKS[id]), rtol=1e-6)
    seconds = [3 * len(u) * np.sum(np.square(u)) + 2 * np.sum(np.sum(u, axis=0) ** 2) for u in gradients]
    expected = (np.mean(seconds) - np.mean(np.sum(sums**2, axis=1))) / 3
    if id == "es_single":
        expected += np.mean(np.sum((sums - mean) ** 2, axis=1))
    if id == "full_es":
        expected = (3 + 1) * np.sum(mean**2) / 3
    variance, error = mean_and_error(np.sum((sample(id, problem, 10) - mean) ** 2, axis=2).mean(1))
    assert np.abs(variance - expected) < 5 * error
    assert 5 * error < 0.2 * expected


# Perturbations and their sums, from a script of fitness and resets


class Script(NamedTuple):
    """What `run_script` returns: arrays with a leading axis of generations."""

    mean: Any  # before
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


run_script_jit = jax.jit(run_script, compiler_options=QUICKLY)
NUM_PAIRS, NUM_GENERATIONS = 4, 12
KEYS = jax.random.split(jax.random.key(3), NUM_GENERATIONS)
DRAWS = np.array([normal_like(k, THETA, num_samples=NUM_PAIRS) for k in KEYS], np.float64)
FITNESS = np.random.default_rng(0).normal(size=(NUM_GENERATIONS, 2 * NUM_PAIRS)).astype(np.float32)
DONE = np.zeros((NUM_GENERATIONS, 2 * NUM_PAIRS), bool)
DONE[[2, 5, 8, 11], 0] = True  # pair 0, told by the plus member alone
DONE[[0, 5, 6], NUM_PAIRS + 1] = True  # pair 1, by the minus member alone, once after a single window
DONE[4, [2, NUM_PAIRS + 2]] = True  # pair 2, by both; pair 3 never
CONSTANT = np.full(NUM_GENERATIONS, SIGMA, np.float32)
CHANGING = SIGMA * np.float32(0.9) ** np.arange(NUM_GENERATIONS, dtype=np.float32)


def script_by_hand(noise_period, sigmas):
    """Returns each pair's perturbation and the sum of all z / sigma of its episode, `[generation, pair, 3]`."""
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
    """A perturbation keeps the sigma it was drawn with; sums are of the pair's episode, that either partner ends."""
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
    np.testing.assert_allclose(script.told.mean, script.mean - 0.05 * np.asarray(script.estimate), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(script.told.generation, np.arange(NUM_GENERATIONS) + 1)


def nine_tenths(generation):
    return 0.9**generation


def test_limits_of_the_noise_period_are_pes_and_nres():
    """Exactly, also in the middle of an episode."""
    make = functools.partial(GPES, **settings(NUM_PAIRS))
    for id, periods in {"pes": [1], "nres": [None, NUM_GENERATIONS]}.items():
        expected = run_script_jit(STRATEGIES[id](NUM_PAIRS), THETA, KEYS, FITNESS, DONE, CHANGING)
        for period in periods:
            got = run_script_jit(make(noise_period=period), THETA, KEYS, FITNESS, DONE, CHANGING)
            for field in ("population", "estimate"):
                np.testing.assert_array_equal(getattr(got, field), getattr(expected, field))


@pytest.mark.parametrize("num_dims", [3, 2**14], ids=["small", "large"])
def test_a_held_perturbation_is_bit_identical_and_a_new_one_is_the_keys(num_dims):
    """Also where there are so many numbers that only new rows are drawn."""
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
    """NRES stores perturbations alone, PES their sum alone."""
    held = {}
    for id in ("nres", "es_single", "pes", "gpes"):
        state = STRATEGIES[id](NUM_PAIRS).init(key, THETA)
        held[id] = (state.perturbation is not None, state.earlier is not None)
        assert all(x.shape == (NUM_PAIRS, 3) for x in (state.perturbation, state.earlier) if x is not None)
    assert held == {"nres": (True, False), "es_single": (True, False), "pes": (False, True), "gpes": (True, True)}


@pytest.fixture(params=["nres", "pes", "gpes", "es_single", "full_es", "tes"])
def midway(request):
    """A strategy in the middle of an episode: its state after `ask`, its population, and how many pairs it has."""
    strategy = STRATEGIES[request.param](NUM_PAIRS)
    state = strategy.init(KEYS[0], THETA)
    for k in KEYS[:2]:
        population, asked = strategy.ask(k, state)
        size = len(population)
        evaluation = zoo.Evaluation(jnp.arange(size) ** 2.0, jnp.zeros(size, bool), jnp.asarray(size))
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
    np.testing.assert_allclose(plus + minus, np.tile(2 * state.mean, (NUM_PAIRS, 1)), rtol=1e-5, atol=1e-6)


def test_invalid_fitness_counts_as_the_worst_and_poisons_nothing(midway):
    strategy, _, _ = midway
    assert strategy.shaping == "none"
    worst = FITNESS[0].copy()
    worst[1] = np.max(np.delete(worst, 1))
    for value in (np.nan, np.inf):
        invalid = FITNESS[0].copy()
        invalid[1] = value
        np.testing.assert_array_equal(estimate_of(midway, invalid), estimate_of(midway, worst))
        if not isinstance(strategy, TES):  # whose unperturbed members are finite here
            np.testing.assert_array_equal(estimate_of(midway, np.full(2 * NUM_PAIRS, value)), np.zeros(3))


# One window per episode: all of them are OpenAI-ES


@functools.partial(jax.jit, static_argnames="fn", compiler_options=QUICKLY)
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
    """Bit by bit, with Adam, also where nres and gpes renew their noise row by row: 8 pairs of 2^13 numbers."""
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
    """Through the loop, whose evaluations say that all is done."""
    problem = zoo.from_function(lambda x: jnp.sum((x - 0.3) ** 4), jnp.asarray(THETA))

    def train(strategy):
        loop, fitness = start(strategy, problem, key), []
        for k in KEYS[:4]:
            loop, f = generation(strategy, problem, loop, k)
            fitness.append(f)
        return loop.state.mean, np.array(fitness)

    expected = train(STRATEGIES["open_es"](NUM_PAIRS))
    for id in ("nres", "pes", "es_single"):
        for got, leaf in zip(train(STRATEGIES[id](NUM_PAIRS)), expected, strict=True):
            np.testing.assert_array_equal(got, leaf)


def test_they_are_open_es_where_a_window_is_an_episode(key):
    """On an unrolled problem; full_es also if the problem's window is shorter, which it ignores."""
    problem = Line(window=None, noise=1.0, short=4.0)
    expected = play(STRATEGIES["open_es"](NUM_PAIRS), problem, key, num_generations=4)
    assert expected.evaluation.done.all()
    for id, played in {"nres": problem, "pes": problem, "full_es": problem.replace(window=3)}.items():
        got = play(STRATEGIES[id](NUM_PAIRS), played, key, num_generations=4)
        np.testing.assert_allclose(got.after.state.mean, expected.after.state.mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got.evaluation.fitness, expected.evaluation.fitness, rtol=1e-5)
        np.testing.assert_array_equal(got.evaluation.steps, expected.evaluation.steps)


def test_tes_is_open_es_where_a_window_is_an_episode(key):
    """Its unperturbed members apart."""
    problem = Line(window=None, noise=1.0, short=4.0)
    expected = play(STRATEGIES["open_es"](NUM_PAIRS), problem, key, num_generations=4)
    got = play(STRATEGIES["tes"](NUM_PAIRS), problem, key, num_generations=4)
    np.testing.assert_allclose(got.evaluation.fitness[:, : 2 * NUM_PAIRS], expected.evaluation.fitness, rtol=1e-5)
    np.testing.assert_allclose(got.estimate, expected.estimate, rtol=1e-4, atol=1e-5)


# The loop by hand


def reset_by_hand(problem, inner, members):
    """Returns the fresh start that members of one group were given, which is one of an episode's."""
    x, length = np.asarray(inner["x"])[members], np.asarray(inner["length"])[members]
    assert np.all(x == x[0])
    assert np.all(length == length[0])
    sign = np.sign(x[0, 0] - CENTER[0])
    np.testing.assert_allclose(x[0], CENTER + sign * problem.spread, rtol=1e-6)
    return x, length


def check_start(problem, state, groups):
    """Checks that each group is at a phase, and in the state to which the initial solution leads from a reset."""
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


def test_trajectory_is_that_of_gpes_by_hand(key):
    """Seven pairs, reset at different times, some paused: from its definition, in NumPy, a pair at a time."""
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
        np.testing.assert_allclose(played.after.state.mean[g], mean, rtol=1e-3, atol=1e-4)
    assert num_reset == 3 * num_pairs
    assert num_paused > 10
    assert np.linalg.norm(mean - THETA) > 0.1


# TES


def test_tes_population():
    strategy = STRATEGIES["tes"](NUM_PAIRS)
    population, state = strategy.ask(KEYS[0], strategy.init(KEYS[0], THETA))
    step = SIGMA * DRAWS[0]
    np.testing.assert_allclose(population[: 2 * NUM_PAIRS], np.concatenate([THETA + step, THETA - step]), rtol=1e-4)
    np.testing.assert_array_equal(population[2 * NUM_PAIRS :], np.tile(state.mean, (NUM_PAIRS, 1)))
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


# Whole episodes, backpropagation


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
    """Of whole episodes from the workers' starts, or of a window from where they are: differences in NumPy."""
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

        mean = played.before.state.mean[g].astype(float)
        np.testing.assert_allclose(played.estimate[g], differentiate(fitness, mean), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(played.after.state.mean[g], mean - 0.01 * played.estimate[g], rtol=1e-5)
        np.testing.assert_array_equal(played.population[g], np.tile(played.before.state.mean[g], (4, 1)))
    assert np.unique(played.before.problem_state.time).tolist() == ([0] if id == "bptt" else [0, 3, 6])


@pytest.mark.parametrize("id", ["bptt", "tbptt"])
def test_backpropagation_ignores_fitness_and_leaves_out_what_is_not_finite(id, key):
    strategy = STRATEGIES[id](4)
    state = strategy.init(key, {"x": jnp.asarray(THETA), "y": 1.0})
    population, asked = strategy.ask(key, state, lambda x: jax.tree.map(jnp.ones_like, x))
    means = [strategy.tell(asked, population, fitness).mean for fitness in ([0.0] * 4, [np.nan, 1.0, np.inf, -5.0])]
    np.testing.assert_array_equal(means[0]["x"], means[1]["x"])
    np.testing.assert_allclose(means[0]["x"], THETA - 0.01, rtol=1e-5)
    for value in (np.nan, np.inf):
        bad = {"x": jnp.array([1.0, value, 1.0]), "y": jnp.asarray(1.0)}
        population, asked = strategy.ask(key, state, lambda x, bad=bad: bad)
        told = strategy.tell(asked, population, [0.0] * 4)
        np.testing.assert_array_equal(told.mean["x"], THETA)
        assert told.mean["y"] == 1


@pytest.mark.parametrize("id", ["bptt", "tbptt"])
def test_backpropagation_needs_a_gradient(id):
    class Rough(Line):
        differentiable = False

    with pytest.raises(TypeError, match=r"BPTT needs a surrogate gradient.*`gradient` method.*differentiable = True"):
        zoo.run(STRATEGIES[id](4), Rough(), num_generations=1)


# Errors, settings, runs


@pytest.mark.parametrize("strategy", [NRES, PES, GPES, ESSingle, FullES])
def test_odd_population_sizes(strategy):
    with pytest.raises(ValueError, match=rf"{strategy.__name__} samples antithetic pairs.*must be even, got 7\. Use 8"):
        strategy(population_size=7)


def test_errors():
    for size in (7, 8):
        with pytest.raises(ValueError, match=rf"TES .*must be a multiple of three, got {size}\. Use 9"):
            TES(population_size=size)
    with pytest.raises(ValueError, match=r"GPES\.noise_period must be at least 1, got 0"):
        GPES(noise_period=0)
    with pytest.raises(TypeError, match=r"GPES\.noise_period must be a whole number, got 1\.5"):
        GPES(noise_period=1.5)


def test_groups():
    for strategy in (NRES, PES, GPES):
        assert strategy(population_size=6).groups.tolist() == [0, 1, 2, 0, 1, 2]
    assert ESSingle(population_size=6).groups.tolist() == [0] * 6
    assert FullES(population_size=6).groups.ids.tolist() == [0, 1, 2, 0, 1, 2]
    assert FullES(population_size=6).groups.whole_episodes
    for shaping_or_size in ({"shaping": "centered_ranks"}, {"antithetic": False}):
        assert FullES(population_size=6, **shaping_or_size).groups.ids.tolist() == [0] * 6
    assert TBPTT(population_size=3).groups.tolist() == [0, 1, 2]
    assert BPTT(population_size=3).groups.ids.tolist() == [0, 1, 2]
    assert BPTT(population_size=3).groups.whole_episodes


class InterruptionError(Exception):
    """Stands for whatever ends a run."""


def test_an_interrupted_run_resumes_bit_identically(tmp_path):
    """In the middle of episodes: the state holds perturbations, ages and sums."""

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
    """All four lower the score, and the budget is in steps, of which a generation costs them different numbers."""
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
        assert 2000 <= curve.steps.iloc[-1] < 2000 + 6 * 6
    last = curves.groupby("strategy").generation.max()
    assert 2000 / 36 <= last["full_es"] < 60
    assert all(2000 / 12 - 1 <= last[id] < 170 for id in ("nres", "tes", "tbptt"))
