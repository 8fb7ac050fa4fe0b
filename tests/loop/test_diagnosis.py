"""Diagnosis of a run: the state of the search, and what the problem reports about its members."""

import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.loop.examples import BOWL, BUDGET, SNES, assert_same, assert_same_run
from zoo.loop.budget import Budget
from zoo.loop.drive import Options, drive


def test_diagnosis_of_a_run():
    seen = []
    result = zoo.run(SNES, BOWL, 0, callback=seen.append, **BUDGET)
    means = [BOWL.solution, *(progress.mean for progress in seen)]
    std = np.asarray(SNES.std(result.state))
    np.testing.assert_allclose(result.scores["sigma"][[0, -1]], [0.2, np.sqrt(np.mean(std**2))], rtol=1e-6)
    steps = [np.linalg.norm(np.subtract(new, old)) / 2 for old, new in itertools.pairwise(means)]
    np.testing.assert_allclose(result.scores["step_norm"], [0, *steps], rtol=1e-5)
    np.testing.assert_allclose(result.scores["condition_number"][-1], (std.max() / std.min()) ** 2, rtol=1e-5)
    last = {name: result.scores[name][-1] for name in ("sigma", "step_norm", "condition_number")}
    assert seen[-1].diagnosis == {**last, "failed": 0.0}
    with pytest.raises(ValueError, match=r"names metrics like other columns: \['sigma'\]"):
        zoo.run(SNES, Taken(), 0, **BUDGET)


class Taken(zoo.Problem):
    """A problem whose score has the name of another column."""

    def initial_solution(self, key):
        return jnp.zeros(3)

    def fitness(self, key, solution):
        return jnp.sum(solution)

    def score(self, key, solution):
        return {"fitness": jnp.sum(solution), "sigma": jnp.zeros(())}


def circle(x):
    """Returns the squared norm as fitness, and NaN far away. `norm` tells the members apart."""
    norm = jnp.sum(x**2)
    return jnp.where(norm > 0.1, jnp.nan, norm), {"norm": norm, "is_left": x[0] < 0, "x": 2 * x}


CIRCLE = zoo.from_function(circle, jnp.zeros(3), has_aux=True)


def test_what_a_problem_says_of_its_members_is_kept(tmp_path):
    seen = []
    result = zoo.run(SNES, CIRCLE, 0, callback=seen.append, **BUDGET)
    assert {name: x.shape for name, x in result.aux.items()} == {"norm": (6,), "is_left": (6,), "x": (6, 3)}
    assert_same(seen[-1].aux, result.aux)
    np.testing.assert_array_equal(result.aux["x"][:, 0] < 0, result.aux["is_left"])
    np.testing.assert_allclose(result.history["aux/norm"][-1], np.mean(result.aux["norm"]), rtol=1e-6)
    np.testing.assert_allclose(result.history["aux/is_left"][-1], np.mean(result.aux["is_left"]), rtol=1e-6)
    np.testing.assert_allclose(result.history["failed"][-1], np.mean(result.aux["norm"] > 0.1), rtol=1e-6)
    finite = [progress.aux["norm"][progress.aux["norm"] <= 0.1] for progress in seen]
    assert min(map(len, finite)) < 6  # otherwise this test would prove nothing
    np.testing.assert_allclose(result.history["std_fitness"][1::2], [np.std(x) for x in finite], rtol=1e-4)
    assert 0 < result.history["failed"].mean() < 1
    assert "aux/x" not in result.history  # it is not a single number per member
    np.testing.assert_allclose(result.best_aux["x"], 2 * result.best_solution, rtol=1e-6)
    np.testing.assert_allclose(result.best_aux["norm"], result.best_fitness, rtol=1e-6)
    # Auxiliary results survive a restart from a result and from a checkpoint.
    half = zoo.run(SNES, CIRCLE, 0, num_generations=6, num_scores=3, checkpoint=tmp_path)
    for whole in (zoo.run(start=half, **BUDGET), zoo.run(SNES, CIRCLE, 0, checkpoint=tmp_path, **BUDGET)):
        assert_same_run(whole, result)
        assert_same((whole.aux, whole.best_aux), (result.aux, result.best_aux))


class Says(zoo.Problem):
    """A problem that reports auxiliary results by overriding a method."""

    def initial_solution(self, key):
        return jnp.zeros(2)

    def fitness(self, key, solution):
        return jnp.sum(solution**2)

    def fitness_and_aux(self, key, solution):
        return self.fitness(key, solution), {"first": solution[0]}


class Walks(zoo.UnrolledProblem):
    """An unrolled problem that reports where a member is at the end of a window."""

    horizon: int | None = zoo.static(4)
    window: int | None = zoo.static(2)

    def initial_solution(self, key):
        return jnp.zeros(2)

    def reset(self, key):
        return jnp.zeros(())

    def step(self, key, solution, inner):
        inner = inner + solution[0]
        return inner, inner, False

    def aux(self, inner):
        return {"at": inner}


@pytest.mark.parametrize("problem", [Says(), Walks()], ids=["plain", "unrolled"])
def test_problems_that_say_something(problem, key):
    strategy = zoo.make_strategy("open_es", population_size=4)
    solution = problem.initial_solution(key)
    state = problem.init(key, strategy.groups, solution)
    population, _ = strategy.ask(key, strategy.init(key, solution))
    evaluation, _ = jax.jit(problem.evaluate)(key, population, state)
    ((name, values),) = evaluation.aux.items()
    np.testing.assert_allclose(values, population[:, 0] * (2 if name == "at" else 1), rtol=1e-6)
    assert_same(problem.init_aux(solution), {name: np.zeros((), np.float32)})


def test_what_is_wrongly_said_is_named():
    for returns, message in (
        (lambda x: jnp.sum(x), "must return a pair, the fitness and a dictionary"),
        (lambda x: (jnp.sum(x), x), "aux must be a dictionary of arrays by name"),
        (lambda x: (jnp.sum(x), {1: x}), "aux must be a dictionary of arrays by name"),
    ):
        with pytest.raises(TypeError, match=message):
            zoo.run(SNES, zoo.from_function(returns, jnp.zeros(3), has_aux=True), **BUDGET)


def step_down(x):
    return jnp.where(x[0] > 0, 1.0, 1.0 + jnp.sum(x))  # flat on one side


def test_one_warning_where_fitness_is_constant():
    flat = zoo.from_function(step_down, jnp.array([5.0, 0.0, 0.0]))
    with pytest.warns(RuntimeWarning, match="same fitness, 1, since generation 0, and the run is at 12") as record:
        zoo.run(SNES, flat, num_generations=48, num_scores=16)
    assert len(record) == 1
    plateau = zoo.from_function(lambda x: jnp.maximum(jnp.sum((x - 1) ** 2), 20.0), jnp.full(3, 4.0))
    with pytest.warns(RuntimeWarning, match=r"same fitness, 20, since generation [1-9]"):
        zoo.run(SNES, plateau, num_generations=200, num_scores=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zoo.run(zoo.make_strategy("cma_es"), BOWL, num_generations=1000, num_scores=10)  # it has converged
        zoo.run(SNES, flat, num_generations=8, num_scores=4)  # too few generations to tell
        zoo.run(SNES, flat, num_generations=48, num_scores=16, target=1.0)  # the target is reached
        zoo.run(SNES, BOWL, **BUDGET)
        noise = zoo.from_function(lambda key, x: jax.random.uniform(key, ()), jnp.zeros(3), takes_key=True)
        zoo.run(SNES, noise, num_generations=48, num_scores=4)  # equal for all members, but not in all generations


class Failing(zoo.Problem):
    """Fitness is NaN if `fitness_factor` is negative, the score if `score_factor` is, and both if x[0] is negative."""

    fitness_factor: float = zoo.number(1.0)
    score_factor: float = zoo.number(1.0)

    def initial_solution(self, key):
        return jax.random.normal(key, (3,))

    def fitness(self, key, solution):
        return jnp.sqrt(self.fitness_factor) * jnp.sqrt(solution[0]) + jnp.sum(solution**2)

    def score(self, key, solution):
        return {"fitness": jnp.sqrt(self.score_factor) * self.fitness(key, solution)}


def test_one_warning_where_all_fails():
    """One warning for failing fitness and one for a failing score. Both name the seeds."""
    start, budget = jnp.ones(3), {"num_generations": 24, "num_scores": 8}
    still = SNES.replace(sigma=1e-3)
    with pytest.warns(RuntimeWarning) as record:
        result = zoo.run(still, Failing(fitness_factor=-1.0, score_factor=1.0), solution=start, **budget)
    messages = sorted(str(each.message) for each in record)
    assert len(messages) == 2
    assert "every member has been NaN or infinite since generation 0, and the run is at 12: " in messages[0]
    assert "The score of the mean at generation 0, 'fitness', is NaN. " in messages[1]
    assert result.failed == 1
    with pytest.warns(RuntimeWarning, match="score of the mean") as record:
        result = zoo.run(still, Failing(score_factor=-1.0), solution=start, **budget)
    assert len(record) == 1
    assert result.failed == 0
    keys, options = jax.random.split(jax.random.key(0), 3), Options(budget=Budget.make(Failing(), 24, None, 8))
    with pytest.warns(RuntimeWarning) as record:
        outcome = drive(still, Failing(), keys, options)
    failing = [str(seed) for seed in range(3) if outcome.histories[seed]["failed"].all()]
    assert 0 < len(failing) < 3  # otherwise this test would prove nothing
    named = f"of seed{'s' * (len(failing) > 1)} {', '.join(failing)} (of 3)"
    messages = sorted(str(each.message) for each in record)
    assert len(messages) == 2
    assert f"SNES on Failing: The fitness of every member {named} has been NaN" in messages[0]
    assert f"SNES on Failing: The score of the mean {named} at generation 0" in messages[1]
