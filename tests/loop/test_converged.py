"""Criteria that end a converged search, in runs of one seed and of several, in resumed runs, and on the host."""

import dataclasses
import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.loop.examples import BOWL, SNES, assert_same_run
from zoo.loop.budget import Budget
from zoo.loop.drive import Options, drive

NEVER = {field.name: None for field in dataclasses.fields(zoo.Converged)}
NUM_DIMS, SIZE = 3, 6
FIXED = SNES.replace(std_learning_rate=0.0)


def only(**criteria):
    return zoo.Converged(**{**NEVER, **criteria})


def fitness_of(best, mean=None, worst=None, **criteria):
    best = np.asarray(best, float)
    mean = best + 1 if mean is None else np.asarray(mean, float)
    worst = mean[-1] if worst is None else worst
    return list(only(**criteria).by_fitness(best, mean, worst, NUM_DIMS, SIZE))


def test_flat_fitness():
    """Fitness must be flat in the last 10 + 30 d / population size generations, here 25."""
    flat = np.full(25, 2.0)
    assert fitness_of(flat, worst=2.0, tol_fun=0) == ["tol_fun"]
    assert fitness_of(flat[1:], worst=2.0, tol_fun=0) == []
    assert fitness_of([9, *flat], worst=2.0, tol_fun=0) == ["tol_fun"]
    assert fitness_of([2.5, *flat[1:]], worst=2.0, tol_fun=0.1) == []
    assert fitness_of([2.5, *flat[1:]], worst=2.0, tol_fun=0.5) == ["tol_fun"]
    assert fitness_of(flat, worst=2.2, tol_fun=0.1) == []
    assert fitness_of(flat, worst=np.inf, tol_fun=0.1) == []
    assert fitness_of(np.full(25, np.inf), worst=np.inf, tol_fun=0.1) == []


def test_stagnation():
    """Compares the medians of the newest and the oldest 30 % of 120 + 30 d / population size generations, here 135."""
    random = np.random.default_rng(0)
    noise = random.normal(size=135)
    falling = -0.05 * np.arange(135)
    assert fitness_of(noise, noise + 1, stagnation=1) in ([], ["stagnation"])
    third = 41  # 30 % of 135, rounded up
    for best, mean in ((noise, noise), (falling, noise), (noise, falling), (falling + noise, falling + noise)):
        expected = all(np.median(x[-third:]) >= np.median(x[:third]) for x in (best, mean))
        assert fitness_of(best, mean, stagnation=1) == (["stagnation"] if expected else [])
        assert fitness_of(best[1:], mean[1:], stagnation=1) == []
    assert fitness_of(np.ones(68), np.ones(68), stagnation=0.5) == ["stagnation"]
    assert fitness_of(np.ones(67), np.ones(67), stagnation=0.5) == []


def test_nothing_finite_is_stagnation():
    failing = np.full(135, np.inf)
    assert fitness_of(failing, np.full(135, np.nan), worst=np.inf, stagnation=1, tol_fun=0) == ["stagnation"]
    assert fitness_of(failing[1:], np.full(134, np.nan), worst=np.inf, stagnation=1) == []
    found = np.where(np.arange(135) < 70, np.inf, 1.0)  # finite in the later half
    assert fitness_of(found, np.where(found == 1, 1.0, np.nan), stagnation=1) == []


@pytest.mark.parametrize("failing", [False, True])
def test_runs_and_optimizers_stop_by_the_same_numbers(failing):
    """A run and an `Optimizer` stop for the same reason, if fitness is flat and if every member fails."""
    value = np.float32(np.nan if failing else 0.1)
    strategy = SNES.replace(population_size=7)
    stop = only(tol_fun=0.0, stagnation=0.5)
    problem = zoo.from_function(lambda x, value: jnp.sum(0 * x) + value, jnp.zeros(3), data=(value,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result = zoo.run(strategy, problem, num_generations=200, num_scores=1, stop=stop)
    mean = result.history["mean_fitness"]
    assert np.isnan(mean).all() if failing else np.all(mean != result.history["best_fitness"])
    optimizer = zoo.Optimizer(strategy, np.zeros(3, np.float32), stop=stop)
    while not optimizer.should_stop:
        optimizer.tell(optimizer.ask(), np.full(7, value))
    assert [result.stopped_by] == list(optimizer.stop_reasons) == ["stagnation" if failing else "tol_fun"]
    assert result.num_generations == 100  # the first check after the criterion holds
    assert optimizer.generation == (70 if failing else 23)


def test_the_search_distribution():
    assert list(only(tol_x=0.1).by_spread(0.05, 0.5, 1.0)) == ["tol_x"]
    assert list(only(tol_x=0.1).by_spread(0.06, 0.5, 1.0)) == []
    assert list(only(max_condition=100).by_spread(0.05, 0.5, 101.0)) == ["max_condition"]
    assert list(only(max_condition=100).by_spread(0.05, 0.5, 100.0)) == []


def noise(key, x):
    return jax.random.normal(key)


@pytest.mark.parametrize(
    ("strategy", "problem", "stop", "reason"),
    [
        (SNES, BOWL, only(tol_fun=1e-3), "tol_fun"),
        (FIXED, BOWL, only(tol_x=1.0), "tol_x"),
        (SNES, zoo.from_function(noise, jnp.ones(3), takes_key=True), only(stagnation=0.5), "stagnation"),
        (SNES, BOWL, only(max_condition=1.01), "max_condition"),
    ],
    ids=["tol_fun", "tol_x", "stagnation", "max_condition"],
)
def test_runs_stop_at_a_look(strategy, problem, stop, reason, tmp_path):
    """Runs check the criteria in every 100th generation, however often they are scored, interrupted or resumed."""
    result = zoo.run(strategy, problem, 1, num_generations=2000, num_scores=7, stop=stop)
    assert result.stopped_by == reason
    assert result.num_generations % 100 == 0
    assert result.num_generations < 2000
    assert result.scores["generation"][-1] == result.num_generations
    settings = {"num_generations": 2000, "num_scores": 3, "stop": stop, "checkpoint": tmp_path}
    other = zoo.run(strategy, problem, 1, **settings)
    assert other.stopped_by == reason
    np.testing.assert_array_equal(other.history["best_fitness"], result.history["best_fitness"])
    assert_same_run(zoo.run(strategy, problem, 1, **settings), other)  # it is finished, and says so
    almost = only(tol_x=0.99) if reason == "tol_x" else only()
    assert zoo.run(strategy, problem, 1, num_generations=150, num_scores=1, stop=almost).stopped_by == "budget"


def test_each_seed_of_a_batch_stops_by_itself():
    keys, stop = jax.random.split(jax.random.key(0), 4), only(tol_x=0.045)
    options = Options(budget=Budget.make(BOWL, 1000, None, 2), stop=stop)
    outcome = drive(SNES, BOWL, keys, options)
    for seed, key in enumerate(keys):
        single = zoo.run(SNES, BOWL, key, num_generations=1000, num_scores=2, stop=stop)
        assert single.stopped_by == outcome.stopped_by[seed] == "tol_x"
        assert len(outcome.histories[seed]["steps"]) == single.num_generations


def test_host_problems_are_looked_at_in_every_generation():
    calls = []

    def flat(x):
        calls.append(x)
        return 1.0

    result = zoo.run(SNES, zoo.from_python(flat, np.zeros(3)), num_generations=100, stop=zoo.Converged())
    assert (result.stopped_by, result.num_generations) == ("tol_fun", 25)
    assert len(calls) == 25 * 6 + 2  # plus the scores of the first mean and of the last
    assert result.scores["generation"].tolist() == [0, 25]


def test_the_call_says_how_a_run_stops(tmp_path):
    stop = only(tol_fun=1e-3)
    result = zoo.run("snes", "blackbox/sphere", num_generations=200, num_scores=1, stop=stop, checkpoint=tmp_path)
    assert json.loads(json.dumps(result.call))["budget"]["stop"] == dataclasses.asdict(stop)
    call, _ = zoo.loop.call.load_call(tmp_path)
    assert call["budget"]["stop"] == stop


def test_mistakes():
    with pytest.raises(TypeError, match=r"run expects stop to be zoo\.Converged\(\.\.\.\), got str"):
        zoo.run(SNES, BOWL, stop="tol_fun")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="IPOP starts over when it has converged"):
        zoo.run("ipop", BOWL, stop=zoo.Converged())
    with pytest.raises(TypeError, match="Optimizer expects stop to be"):
        zoo.Optimizer("snes", np.zeros(3), stop=3)  # pyright: ignore[reportArgumentType]
    for name in NEVER:
        for value, error in (
            (-1, ValueError),
            (np.nan, ValueError),
            (np.inf, ValueError),
            ("1", TypeError),
            (True, TypeError),
        ):
            with pytest.raises(error, match=rf"Converged\.{name} must be (a number|finite|at least 0|greater than 0)"):
                zoo.Converged(**{name: value})  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"Converged\.stagnation must be greater than 0, got 0\.0"):
        zoo.Converged(stagnation=0)
