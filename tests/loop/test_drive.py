"""How a run is driven: budgets, segments, stopping, and several seeds at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.loop.examples import (
    BOWL,
    BUDGET,
    NOISY,
    PAIRS,
    SEARCH,
    SNES,
    Walk,
    assert_same,
    assert_same_run,
    assert_same_scores,
    attempt,
    bowl,
)
from zoo.benchmarking.runtimes import record_runtimes
from zoo.loop.budget import Budget
from zoo.loop.drive import Options, drive


class Gain(zoo.Problem):
    """A problem with a score to maximise."""

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


# Budgets


@pytest.mark.parametrize(("num_steps", "generations"), [(6, 1), (7, 1), (11, 1), (12, 2)])
def test_a_budget_in_steps_ends_with_the_last_generation_that_it_has_room_for(num_steps, generations):
    result = zoo.run(SNES, BOWL, 0, num_steps=num_steps, num_scores=1)
    assert result.num_generations == generations
    assert result.num_steps == 6 * generations
    assert result.overshoot == 0
    assert result.scores["generation"].tolist() == [0, generations]


@pytest.mark.parametrize("num_scores", [1, 3, 40])
def test_a_generation_that_took_too_many_steps_is_dropped(walk, num_scores):
    steps = walk.history["steps"]
    for num_steps in (int(steps[7]) - 1, int(steps[7])):
        expected = zoo.run(PAIRS, Walk(), 0, num_generations=7 + (num_steps == steps[7]), num_scores=1)
        result = zoo.run(PAIRS, Walk(), 0, num_steps=num_steps, num_scores=num_scores)
        assert result.num_steps <= num_steps
        assert result.overshoot in (0, steps[result.num_generations] - steps[result.num_generations - 1])
        assert (result.overshoot == 0) == (result.num_steps == num_steps)
        for name in ("history", "state", "problem_state", "mean", "best_solution", "aux"):
            assert_same(getattr(result, name), getattr(expected, name))
        assert result.metrics == expected.metrics
        assert result.scores["generation"][-1] == expected.num_generations


@pytest.mark.parametrize(("strategy", "problem", "num_steps"), [(SNES, BOWL, 5), (PAIRS, Walk(), 1)])
def test_a_budget_without_room_for_one_generation_is_refused(strategy, problem, num_steps):
    with pytest.raises(
        ValueError, match=rf"spends \d+ problem steps, more than the whole budget: num_steps={num_steps}"
    ):
        zoo.run(strategy, problem, 0, num_steps=num_steps, num_scores=1)


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
    assert result.num_steps == 49  # the largest multiple of 7 up to 50


def test_one_budget_only():
    with pytest.raises(ValueError, match="one budget"):
        zoo.run(SNES, BOWL, num_generations=2, num_steps=20)


@pytest.mark.parametrize("name", ["num_generations", "num_steps", "num_scores"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, float("nan"), float("inf"), "100"])
def test_bad_budgets(name, value):
    settings = {"num_generations": 2, name: value} if name == "num_scores" else {name: value}
    error = TypeError if isinstance(value, (bool, str)) else ValueError
    with pytest.raises(error, match=rf"{name} must be"):
        zoo.run(SNES, BOWL, **settings)


def test_whole_numbers_of_other_types_are_budgets():
    assert zoo.run(SNES, BOWL, num_generations=np.int64(2), num_scores=1.0).num_generations == 2
    assert zoo.run(SNES, BOWL, num_steps=1e1, num_scores=1).num_steps == 6


class Expensive(Gain):
    """Half a billion steps per generation."""

    def evaluate(self, key, population, state):
        evaluation, state = super().evaluate(key, population, state)
        return evaluation._replace(steps=jnp.asarray(2**29, jnp.int32)), state


def test_budgets_beyond_32_bits():
    result = zoo.run(SEARCH, Expensive(), num_steps=5 * 2**29, num_scores=5)
    assert result.history["steps"].tolist() == [2**29 * (k + 1) for k in range(5)]


def test_a_segment_beyond_32_bits():
    result = zoo.run(SEARCH, Expensive(), num_steps=5 * 2**29 - 1, num_scores=1)
    assert result.num_generations == 4
    assert result.num_steps == 4 * 2**29
    assert result.overshoot == 2**29


def test_more_steps_in_a_generation_than_are_counted():
    def fn(x):
        return 0.0, 2**30

    problem = zoo.from_python(fn, np.zeros(2), returns_steps=True)
    with pytest.raises(ValueError, match=f"A generation spent {2**30} problem steps or more"):
        zoo.run(SEARCH, problem, num_generations=1)


class Stuck(zoo.UnrolledProblem):
    """An episode without a horizon that still terminates. After that, no step is spent."""

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
    outcome = drive(PAIRS, Walk(), keys, Options(budget=Budget.make(Walk(), None, 48, 6)))
    lengths = []
    for history, scores in zip(outcome.histories, outcome.scores, strict=True):
        assert history["steps"][-1] <= 48
        assert scores["steps"][-1] == history["steps"][-1]
        assert scores["generation"][-1] == len(history["steps"])
        lengths.append(len(history["steps"]))
    assert len(set(lengths)) > 1  # otherwise this test would prove nothing
    assert outcome.carry.generation.tolist() == lengths
    spent = np.array([history["steps"][-1] for history in outcome.histories])
    assert np.array_equal(outcome.overshoot == 0, spent == 48)
    assert (spent + outcome.overshoot)[spent < 48].min() > 48
    assert outcome.stopped_by == ["budget"] * 4
    assert_close_to_single_runs(outcome, PAIRS, Walk(), keys, **settings)


class Targeted(Walk):
    """A problem with runtimes, measured by the fitness of members."""

    fitness_is_score = True
    runtime_targets = (0.0,)


def test_seeds_without_room_for_a_generation_are_named():
    keys = jax.random.split(jax.random.key(7), 4)
    first = [zoo.run(PAIRS, Walk(), key, num_generations=1, num_scores=1).num_steps for key in keys]
    num_steps = sorted(first)[1]
    without = np.flatnonzero(np.array(first) > num_steps)
    assert 0 < len(without) < 4  # otherwise this test would prove nothing
    budget = Budget.make(Walk(), None, num_steps, 1)
    named = f"no room for the first generation of seeds? {', '.join(map(str, without))} "
    with pytest.warns(RuntimeWarning, match=rf"OpenES on Walk: num_steps={num_steps} leaves {named}") as record:
        outcome = drive(PAIRS, Walk(), keys, Options(budget=budget))
    assert len(record) == 1
    for seed, steps in enumerate(first):
        expected = [] if seed in without else [steps]
        assert outcome.histories[seed]["steps"][:1].tolist() == expected
        assert len(outcome.scores[seed]["steps"]) == (1 if seed in without else 2)
    assert (outcome.overshoot[without] == np.array(first)[without]).all()
    runtimes = record_runtimes("pairs", "walk", Targeted(), outcome)
    assert runtimes.budget.tolist() == [0 if seed in without else steps for seed, steps in enumerate(first)]
    assert runtimes.steps[without].isna().all()
    with pytest.raises(ValueError, match=r"spends \d+ problem steps, more than the whole budget: num_steps=1"):
        drive(PAIRS, Walk(), keys, Options(budget=Budget.make(Walk(), None, 1, 1)))


def test_seeds_stop_at_the_target_each():
    keys = jax.random.split(jax.random.key(0), 4)
    budget = Budget.make(BOWL, 10, None, 5)
    free = drive(SNES, BOWL, keys, Options(budget=budget))
    target = float(np.median([scores["fitness"][3] for scores in free.scores]))
    outcome = drive(SNES, BOWL, keys, Options(budget=budget, target=target))
    lengths = [len(history["steps"]) for history in outcome.histories]
    assert len(set(lengths)) > 1
    for scores, length in zip(outcome.scores, lengths, strict=True):
        assert (scores["fitness"][1:-1] > target).all()
        assert scores["fitness"][-1] <= target or length == 10
    assert_close_to_single_runs(outcome, SNES, BOWL, keys, target=target, **BUDGET)
    assert outcome.stopped_by == ["target" if s["fitness"][-1] <= target else "budget" for s in outcome.scores]


def test_one_seed_in_a_batch():
    keys = jax.random.split(jax.random.key(1), 1)
    outcome = drive(SNES, NOISY, keys, Options(budget=Budget.make(NOISY, 6, None, 3)))
    assert_close_to_single_runs(outcome, SNES, NOISY, keys, num_generations=6, num_scores=3)


def test_a_batch_of_seeds_resumes(tmp_path):
    keys = jax.random.split(jax.random.key(7), 4)
    budget = Budget.make(Walk(), None, 48, 6)
    expected = drive(PAIRS, Walk(), keys, Options(budget=budget))
    drive(PAIRS, Walk(), keys, Options(budget=Budget.make(Walk(), None, 24, 3), checkpoint=tmp_path))
    resumed = drive(PAIRS, Walk(), keys, Options(budget=budget, checkpoint=tmp_path))
    assert_same(resumed.carry.state, expected.carry.state)
    for seed in range(4):
        assert_same(resumed.histories[seed], expected.histories[seed])
        scores, generations = resumed.scores[seed], expected.scores[seed]["generation"]
        rows = np.isin(scores["generation"], generations)  # without the score at the end of the shorter budget
        pairs = ((scores, rows), (expected.scores[seed], slice(None)))
        names = set(scores) - {"step_norm"}  # it counts from the score before
        assert_same_scores(*({n: x[k] for n, x in each.items() if n in names} for each, k in pairs))
        assert (~rows).sum() <= 1
