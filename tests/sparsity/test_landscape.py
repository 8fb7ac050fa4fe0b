"""Tests scores between two solutions and around one solution against formulas for a quadratic."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import zoo
from zoo.loop.compiled import run_keys
from zoo.sparsity import landscape
from zoo.sparsity.landscape import barrier, flatness, interpolate

ONE = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": 0.25}
OTHER = {"w": jnp.array([[-1.0, 1.0], [2.0, 3.0]]), "b": -1.0}
WEIGHTS = {"w": np.array([[1.0, 2.0], [3.0, 0.5]]), "b": np.array(4.0)}


class Quadratic(zoo.Problem):
    """A problem with two metrics: half of the weighted squares, and the entry `b`. Lower is better for both."""

    weights: dict = zoo.leaf()

    def initial_solution(self, key):
        return ONE

    def fitness(self, key, solution):
        return sum(jax.tree.leaves(jax.tree.map(lambda h, x: jnp.sum(h * x**2) / 2, self.weights, solution)))

    def score(self, key, solution):
        return {"fitness": self.fitness(key, solution), "b": solution["b"]}


def quadratic(solution, weights=WEIGHTS):
    return sum(np.sum(weights[n] * np.asarray(solution[n], np.float64) ** 2) / 2 for n in weights)


def noisy(key, solution):
    return jnp.sum(solution**2) + jax.random.normal(key)


def values(frame, metric="fitness"):
    return frame[frame.metric == metric].value.to_numpy()


# Between two solutions


@pytest.mark.parametrize("batch_size", [None, 1, 4])
def test_the_score_between_is_the_parabola(batch_size):
    frame = interpolate(Quadratic(weights=WEIGHTS, member_batch_size=batch_size), ONE, OTHER, num_points=11)
    assert list(frame) == ["alpha", "metric", "value"]
    assert len(frame) == 2 * 11
    alpha = frame[frame.metric == "fitness"].alpha.to_numpy()
    np.testing.assert_array_equal(alpha, np.linspace(0, 1, 11))
    cross = sum(np.sum(WEIGHTS[n] * np.asarray(ONE[n]) * np.asarray(OTHER[n])) for n in WEIGHTS)
    a = alpha
    expected = (1 - a) ** 2 * quadratic(ONE) + a**2 * quadratic(OTHER) + a * (1 - a) * cross
    np.testing.assert_allclose(values(frame), expected, rtol=1e-5)
    np.testing.assert_allclose(values(frame, "b"), 0.25 - 1.25 * a, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(values(frame, "b")[[0, -1]], [0.25, -1.0])  # the ends are exact


def test_double_precision_is_kept(x64):
    frame = interpolate(Quadratic(weights=WEIGHTS), jax.tree.map(np.float64, ONE), OTHER, num_points=3)
    middle = {n: (np.asarray(ONE[n], np.float64) + np.asarray(OTHER[n], np.float64)) / 2 for n in ONE}
    np.testing.assert_allclose(values(frame)[1], quadratic(middle), rtol=1e-14)


def test_all_points_see_the_held_out_data_of_the_run_with_that_key():
    problem = zoo.from_function(noisy, jnp.ones(3), takes_key=True)
    result = zoo.run("random_search", problem, 5, num_generations=1, num_scores=1)
    frame = interpolate(problem, result.mean, jnp.zeros(3), 5, num_points=5)
    np.testing.assert_allclose(values(frame)[0], result.score, rtol=1e-6)
    noise = result.score - float(jnp.sum(result.mean**2))
    expected = np.linspace(1, 0, 5) ** 2 * float(jnp.sum(result.mean**2)) + noise
    np.testing.assert_allclose(values(frame), expected, rtol=1e-5, atol=1e-5)
    around = flatness(problem, result.mean, jax.random.key(5), sigmas=[0.0], num_samples=3)
    np.testing.assert_allclose(values(around), result.score, rtol=1e-6)
    assert abs(values(interpolate(problem, result.mean, result.mean, 6, num_points=2))[0] - result.score) > 1e-3


def test_the_same_program_serves_other_solutions_data_and_keys():
    settings = {"num_points": 4}
    interpolate(Quadratic(weights=WEIGHTS), ONE, OTHER, **settings)
    flatness(Quadratic(weights=WEIGHTS), ONE, num_samples=2)
    sizes = landscape._score_between._cache_size(), landscape._score_around._cache_size()
    other = Quadratic(weights=jax.tree.map(lambda h: 2 * h, WEIGHTS))
    got = interpolate(other, OTHER, ONE, 3, **settings)
    mask = {"w": np.eye(2, dtype=bool), "b": True}
    flatness(other, OTHER, 3, num_samples=2, mask=mask, sigmas=[0.0, 1, 2, 3, 4, 5])
    assert sizes == (landscape._score_between._cache_size(), landscape._score_around._cache_size())
    np.testing.assert_allclose(values(got)[[0, -1]], [2 * quadratic(OTHER), 2 * quadratic(ONE)], rtol=1e-6)


class Shifted(zoo.Problem):
    """A problem whose fitness shows the statistics in use."""

    shift: jax.Array | None = zoo.leaf(default=None)

    def initial_solution(self, key):
        return jnp.zeros(2)

    def fitness(self, key, solution):
        return jnp.sum(solution) + (0.0 if self.shift is None else self.shift)

    def init_statistics(self):
        return jnp.zeros(())

    def with_statistics(self, statistics):
        return self.replace(shift=statistics)


@pytest.mark.parametrize(
    ("own", "given", "expected"),
    [(None, None, 0.0), (2.0, None, 2.0), (2.0, (), 2.0), (None, 3.0, 3.0), (2.0, 3.0, 3.0), (2.0, 0.0, 0.0)],
)
def test_the_statistics_given_go_before_the_problems_own(own, given, expected):
    problem, x = Shifted(shift=own), jnp.zeros(2)
    assert (values(interpolate(problem, x, x, num_points=2, statistics=given)) == expected).all()
    assert values(flatness(problem, x, sigmas=[0.0], num_samples=1, statistics=given)) == expected


def test_observations_are_normalised_by_the_statistics_given(key):
    settings = {"network": "linear", "horizon": 60, "num_score_episodes": 4, "normalize_observations": True}
    problem = zoo.make_problem("rl/CartPole-v1", **settings)
    solution = jax.tree.map(lambda x: jax.random.normal(key, x.shape), problem.initial_solution(key))
    zero = jax.tree.map(jnp.zeros_like, solution)
    plain = problem.init_statistics()
    shifted = plain._replace(mean=jnp.array([0.0, 1.0, 0.5, -1.0]), variance=jnp.array([1.0, 0.1, 0.1, 0.1]))
    score = jax.jit(lambda statistics: problem.with_statistics(statistics).score(run_keys(key).score, solution))
    ends = []
    for statistics in (plain, shifted):
        frame = interpolate(problem, solution, zero, key, num_points=2, statistics=statistics)
        assert values(frame, "return")[0] == score(statistics)["return"]
        ends.append(values(frame, "return"))
    assert ends[0][0] != ends[1][0]
    assert ends[0][1] == ends[1][1]  # a network of zeros ignores its observations


# The barrier


def path(*scores):
    alpha = np.linspace(0, 1, len(scores))
    return pd.DataFrame({"alpha": alpha, "metric": "loss", "value": np.asarray(scores, float)})


@pytest.mark.parametrize(
    ("scores", "maximize", "expected"),
    [
        ((1.0, 4.0, 3.0), False, 2.0),  # 2 above the middle of the straight line, which is 2
        ((1.0, 4.0, 3.0), True, 0.0),
        ((1.0, 0.5, 3.0), True, 1.5),
        ((3.0, 2.0, 1.0), False, 0.0),  # a slope is no barrier
        ((2.0, 1.0, 0.0, 1.0, 2.0), False, 0.0),
        ((0.0, np.nan, 0.0), True, np.inf),
        ((0.0, np.inf, 0.0), False, np.inf),
        ((np.nan, 1.0, 0.0), False, np.nan),
        ((1.0, 2.0), False, 0.0),
    ],
)
def test_the_barrier_is_the_largest_shortfall_below_the_straight_line(scores, maximize, expected):
    frame = path(*scores)
    assert barrier(frame, "loss", maximize) == pytest.approx(expected, nan_ok=True)
    assert barrier(frame[::-1], "loss", maximize) == pytest.approx(expected, nan_ok=True)


def test_the_barrier_of_a_quadratic():
    """A concave quadratic lies above its chord by alpha (1 - alpha) |one - other|^2 / 2, weighted."""
    problem = Quadratic(weights=jax.tree.map(np.negative, WEIGHTS))
    frame = interpolate(problem, ONE, OTHER, num_points=5)
    difference = {n: np.asarray(ONE[n]) - np.asarray(OTHER[n]) for n in ONE}
    assert barrier(frame, "fitness", maximize=False) == pytest.approx(quadratic(difference) / 4, rel=1e-5)
    assert barrier(frame, "fitness", maximize=True) == 0


# Around a solution


def test_the_mean_score_around_a_quadratic_is_larger_by_the_trace():
    """The mean is f(x) + sigma^2 / 2 sum h, and the variance is sigma^2 sum (h x)^2 + sigma^4 / 2 sum h^2."""
    num_samples, sigmas = 2000, (0.0, 0.1, 1.0)
    mask = {"w": np.array([[True, False], [True, True]]), "b": np.array(False)}
    for kept in (mask, None):
        problem = Quadratic(weights=WEIGHTS, member_batch_size=1000)
        frame = flatness(problem, ONE, 1, sigmas=sigmas, num_samples=num_samples, mask=kept)
        assert list(frame) == ["sigma", "sample", "metric", "value"]
        table = frame[frame.metric == "fitness"].pivot(index="sample", columns="sigma", values="value")
        assert table.shape == (num_samples, 3)
        assert (table[0.0] == np.float32(quadratic(ONE))).all()
        hx = [np.ravel(WEIGHTS[n] * np.asarray(ONE[n]))[np.ravel(mask[n] | (kept is None))] for n in WEIGHTS]
        h = np.concatenate([np.ravel(WEIGHTS[n])[np.ravel(mask[n] | (kept is None))] for n in WEIGHTS])
        for sigma in sigmas[1:]:
            mean = quadratic(ONE) + sigma**2 / 2 * h.sum()
            variance = sigma**2 * np.sum(np.concatenate(hx) ** 2) + sigma**4 / 2 * np.sum(h**2)
            error = np.sqrt(variance / num_samples)
            assert abs(table[sigma].mean() - mean) < 4 * error
            assert table[sigma].std() == pytest.approx(np.sqrt(variance), rel=0.1)
        moved = values(frame, "b").reshape(3, -1) != 0.25
        assert moved[1:].all() if kept is None else not moved.any()


def test_directions_are_the_same_at_every_sigma_and_differ_between_samples():
    problem = zoo.from_function(lambda x: jnp.sum(x**2), jnp.zeros(4))
    frame = flatness(problem, jnp.zeros(4), 2, sigmas=[0.5, 2.0], num_samples=5)
    narrow, wide = values(frame).reshape(2, 5)
    np.testing.assert_allclose(wide, 16 * narrow, rtol=1e-5)
    assert len(set(narrow)) == 5


def test_a_problem_by_its_id_and_a_scalar_solution():
    assert values(flatness("blackbox/sphere", jnp.zeros(10), sigmas=[0.0], num_samples=1)) > 0
    problem = zoo.from_function(lambda x: x**2, 3.0)
    np.testing.assert_allclose(values(interpolate(problem, 3.0, 1.0, num_points=3)), [9, 4, 1], rtol=1e-6)
    assert values(flatness(problem, 3.0, sigmas=[0.0], num_samples=1)) == 9


# Errors


PROBLEM = Quadratic(weights=WEIGHTS)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: interpolate(PROBLEM, ONE, ONE["w"]), ValueError, r"other .* expected a dict, got shape \(2, 2\)\."),
        (
            lambda: interpolate(PROBLEM, ONE, {**ONE, "w": ONE["w"][:1]}),
            ValueError,
            r"other .* expected shape \(2, 2\) in w, got \(1, 2\)",
        ),
        (lambda: interpolate(PROBLEM, ONE, {**ONE, "b": 1}), TypeError, r"\['b'\] is int"),
        (lambda: interpolate(PROBLEM, ONE, ONE, num_points=1), ValueError, r"num_points must be at least 2, got 1"),
        (lambda: interpolate(PROBLEM, ONE, ONE, "key"), TypeError, r"key must be a random key"),
        (lambda: interpolate(PROBLEM, ONE, ONE, statistics={"mean": 1.0}), ValueError, r"this Quadratic gathers"),
        (lambda: interpolate("blackbox/spere", ONE, ONE), ValueError, r"[Dd]id you mean"),
        (lambda: flatness(PROBLEM, ONE, sigmas=[-0.1]), ValueError, r"none negative, got \[-0.1\]"),
        (lambda: flatness(PROBLEM, ONE, sigmas=[np.nan]), ValueError, r"sigmas must be"),
        (lambda: flatness(PROBLEM, ONE, sigmas=[]), ValueError, r"one or more"),
        (
            lambda: flatness(PROBLEM, ONE, num_samples=0),
            ValueError,
            r"num_samples must be at least 1, got 0",
        ),
        (lambda: flatness(PROBLEM, ONE, mask={"w": True}), ValueError, r"mask must have the structure"),
        (lambda: flatness(PROBLEM, ONE, mask={"w": np.ones(3, bool), "b": True}), ValueError, r"mask must broadcast"),
        (
            lambda: flatness(PROBLEM, ONE, mask=ONE),
            TypeError,
            r"mask must hold .* got \['float', 'float32'\]",
        ),
        (
            lambda: barrier(path(1, 2, 1), "accuracy", True),
            ValueError,
            r"metric must be one of \['loss'\] .* got 'accuracy'",
        ),
        (lambda: barrier(path(1, 2, 1)[:2], "loss", True), ValueError, r"each alpha from 0 to 1 once"),
        (lambda: barrier(pd.concat([path(1, 2)] * 2), "loss", True), ValueError, r"each alpha from 0 to 1 once"),
        (lambda: barrier(path(1, 2).drop(columns="alpha"), "loss", True), ValueError, r"\['alpha'\] missing"),
    ],
)
def test_errors_say_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()
