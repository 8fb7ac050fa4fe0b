"""Runtimes to targets, expected running times, runtime distributions and data profiles."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import zoo
from tests.benchmarking.test_results import make_pair, make_results
from zoo.benchmarking.pair import Pair
from zoo.benchmarking.runtimes import _steps_to_targets, check_targets
from zoo.loop.files import read_json, write_json
from zoo.reports.tables import format_ert
from zoo.statistics.runtimes import RUNTIME_COLUMNS

NAN = float("nan")
TINY = {"num_seeds": 3, "num_steps": 400, "num_scores": 4, "progress": False}


def timed_pair(strategy, problem, targets, steps, budgets, num_dims=4):
    """Returns a pair with the given runtimes, `[num_seeds][num_targets]`."""
    pair = make_pair(strategy, problem, [[1.0, 0.5]] * len(steps))
    labels = {"strategy": strategy, "problem": problem}
    frames = [
        pd.DataFrame({**labels, "seed": seed, "target": targets, "steps": row, "budget": budget})
        for seed, (row, budget) in enumerate(zip(steps, budgets, strict=True))
    ]
    info = {**pair.info, "num_dims": num_dims}
    return Pair(strategy, problem, info, pair.curve, pair.solution, pd.concat(frames, ignore_index=True))


def make_toy():
    """Returns results of two strategies on two problems; `b` has not run on the second."""
    return make_results(
        timed_pair("a", "p", [1.0, 1e-8], [[8.0, 40.0], [4.0, NAN]], [40, 50]),
        timed_pair("b", "p", [1.0, 1e-8], [[20.0, NAN], [NAN, NAN]], [50, 50]),
        timed_pair("a", "q", [1.0, 1e-8], [[30.0, 90.0], [60.0, 120.0]], [200, 200], num_dims=9),
    )


@pytest.fixture
def toy():
    return make_toy()


# From a run


def test_steps_to_targets():
    values = np.array([NAN, 5.0, 7.0, 0.5, NAN, 0.5, np.inf, -1.0])
    steps = np.array([2, 4, 6, 8, 10, 12, 14, 16])
    np.testing.assert_array_equal(
        _steps_to_targets(values, steps, np.array([9.0, 5.0, 4.0, 0.5, 0.0, -2.0])), [4, 4, 8, 8, 16, NAN]
    )
    np.testing.assert_array_equal(
        _steps_to_targets(values[:6], steps[:6], np.array([5.0, 6.0, 7.0, 8.0]), maximize=True), [4, 6, 6, NAN]
    )


class Bowl(zoo.Problem):
    """A sphere that is quick to compile."""

    targets: tuple[float, ...] | None = zoo.static(default=None)

    @property
    def runtime_targets(self):
        return self.targets

    @property
    def fitness_is_score(self):
        return True

    def initial_solution(self, key):
        return jax.random.normal(key, (3,))

    def fitness(self, key, solution):
        return jnp.sum(solution**2)


def test_recorded_as_a_loop_by_hand_counts_them():
    """Compares with every member of every generation of a plain loop without targets."""
    problem = Bowl(targets=[1.0, 0.1, 0.01, 1e-30])
    strategy = zoo.make_strategy("snes", population_size=7)
    results = zoo.benchmark({"snes": strategy}, {"bowl": problem}, **TINY)
    frame = results.runtimes
    assert tuple(frame) == RUNTIME_COLUMNS
    assert frame.target.tolist() == [*problem.targets] * 3
    assert (frame.budget == 399).all()  # 57 generations of 7

    @jax.jit
    def generation(state, key):
        population, state = strategy.ask(key, state)
        fitness = jnp.sum(population**2, axis=1)
        return strategy.tell(state, population, fitness), fitness

    for seed, rows in frame.groupby("seed"):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), seed), 5)  # start, init, problem, generations
        state = strategy.init(keys[1], problem.initial_solution(keys[0]))
        found, count = {}, 0
        for number in range(57):
            key, _ = jax.random.split(jax.random.fold_in(keys[3], number))
            state, fitness = generation(state, key)
            count += len(fitness)
            for target in problem.targets:
                if (np.asarray(fitness) <= target).any():
                    found.setdefault(target, count)
        np.testing.assert_array_equal(rows.steps, [found.get(target, NAN) for target in problem.targets])
        assert {1.0, 0.1} <= set(found) < set(problem.targets)


def test_a_noisy_problem_is_timed_by_the_score_of_the_mean():
    problem = zoo.make_problem("blackbox/f107", num_dims=3, targets=(30.0, 3.0, 1e-30))
    strategy = zoo.make_strategy("snes", population_size=7, sigma=1.0)
    results = zoo.benchmark({"snes": strategy}, {"ball": problem}, **TINY)
    for seed, rows in results.runtimes.groupby("seed"):
        curve = results.curves[results.curves.seed == seed]
        expected = [curve.steps[curve.value <= target].min() for target in problem.targets]
        np.testing.assert_array_equal(rows.steps, expected)
        assert (rows.budget == curve.steps.max()).all()
    assert results.runtimes.steps.notna().any()


class Timed(Bowl):
    """A problem whose targets were not checked."""

    of_property: Any = zoo.static(default=None)

    @property
    def runtime_targets(self):
        return self.of_property


class Climb(zoo.Problem):
    """A problem whose score is maximised and has few different values."""

    headline: ClassVar[str] = "height"
    maximize: ClassVar[bool] = True

    @property
    def runtime_targets(self):
        return (0.9, 0.1)

    def initial_solution(self, key):
        return jnp.zeros(2)

    def fitness(self, key, solution):
        return -solution[0]

    def score(self, key, solution):
        return {"height": jnp.minimum(jnp.floor(solution[0] * 10) / 10, 0.9)}


def test_a_target_to_climb_to():
    """0.9 in single precision is below 0.9 in double precision, and is reached."""
    settings = {**TINY, "num_scores": 20}
    results = zoo.benchmark(
        {"snes": zoo.make_strategy("snes", population_size=8, sigma=0.1)}, {"c": Climb()}, **settings
    )
    assert results.runtimes.target.tolist() == [0.1, 0.9] * 3  # the easiest first
    for seed, rows in results.runtimes.groupby("seed"):
        curve = results.curves[results.curves.seed == seed]
        assert rows.steps.tolist() == [curve.steps[curve.value > target].min() for target in (0.05, 0.85)]


def test_no_targets_no_runtimes():
    results = zoo.benchmark("random_search", {"f": zoo.from_function(lambda x: x**2, 1.0)}, **{**TINY, "num_steps": 20})
    assert tuple(results.runtimes) == RUNTIME_COLUMNS
    for call in (results.ert, results.plot_ecdf, results.plot_data_profile):
        with pytest.raises(ValueError, match=r"These results have no runtimes.*blackbox/.*property `runtime_targets`"):
            call()


@pytest.mark.parametrize("targets", [1.0, (), (1.0, NAN), "easy", [[1.0]]])
def test_bad_targets_are_noticed_before_anything_runs(targets):
    with pytest.raises(ValueError, match=r"The targets of Timed must be a sequence of finite numbers.*got "):
        zoo.benchmark("random_search", {"p": Timed(of_property=targets)}, **TINY)
    if targets != ():  # the annotation allows an empty tuple
        with pytest.raises(TypeError, match=r"BBOB.targets must be numbers, got "):
            zoo.make_problem("blackbox/sphere", targets=targets)


def test_targets_are_sorted():
    assert check_targets(zoo.make_problem("blackbox/sphere", targets=(1e-3, 10, 1e-3, 1.0))) == (10.0, 1.0, 1e-3)
    assert check_targets(zoo.make_problem("blackbox/sphere", targets=None)) is None
    coco = check_targets(zoo.make_problem("blackbox/sphere"))
    np.testing.assert_allclose(coco, np.logspace(2, -8, 51), rtol=1e-12)


# The folder


def test_saved_and_loaded(tmp_path):
    awkward = [[0.1 + 0.2, NAN], [3.0, NAN]]
    results = make_results(
        timed_pair("1", "nan", [1 / 3, 1e-8], awkward, [40, 50]), make_pair("a", "p", [[1.0, 2.0]] * 2)
    )
    results.save(tmp_path)
    loaded = zoo.Results.load(tmp_path)
    pd.testing.assert_frame_equal(loaded.runtimes, results.runtimes, check_exact=True)
    pd.testing.assert_frame_equal(loaded.ert(), results.ert(), check_exact=True)
    assert len(list(tmp_path.rglob("runtimes.csv"))) == 1  # none for the problem that has no targets


def test_a_folder_from_before_there_were_runtimes(tmp_path):
    """It can be loaded. Only pairs that now have targets are computed again."""
    problems = {"timed": Bowl(targets=(1.0,)), "plain": Bowl()}
    strategy = {"s": zoo.make_strategy("random_search", population_size=4)}
    zoo.benchmark(strategy, dict.fromkeys(problems, problems["plain"]), out=tmp_path, **TINY)
    for path in tmp_path.rglob("pair.json"):
        info = read_json(path)
        del info["num_dims"]
        write_json(path, info)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("pair.json")}
    old = zoo.Results.load(tmp_path)
    assert len(old.runtimes) == 0
    old.report(tmp_path)
    results = zoo.benchmark(strategy, problems, out=tmp_path, **TINY)
    assert results.runtimes.problem.unique().tolist() == ["timed"]
    assert [path.parent.name for path, time in before.items() if path.stat().st_mtime_ns != time] == ["timed__s"]
    again = zoo.benchmark(strategy, problems, out=tmp_path, **TINY)  # resumes
    pd.testing.assert_frame_equal(again.runtimes, results.runtimes, check_exact=True)
    again.plot_ecdf()


def test_other_targets_of_a_property_are_another_benchmark(tmp_path):
    class Other(Climb):
        @property
        def runtime_targets(self):
            return (0.5,)

    Other.__qualname__ = "Climb"
    for problem in (Climb(), Other()):
        results = zoo.benchmark("random_search", {"c": problem}, out=tmp_path, **TINY)
        assert results.runtimes.target.tolist() == sorted(problem.runtime_targets) * 3


# What is computed


def test_expected_running_time(toy):
    ert = toy.ert()
    assert list(ert) == ["problem", "strategy", "target", "ert", "num_successes", "num_seeds"]
    assert ert.to_numpy().tolist() == [
        ["p", "a", 1.0, 6.0, 2, 2],
        ["p", "a", 1e-8, 90.0, 1, 2],  # the seed that failed spent 50
        ["p", "b", 1.0, 70.0, 1, 2],
        ["p", "b", 1e-8, np.inf, 0, 2],
        ["q", "a", 1.0, 45.0, 2, 2],
        ["q", "a", 1e-8, 105.0, 2, 2],
    ]
    assert toy.ert([1e-8]).ert.tolist() == [90.0, np.inf, 105.0]
    with pytest.raises(ValueError, match=r"to the target 0.1 was recorded\. The recorded targets are 1, 1e-08"):
        toy.ert([0.1])


def test_expected_running_time_of_what_is_reached_at_once():
    assert make_results(timed_pair("a", "p", [1.0], [[0.0], [0.0]], [9, 9])).ert().ert.tolist() == [0.0]


# The report


def test_report(toy, tmp_path):
    text = toy.report(tmp_path).read_text()
    assert "| problem | strategy | 1 | 1e-08 |" in text
    assert "| p | a | 6 (2/2) | 90 (1/2) |" in text
    assert "| p | b | 70 (1/2) | never (0/2) |" in text
    for name in ("runtime_ecdf", "data_profile"):
        assert f"]({name}.png)" in text
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_tables_of_expected_running_times():
    many = [10.0 ** (k / 5) for k in range(10, -41, -1)]
    results = make_results(
        timed_pair("a", "p", many, [[float(k) for k in range(51)]], [50]),
        timed_pair("a", "q", [0.5], [[1234.0]], [5000]),
        timed_pair("b", "p", many, [[1.0] * 51], [50]),
    )
    first, second = format_ert(results.ert())
    assert list(first) == ["problem", "strategy", "100", "1", "0.01", "0.0001", "1e-06", "1e-08"]
    assert first.to_numpy()[0].tolist() == ["p", "a", "0 (1/1)", *(f"{k} (1/1)" for k in (10, 20, 30, 40, 50))]
    assert first.strategy.tolist() == ["a", "b"]
    assert second.to_numpy().tolist() == [["q", "a", "1,234 (1/1)"]]
