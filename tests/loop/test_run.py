"""One run: bookkeeping, budgets, stopping, keys, checkpoints; and several seeds at once."""

import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import zoo
from zoo.core.keys import is_key
from zoo.loop.budget import Budget
from zoo.loop.drive import drive

TRACES = []


def bowl(x):
    TRACES.append(1)
    return jnp.sum((x - 1) ** 2)


def noisy_bowl(key, x, center):
    return jnp.sum((x["a"] - center) ** 2) + 0.1 * jax.random.normal(key, ())


BOWL = zoo.from_function(bowl, jnp.zeros(3))
NOISY = zoo.from_function(noisy_bowl, {"a": jnp.zeros(2)}, data=(jnp.array([1.0, 2.0]),), takes_key=True)
SNES = zoo.make_strategy("snes", population_size=6, sigma=0.2)
SEARCH = zoo.make_strategy("random_search", population_size=2)
PAIRS = zoo.make_strategy("open_es", population_size=4, shaping="none")
# With these, all segments have two generations, and one compiled program serves many tests.
BUDGET = {"num_generations": 10, "num_scores": 5}


class Walk(zoo.UnrolledProblem):
    """Inner states with random keys, episodes that end at random, and statistics."""

    horizon: int | None = zoo.static(6)
    window: int | None = zoo.static(2)
    hazard: float = zoo.number(0.3)

    def initial_solution(self, key):
        return {"drift": jnp.zeros(2), "offset": jnp.zeros(())}

    def reset(self, key):
        return {"key": key, "x": jax.random.uniform(key, (2,))}

    def step(self, key, solution, inner):
        noise = jax.random.uniform(inner["key"], (3,))
        x = inner["x"] + solution["drift"] + 0.1 * noise[:2]
        loss = jnp.sum((x - solution["offset"]) ** 2)
        return {"key": jax.random.fold_in(inner["key"], 1), "x": x}, loss, noise[2] < self.hazard

    @property
    def differentiable(self):
        return False

    def init_statistics(self):
        return {"sum": jnp.zeros(2)}

    def pool_statistics(self, statistics, inner):
        return {"sum": statistics["sum"] + jnp.sum(inner["x"], axis=0)}, inner


class Gain(zoo.Problem):
    """A score to maximise."""

    headline = "gain"
    maximize = True

    def initial_solution(self, key):
        return jnp.zeros(3)

    def fitness(self, key, solution):
        return jnp.sum((solution - 1) ** 2)

    def score(self, key, solution):
        return {"other": jnp.zeros(()), "gain": -self.fitness(key, solution)}

    @property
    def suggested_num_steps(self):
        return 50


def plain(tree):
    return [
        np.asarray(jax.random.key_data(x) if is_key(x) else x)  # pyright: ignore[reportArgumentType]
        for x in jax.tree.leaves(tree)
    ]


def assert_same(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    for x, y in zip(plain(tree), plain(other), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def assert_same_scores(scores, other):
    assert_same({**scores, "seconds": 0}, {**other, "seconds": 0})


def assert_same_run(result, other):
    """Bit-identical, apart from the seconds."""
    assert_same(result.state, other.state)
    assert_same(result.problem_state, other.problem_state)
    assert_same(result.mean, other.mean)
    assert_same(result.best_solution, other.best_solution)
    assert result.best_fitness == other.best_fitness
    assert result.metrics == other.metrics
    assert_same(result.history, other.history)
    assert_same_scores(result.scores, other.scores)
    assert result.stopped_by == other.stopped_by


def attempt(call, *args, **kwargs):
    """Returns the result of a call and its error, one of them None."""
    try:
        return call(*args, **kwargs), None
    except (ValueError, TypeError, RuntimeError) as error:
        return None, error


@pytest.fixture(scope="module")
def result():
    return zoo.run(SNES, BOWL, 0, **BUDGET)


@pytest.fixture(scope="module")
def walk():
    return zoo.run(PAIRS, Walk(), 0, num_generations=12, num_scores=6)


# Bookkeeping


def test_history(result):
    assert list(result.history) == ["steps", "best_fitness", "mean_fitness"]
    assert result.history["steps"].tolist() == [6 * (k + 1) for k in range(10)]
    assert result.num_generations == 10
    assert result.num_steps == 60
    assert np.isfinite(result.history["mean_fitness"]).all()
    assert (result.history["best_fitness"] < result.history["mean_fitness"]).all()
    assert len(np.unique(result.history["best_fitness"])) == 10


def test_best_member(result):
    assert result.best_fitness == result.history["best_fitness"].min()
    np.testing.assert_allclose(bowl(result.best_solution), result.best_fitness, rtol=1e-5)
    # The best member is not the one of the last generation here, and not the mean.
    assert float(bowl(result.mean)) != result.best_fitness


def test_scores(result):
    assert result.scores["generation"].tolist() == [0, 2, 4, 6, 8, 10]
    assert result.scores["steps"].tolist() == [0, 12, 24, 36, 48, 60]
    assert result.scores["seconds"][0] == 0
    assert (np.diff(result.scores["seconds"]) > 0).all()
    assert result.scores["fitness"][0] == 3.0  # the initial solution
    np.testing.assert_allclose(result.scores["fitness"][-1], bowl(result.mean), rtol=1e-6)
    assert result.metrics == {"fitness": result.scores["fitness"][-1]}
    assert result.score == result.metrics["fitness"]
    assert result.scores["fitness"][-1] < result.scores["fitness"][0]
    assert result.seconds == result.scores["seconds"][-1]
    assert result.compile_seconds > 0
    assert result.stopped_by == "budget"


def test_every_scoring_sees_the_same_data():
    problem = zoo.from_function(lambda key, x: jnp.sum(x * 0) + jax.random.normal(key), jnp.zeros(2), takes_key=True)
    result = zoo.run(SEARCH, problem, 0, **BUDGET)
    assert len(np.unique(result.history["best_fitness"])) == 10
    assert len(np.unique(result.scores["fitness"])) == 1
    assert result.scores["fitness"][0] not in result.history["best_fitness"]  # held out


def test_curve(result):
    frame = result.curve()
    pd.testing.assert_frame_equal(frame, pd.DataFrame(result.scores))
    assert list(frame) == ["generation", "steps", "seconds", "fitness"]
    assert len(frame) == 6


def test_result_holds_what_ran(result):
    assert result.strategy == SNES
    assert result.problem is BOWL
    assert_same(result.mean, SNES.mean(result.state))
    assert result.mean.shape == BOWL.solution.shape


def test_uneven_scorings():
    result = zoo.run(SNES, BOWL, 0, num_generations=10, num_scores=7)
    assert result.scores["generation"].tolist() == [0, 2, 3, 5, 6, 8, 9, 10]
    result = zoo.run(SNES, BOWL, 0, num_generations=3, num_scores=100)
    assert result.scores["generation"].tolist() == [0, 1, 2, 3]


def test_each_generation_has_its_own_key():
    # Random search samples around a fixed centre, so equal keys would repeat the same members.
    result = zoo.run(SEARCH, BOWL, 0, num_generations=20, num_scores=10)
    assert len(np.unique(result.history["mean_fitness"])) == 20


def test_steps_of_episodes_that_end_early(walk):
    steps = walk.history["steps"]
    increments = np.diff(steps, prepend=0)
    assert (increments[1:] <= 4 * 2).all()
    assert len(np.unique(increments)) > 2
    assert walk.num_steps == steps[-1] < 12 * 4 * 2
    np.testing.assert_array_equal(walk.scores["steps"][1:], steps[1::2])


@pytest.mark.parametrize("worst", [np.nan, np.inf])
def test_members_without_a_number_are_not_the_best(worst):
    problem = zoo.from_function(lambda x: jnp.where(x[0] > 0, worst, jnp.sum(x**2)), jnp.zeros(2))
    result = zoo.run(SNES, problem, 0, num_generations=6, num_scores=3)
    assert np.isfinite(result.best_fitness)
    assert result.best_fitness == result.history["best_fitness"].min()
    assert result.best_solution[0] <= 0
    assert np.isfinite(result.history["mean_fitness"]).all()


def test_nothing_but_nan():
    problem = zoo.from_function(lambda x: jnp.sum(x) * jnp.nan, jnp.ones(2))
    result = zoo.run(SEARCH, problem, 0, num_generations=2, num_scores=1)
    assert result.best_fitness == np.inf
    assert result.best_solution.tolist() == [1.0, 1.0]
    assert result.num_generations == 2


# Budgets


@pytest.mark.parametrize(("num_steps", "generations"), [(1, 1), (6, 1), (7, 2), (11, 2), (12, 2)])
def test_a_budget_in_steps_ends_with_the_generation_that_reaches_it(num_steps, generations):
    result = zoo.run(SNES, BOWL, 0, num_steps=num_steps, num_scores=1)
    assert result.num_generations == generations
    assert result.num_steps == 6 * generations
    assert result.scores["generation"].tolist() == [0, generations]


def test_a_budget_in_steps_of_dynamic_cost(walk):
    steps = walk.history["steps"]
    num_steps = int(steps[7]) - 1
    result = zoo.run(PAIRS, Walk(), 0, num_steps=num_steps, num_scores=-(-num_steps // 8))
    assert result.history["steps"][-2] < num_steps <= result.num_steps
    np.testing.assert_array_equal(result.history["steps"], steps[:8])
    np.testing.assert_array_equal(result.history["best_fitness"], walk.history["best_fitness"][:8])


def test_more_scorings_than_generations_in_steps():
    result = zoo.run(SNES, BOWL, 0, num_steps=12, num_scores=12)
    assert result.scores["generation"].tolist() == [0, 1, 2]
    assert result.scores["steps"].tolist() == [0, 6, 12]


def test_generations_and_steps_are_the_same_budget(result):
    other = zoo.run(SNES, BOWL, 0, num_steps=60, num_scores=5)
    assert_same_run(result, other)


def test_the_default_budget_is_what_the_problem_suggests():
    result = zoo.run("snes", Gain())
    assert result.strategy.population_size == 7
    assert result.num_steps == 56  # the first multiple of 7 that reaches 50


def test_one_budget_only():
    with pytest.raises(ValueError, match="one budget"):
        zoo.run(SNES, BOWL, num_generations=2, num_steps=20)


@pytest.mark.parametrize("name", ["num_generations", "num_steps", "num_scores"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, float("nan"), float("inf"), "100"])
def test_bad_budgets(name, value):
    settings = {"num_generations": 2, name: value} if name == "num_scores" else {name: value}
    with pytest.raises(ValueError, match=rf"{name} must be"):
        zoo.run(SNES, BOWL, **settings)


def test_whole_numbers_of_other_types_are_budgets():
    assert zoo.run(SNES, BOWL, num_generations=np.int64(2), num_scores=1.0).num_generations == 2
    assert zoo.run(SNES, BOWL, num_steps=1e1, num_scores=1).num_steps == 12


class Expensive(Gain):
    """Half a billion steps per generation."""

    def evaluate(self, key, population, state):
        evaluation, state = super().evaluate(key, population, state)
        return evaluation._replace(steps=jnp.asarray(2**29, jnp.int32)), state


def test_budgets_beyond_32_bits():
    result = zoo.run(SEARCH, Expensive(), num_steps=5 * 2**29 - 1, num_scores=5)
    assert result.history["steps"].tolist() == [2**29 * (k + 1) for k in range(5)]


def test_a_segment_beyond_32_bits():
    result = zoo.run(SEARCH, Expensive(), num_steps=5 * 2**29 - 1, num_scores=1)
    assert result.num_generations == 5
    assert result.num_steps == 5 * 2**29


class Stuck(zoo.UnrolledProblem):
    """An endless episode that terminates nevertheless, after which no step is spent."""

    horizon: int | None = zoo.static(None)
    window: int | None = zoo.static(2)

    def initial_solution(self, key):
        return jnp.zeros(2)

    def reset(self, key):
        return jnp.zeros(())

    def step(self, key, solution, inner):
        return inner + 1, jnp.sum(solution**2), inner > 2


def test_a_budget_in_steps_ends_though_no_more_steps_are_spent(monkeypatch):
    advance, calls = zoo.loop.drive.compiled.advance, []

    def count(*args, **kwargs):
        calls.append(1)
        if len(calls) > 20:
            pytest.fail("the run goes on without spending steps")
        return advance(*args, **kwargs)

    monkeypatch.setattr(zoo.loop.drive.compiled, "advance", count)
    _, error = attempt(zoo.run, PAIRS, Stuck(), num_steps=1000, num_scores=4)
    assert error is None or "step" in str(error)


# Segments


@pytest.mark.parametrize("num_scores", [1, 3, 10])
def test_numbers_do_not_depend_on_the_scorings(result, num_scores):
    other = zoo.run(SNES, BOWL, 0, num_generations=10, num_scores=num_scores)
    assert_same(result.history, other.history)
    assert_same(result.state, other.state)
    assert_same(result.best_solution, other.best_solution)
    assert result.metrics == other.metrics


def test_numbers_of_a_random_problem_do_not_depend_on_the_scorings(walk):
    other = zoo.run(PAIRS, Walk(), 0, num_generations=12, num_scores=2)
    assert_same(walk.history, other.history)
    assert_same(walk.state, other.state)
    assert_same(walk.problem_state, other.problem_state)
    assert walk.metrics == other.metrics


def test_history_over_the_longest_segment():
    long = zoo.run(SEARCH, BOWL, 0, num_generations=1030, num_scores=1)
    assert long.num_generations == 1030
    assert long.history["steps"].tolist() == [2 * (k + 1) for k in range(1030)]
    assert long.scores["generation"].tolist() == [0, 1030]
    assert long.best_fitness == long.history["best_fitness"].min()
    short = zoo.run(SEARCH, BOWL, 0, num_generations=1030, num_scores=515)
    assert_same(long.history, short.history)
    assert_same(long.state, short.state)
    steps = zoo.run(SEARCH, BOWL, 0, num_steps=2060, num_scores=1)
    assert_same(long.history, steps.history)


# Stopping


def test_a_target_to_minimise(result):
    scores = result.scores["fitness"]
    assert scores[3] < scores[1:3].min()
    target = float((scores[3] + scores[1:3].min()) / 2)  # passed after generation 6
    stopped = zoo.run(SNES, BOWL, 0, target=target, **BUDGET)
    assert stopped.stopped_by == "target"
    assert stopped.num_generations == 6
    assert stopped.score <= target
    assert (stopped.scores["fitness"][:-1] > target).all()
    np.testing.assert_array_equal(stopped.history["best_fitness"], result.history["best_fitness"][:6])
    missed = zoo.run(SNES, BOWL, 0, target=-1.0, **BUDGET)
    assert missed.stopped_by == "budget"
    assert_same_run(missed, result)


def test_a_target_to_maximise():
    free = zoo.run(SNES, Gain(), 0, **BUDGET)
    assert free.scores["gain"][3] > free.scores["gain"][1:3].max()
    target = float((free.scores["gain"][3] + free.scores["gain"][1:3].max()) / 2)
    stopped = zoo.run(SNES, Gain(), 0, target=target, **BUDGET)
    assert stopped.stopped_by == "target"
    assert stopped.num_generations == 6
    assert stopped.score >= target
    assert (stopped.scores["gain"][:-1] < target).all()
    assert stopped.metrics == {"other": 0.0, "gain": stopped.scores["gain"][-1]}
    assert zoo.run(SNES, Gain(), 0, target=1.0, **BUDGET).stopped_by == "budget"


def test_a_target_met_exactly(result):
    stopped = zoo.run(SNES, BOWL, 0, target=float(result.scores["fitness"][2]), **BUDGET)
    assert stopped.num_generations == 4


def test_a_callback_sees_progress(result):
    seen = []
    other = zoo.run(SNES, BOWL, 0, callback=seen.append, **BUDGET)
    assert_same_run(result, other)
    assert [p.generation for p in seen] == result.scores["generation"][1:].tolist()
    assert [p.steps for p in seen] == result.scores["steps"][1:].tolist()
    assert [p.metrics["fitness"] for p in seen] == result.scores["fitness"][1:].tolist()
    assert [p.seconds for p in seen] == other.scores["seconds"][1:].tolist()
    running_best = np.minimum.accumulate(result.history["best_fitness"])
    assert [p.best_fitness for p in seen] == running_best[1::2].tolist()


def test_a_callback_may_keep_the_means():
    seen = []
    zoo.run(SNES, BOWL, 0, callback=seen.append, **BUDGET)
    for progress in seen:
        np.testing.assert_allclose(bowl(progress.mean), progress.metrics["fitness"], rtol=1e-6)


def test_a_callback_stops(result):
    stopped = zoo.run(SNES, BOWL, 0, callback=lambda p: p.generation >= 4, **BUDGET)
    assert stopped.stopped_by == "callback"
    assert stopped.num_generations == 4
    assert_same_scores(stopped.scores, {name: x[:3] for name, x in result.scores.items()})


# Keys and what is given


def test_the_key_decides(result):
    assert_same_run(result, zoo.run(SNES, BOWL, 0, **BUDGET))
    assert_same_run(result, zoo.run(SNES, BOWL, jax.random.key(0), **BUDGET))
    assert_same_run(result, zoo.run(SNES, BOWL, **BUDGET))  # the default
    other = zoo.run(SNES, BOWL, 1, **BUDGET)
    assert (other.history["best_fitness"] != result.history["best_fitness"]).all()
    assert_same_run(other, zoo.run(SNES, BOWL, key=jax.random.key(1), **BUDGET))


def test_a_numpy_seed_is_a_seed(result):
    assert_same_run(result, zoo.run(SNES, BOWL, np.int64(0), **BUDGET))


def test_a_raw_key_works_or_is_explained(result):
    other, error = attempt(zoo.run, SNES, BOWL, jax.random.PRNGKey(0), **BUDGET)
    if error is None:
        assert_same_run(result, other)
    else:
        assert "jax.random.key(" in str(error)


def test_an_initial_solution():
    start = jnp.array([5.0, -5.0, 0.5])
    result = zoo.run(SNES, BOWL, 0, solution=start, **BUDGET)
    assert result.scores["fitness"][0] == float(bowl(start)) == 52.25
    assert float(bowl(result.mean)) != 52.25
    assert start.tolist() == [5.0, -5.0, 0.5]  # its memory is not reused
    assert BOWL.solution.tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(TypeError, match="floating-point"):
        zoo.run(SNES, BOWL, solution=jnp.arange(3), **BUDGET)


def test_a_random_initial_solution_depends_on_the_key():
    problem = zoo.from_function(bowl, lambda key: jax.random.normal(key, (3,)))
    starts = [zoo.run(SNES, problem, key, num_generations=2, num_scores=1).scores["fitness"][0] for key in (0, 1, 0)]
    assert starts[0] == starts[2] != starts[1]


def test_solutions_keep_their_structure(walk):
    for solution in (walk.mean, walk.best_solution):
        assert jax.tree.map(jnp.shape, solution) == {"drift": (2,), "offset": ()}


def test_ids_and_instances():
    sphere = zoo.make_problem("blackbox/sphere")
    budget = {"num_generations": 2, "num_scores": 1}
    by_id = zoo.run("snes", "blackbox/sphere", 0, **budget)
    assert by_id.strategy == zoo.make_strategy("snes", population_size=10, sigma=2.0)  # what the problem suggests
    assert_same_run(by_id, zoo.run(by_id.strategy, sphere, 0, **budget))
    assert_same_run(by_id, zoo.run("snes", sphere, 0, **budget))
    # An instance keeps its own settings; only what is open is filled in.
    made = zoo.run(zoo.make_strategy("snes"), "blackbox/sphere", 0, **budget)
    assert made.strategy == zoo.make_strategy("snes", population_size=10, sigma=0.1)
    assert made.history["steps"].tolist() == [10, 20]


def test_unknown_ids_and_wrong_types():
    with pytest.raises(ValueError, match="Unknown strategy 'snez'"):
        zoo.run("snez", BOWL, **BUDGET)
    with pytest.raises(ValueError, match="Unknown problem 'bowl'"):
        zoo.run(SNES, "bowl", **BUDGET)
    with pytest.raises(TypeError, match="problem id"):
        zoo.run(SNES, bowl, **BUDGET)


def test_a_run_with_other_numbers_is_not_traced_again(result):
    traced = len(TRACES)
    assert traced > 0
    other = zoo.run(SNES.replace(sigma=0.1), BOWL, 5, **BUDGET)
    zoo.run(SNES.replace(sigma=3), BOWL, 5, num_generations=8, num_scores=4)
    zoo.run(SNES, BOWL.replace(solution=jnp.ones(3)), **BUDGET)
    assert len(TRACES) == traced
    assert other.best_fitness != result.best_fitness
    zoo.run(SNES.replace(population_size=8), BOWL, **BUDGET)
    assert len(TRACES) > traced


# Checkpoints


class InterruptionError(Exception):
    pass


def interrupt_at(generation):
    def callback(progress):
        if progress.generation >= generation:
            raise InterruptionError

    return callback


WALK_RUN = (PAIRS, Walk(), 0, {"num_generations": 12, "num_scores": 6})
NOISY_RUN = (SNES, NOISY, 3, {"num_steps": 72, "num_scores": 6})


@pytest.mark.parametrize("interruptions", [(2,), (4,), (12,), (4, 6, 10)])
@pytest.mark.parametrize("run", [WALK_RUN, NOISY_RUN], ids=["walk", "noisy"])
def test_an_interrupted_run_resumes_bit_identically(run, interruptions, tmp_path):
    strategy, problem, key, budget = run
    expected = zoo.run(strategy, problem, key, **budget)
    for generation in interruptions:
        with pytest.raises(InterruptionError):
            zoo.run(strategy, problem, key, checkpoint=tmp_path, callback=interrupt_at(generation), **budget)
    seen = []
    resumed = zoo.run(strategy, problem, key, checkpoint=tmp_path, callback=seen.append, **budget)
    assert_same_run(resumed, expected)
    # It resumed: what was saved before the interruption is not done again.
    assert [p.generation for p in seen] == list(range(interruptions[-1], 13, 2))


def test_a_run_that_is_checkpointed_is_the_same_run(walk, tmp_path):
    assert_same_run(zoo.run(*WALK_RUN[:3], checkpoint=tmp_path / "new" / "folder", **WALK_RUN[3]), walk)
    assert (tmp_path / "new" / "folder").is_dir()


def test_scores_keep_their_order_after_a_resume(walk, tmp_path):
    with pytest.raises(InterruptionError):
        zoo.run(*WALK_RUN[:3], checkpoint=tmp_path, callback=interrupt_at(6), **WALK_RUN[3])
    resumed = zoo.run(*WALK_RUN[:3], checkpoint=tmp_path, **WALK_RUN[3])
    assert list(resumed.scores) == list(walk.scores) == ["generation", "steps", "seconds", "objective"]
    assert list(resumed.curve()) == list(walk.curve())
    assert list(resumed.history) == list(walk.history)


def test_seconds_go_on_after_a_resume(tmp_path):
    with pytest.raises(InterruptionError):
        zoo.run(*WALK_RUN[:3], checkpoint=tmp_path, callback=interrupt_at(6), **WALK_RUN[3])
    seconds = zoo.run(*WALK_RUN[:3], checkpoint=tmp_path, **WALK_RUN[3]).scores["seconds"]
    assert (np.diff(seconds) > 0).all()


def test_a_resumed_run_does_not_compile_in_its_seconds(tmp_path, monkeypatch):
    advance, compiled_by = zoo.loop.drive.compiled.advance, []

    def count(strategy, problem, carry, keys, generation_limit, step_limit, **kwargs):
        size = advance._cache_size()
        result = advance(strategy, problem, carry, keys, generation_limit, step_limit, **kwargs)
        if advance._cache_size() > size:
            compiled_by.append((int(generation_limit), int(step_limit)))
        return result

    monkeypatch.setattr(zoo.loop.drive.compiled, "advance", count)
    strategy = SNES.replace(population_size=5)  # a program that no other test compiles
    zoo.run(strategy, BOWL, checkpoint=tmp_path, num_generations=4, num_scores=2)
    assert compiled_by == [(0, 0)]  # the call that does nothing but compile
    zoo.run(strategy, BOWL, checkpoint=tmp_path, num_generations=8, num_scores=4)
    assert set(compiled_by) == {(0, 0)}


@pytest.mark.parametrize("unit", ["num_generations", "num_steps"])
def test_a_resumed_run_goes_on_to_a_longer_budget(unit, tmp_path):
    run = (PAIRS, Walk(), 0)
    half, full = (6, 12) if unit == "num_generations" else (24, 48)
    zoo.run(*run, checkpoint=tmp_path, num_scores=3, **{unit: half})
    resumed = zoo.run(*run, checkpoint=tmp_path, num_scores=6, **{unit: full})
    assert_same_run(resumed, zoo.run(*run, num_scores=6, **{unit: full}))


def test_a_finished_run_returns_at_once(walk, tmp_path):
    first = zoo.run(*WALK_RUN[:3], checkpoint=tmp_path, **WALK_RUN[3])
    seen = []
    again = zoo.run(*WALK_RUN[:3], checkpoint=tmp_path, callback=seen.append, **WALK_RUN[3])
    assert_same_run(again, first)
    assert_same_run(again, walk)
    assert seen == []
    assert again.seconds == first.seconds
    np.testing.assert_array_equal(again.scores["seconds"], first.scores["seconds"])


def test_a_run_stopped_by_its_target_stays_stopped(result, tmp_path):
    target = float(result.scores["fitness"][3])
    first = zoo.run(SNES, BOWL, 0, target=target, checkpoint=tmp_path, **BUDGET)
    again = zoo.run(SNES, BOWL, 0, target=target, checkpoint=tmp_path, **BUDGET)
    assert first.stopped_by == again.stopped_by == "target"
    assert_same_run(first, again)
    assert again.num_generations == 6


@pytest.mark.parametrize("target", [None, -1.0])
def test_a_resumed_run_has_the_target_it_is_given(result, tmp_path, target):
    first = zoo.run(SNES, BOWL, 0, target=float(result.scores["fitness"][3]), checkpoint=tmp_path, **BUDGET)
    assert first.num_generations == 6
    resumed = zoo.run(SNES, BOWL, 0, target=target, checkpoint=tmp_path, **BUDGET)
    assert_same_run(resumed, result)


def test_a_run_stopped_by_its_callback_goes_on(result, tmp_path):
    zoo.run(SNES, BOWL, 0, callback=lambda p: p.generation >= 4, checkpoint=tmp_path, **BUDGET)
    assert_same_run(zoo.run(SNES, BOWL, 0, checkpoint=tmp_path, **BUDGET), result)


def other_bowl(x):
    return jnp.sum((x - 1) ** 2)


@pytest.mark.parametrize(
    ("strategy", "problem", "key", "solution"),
    [
        (SNES, BOWL, 1, None),
        (SNES.replace(sigma=0.6), BOWL, 0, None),
        (SEARCH, BOWL, 0, None),
        (SNES, BOWL.replace(solution=jnp.ones(3)), 0, None),
        (SNES, zoo.from_function(other_bowl, jnp.zeros(3)), 0, None),
        (SNES, BOWL, 0, jnp.ones(3)),
    ],
    ids=["key", "setting", "strategy", "data", "function", "solution"],
)
def test_another_runs_checkpoint(strategy, problem, key, solution, tmp_path):
    zoo.run(SNES, BOWL, 0, checkpoint=tmp_path, **BUDGET)
    with pytest.raises(ValueError, match="is of another run"):
        zoo.run(strategy, problem, key, solution=solution, checkpoint=tmp_path, **BUDGET)


def test_a_function_of_the_same_name_is_another_run(tmp_path):
    for number in (1.0, 5.0):
        problem = zoo.from_function(lambda x, number=number: jnp.sum((x - number) ** 2), jnp.zeros(3))
        expected = zoo.run(SNES, problem, num_generations=2, num_scores=1)
        resumed, error = attempt(zoo.run, SNES, problem, num_generations=2, num_scores=1, checkpoint=tmp_path)
        if error is None:
            assert_same_run(resumed, expected)
        else:
            assert number == 5.0
            assert "is of another run" in str(error)


def test_a_checkpoint_needs_a_folder(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for path in (file, file / "below"):
        with pytest.raises(ValueError, match=r"Checkpoints need a folder, but .* is a file"):
            zoo.run(SNES, BOWL, checkpoint=path, **BUDGET)
    assert file.read_text() == "mine"


def test_the_newest_two_checkpoints_are_kept(tmp_path):
    zoo.run(SNES, BOWL, checkpoint=str(tmp_path), **BUDGET)
    assert sorted(int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()) == [8, 10]


KILLED_RUN = """
import sys, zoo
zoo.run("snes", "blackbox/sphere", 3, num_generations=100_000, num_scores=50_000, checkpoint=sys.argv[1])
"""


def newest_checkpoint(folder: pathlib.Path) -> int:
    return max((int(path.name) for path in folder.glob("*") if path.name.isdigit()), default=0)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_while_writing_checkpoints(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED_RUN, str(tmp_path)], env=os.environ)
    try:
        deadline = time.monotonic() + 120
        while newest_checkpoint(tmp_path) == 0:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(np.random.default_rng(0).uniform(0, 0.5))
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    reached = newest_checkpoint(tmp_path)
    budget: dict[str, Any] = {"num_generations": reached + 20, "num_scores": reached // 2 + 10}
    seen = []
    resumed = zoo.run("snes", "blackbox/sphere", 3, checkpoint=tmp_path, callback=seen.append, **budget)
    assert [p.generation for p in seen] == list(range(reached + 2, reached + 21, 2))
    assert_same_run(resumed, zoo.run("snes", "blackbox/sphere", 3, **budget))


# Saving


def test_save_and_load(walk, tmp_path):
    walk.save(tmp_path / "run")
    loaded = zoo.load_run(str(tmp_path / "run"))
    for name in ("mean", "best_solution"):
        saved = jax.tree.map(np.asarray, getattr(walk, name))
        assert_same(loaded[name], saved)
    assert_same(loaded["statistics"], jax.tree.map(np.asarray, walk.problem_state.statistics))
    pd.testing.assert_frame_equal(loaded["curve"], walk.curve(), check_exact=True)
    history = loaded["history"]
    assert history.pop("generation").tolist() == list(range(12))
    pd.testing.assert_frame_equal(history, pd.DataFrame(walk.history), check_exact=True)
    assert loaded["metrics"] == walk.metrics
    assert loaded["best_fitness"] == walk.best_fitness
    assert loaded["stopped_by"] == "budget"
    assert loaded["seconds"] == walk.seconds
    assert loaded["strategy"]["population_size"] == 4
    assert loaded["problem"]["hazard"] == 0.3
    assert loaded["versions"]["jax"] == jax.__version__


def test_save_replaces(result, walk, tmp_path):
    walk.save(tmp_path)
    result.save(tmp_path)
    loaded = zoo.load_run(tmp_path)
    assert loaded["metrics"] == result.metrics
    assert_same(loaded["mean"], np.asarray(result.mean))
    assert len(loaded["curve"]) == len(result.curve())


def test_nothing_to_load(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No run in .*nowhere"):
        zoo.load_run(tmp_path / "nowhere")


# Plain functions


def test_minimize_with_settings():
    result = zoo.minimize(bowl, jnp.zeros(3), "snes", num_generations=40, population_size=6, sigma=0.2, key=1)
    assert result.strategy == SNES
    assert result.num_generations == 40
    assert result.score < 0.01
    assert_same_run(result, zoo.run(SNES, BOWL, 1, num_generations=40))
    stopped = zoo.minimize(
        bowl, jnp.zeros(3), "snes", num_generations=40, population_size=6, sigma=0.2, key=1, target=1.0
    )
    assert stopped.stopped_by == "target"


def test_minimize_with_a_strategy():
    result = zoo.minimize(bowl, jnp.zeros(3), SNES, key=2, **BUDGET)
    assert_same_run(result, zoo.run(SNES, BOWL, 2, **BUDGET))
    with pytest.raises(TypeError, match=r"already made and settings \['sigma'\]"):
        zoo.minimize(bowl, jnp.zeros(3), SNES, sigma=0.1)


def test_minimize_with_an_unknown_setting():
    with pytest.raises(TypeError, match=r"no setting 'sigmma'\. Did you mean 'sigma'"):
        zoo.minimize(bowl, jnp.zeros(3), sigmma=0.1)
    with pytest.raises(ValueError, match="Unknown strategy"):
        zoo.minimize(bowl, jnp.zeros(3), "cmaez")
    with pytest.raises(ValueError, match="one budget"):
        zoo.minimize(bowl, jnp.zeros(3), SNES, num_steps=10, num_generations=10)


def test_minimize_with_data_and_a_key():
    result = zoo.minimize(noisy_bowl, {"a": jnp.zeros(2)}, SNES, data=NOISY.data, takes_key=True, **BUDGET)
    assert_same_run(result, zoo.run(SNES, NOISY, **BUDGET))
    assert set(result.mean) == {"a"}


@pytest.mark.parametrize(("num_dims", "num_steps"), [(3, 10_000), (11, 11_000)])
def test_the_default_budget_of_minimize(num_dims, num_steps):
    result = zoo.minimize(lambda x: jnp.sum(x**2), jnp.ones(num_dims), "random_search", population_size=100)
    assert result.num_steps == num_steps


@pytest.mark.parametrize(
    "solution", [[jnp.zeros(2), jnp.zeros(1)], {"leaves": [(jnp.zeros(2),), 0.0]}], ids=["list", "dict"]
)
def test_minimize_keeps_the_structure(solution):
    received = []

    def fn(x):
        received.append(jax.tree.structure(x))
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(x))

    result = zoo.minimize(fn, solution, SEARCH, num_generations=1)
    assert set(received) == {jax.tree.structure(solution)}
    assert jax.tree.structure(result.mean) == jax.tree.structure(solution)
    assert jax.tree.structure(result.best_solution) == jax.tree.structure(solution)


# Several seeds at once


def assert_close_to_single_runs(outcome, strategy, problem, keys, **settings):
    for seed, key in enumerate(keys):
        single = zoo.run(strategy, problem, key, **settings)
        history, scores = outcome.histories[seed], outcome.scores[seed]
        np.testing.assert_array_equal(history["steps"], single.history["steps"])
        for name in ("best_fitness", "mean_fitness"):
            np.testing.assert_allclose(history[name], single.history[name], rtol=1e-4, atol=1e-6)
        for name in ("generation", "steps"):
            np.testing.assert_array_equal(scores[name], single.scores[name])
        for name in single.metrics:
            np.testing.assert_allclose(scores[name], single.scores[name], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(outcome.carry.best_fitness[seed], single.best_fitness, rtol=1e-4)
        for batch, one in zip(jax.tree.leaves(outcome.mean), jax.tree.leaves(single.mean), strict=True):
            np.testing.assert_allclose(batch[seed], one, rtol=1e-4, atol=1e-5)


def test_seeds_of_different_cost_each_have_their_own_budget():
    keys = jax.random.split(jax.random.key(7), 4)
    settings = {"num_steps": 48, "num_scores": 6}
    outcome = drive(PAIRS, Walk(), keys, budget=Budget.make(Walk(), None, 48, 6))
    lengths = []
    for history, scores in zip(outcome.histories, outcome.scores, strict=True):
        assert history["steps"][-2] < 48 <= history["steps"][-1]
        assert scores["steps"][-1] == history["steps"][-1]
        assert scores["generation"][-1] == len(history["steps"])
        lengths.append(len(history["steps"]))
    assert len(set(lengths)) > 1  # otherwise this test would show nothing
    assert outcome.carry.generation.tolist() == lengths
    assert outcome.stopped_by == "budget"
    assert_close_to_single_runs(outcome, PAIRS, Walk(), keys, **settings)


def test_seeds_stop_at_the_target_each():
    keys = jax.random.split(jax.random.key(0), 4)
    budget = Budget.make(BOWL, 10, None, 5)
    free = drive(SNES, BOWL, keys, budget=budget)
    target = float(np.median([scores["fitness"][3] for scores in free.scores]))
    outcome = drive(SNES, BOWL, keys, budget=budget, target=target)
    lengths = [len(history["steps"]) for history in outcome.histories]
    assert len(set(lengths)) > 1
    for scores, length in zip(outcome.scores, lengths, strict=True):
        assert (scores["fitness"][1:-1] > target).all()
        assert scores["fitness"][-1] <= target or length == 10
    assert_close_to_single_runs(outcome, SNES, BOWL, keys, target=target, **BUDGET)
    assert outcome.stopped_by == ("target" if all(s["fitness"][-1] <= target for s in outcome.scores) else "budget")


def test_one_seed_in_a_batch():
    keys = jax.random.split(jax.random.key(1), 1)
    outcome = drive(SNES, NOISY, keys, budget=Budget.make(NOISY, 6, None, 3))
    assert_close_to_single_runs(outcome, SNES, NOISY, keys, num_generations=6, num_scores=3)


def test_a_batch_of_seeds_resumes(tmp_path):
    keys = jax.random.split(jax.random.key(7), 4)
    budget = Budget.make(Walk(), None, 48, 6)
    expected = drive(PAIRS, Walk(), keys, budget=budget)
    drive(PAIRS, Walk(), keys, budget=Budget.make(Walk(), None, 24, 3), checkpoint=tmp_path)
    resumed = drive(PAIRS, Walk(), keys, budget=budget, checkpoint=tmp_path)
    assert_same(resumed.carry.state, expected.carry.state)
    for seed in range(4):
        assert_same(resumed.histories[seed], expected.histories[seed])
        assert_same_scores(resumed.scores[seed], expected.scores[seed])
