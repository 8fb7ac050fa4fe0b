"""One run: its result, keys, initial solutions, saving, and the same for plain functions."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import zoo
from tests.loop.examples import (
    BOWL,
    BUDGET,
    NOISY,
    PAIRS,
    SEARCH,
    SNES,
    TRACES,
    Walk,
    assert_same,
    assert_same_run,
    attempt,
    bowl,
    noisy_bowl,
)

# Bookkeeping


def test_history(result):
    assert list(result.history) == ["steps", "best_fitness", "mean_fitness", "std_fitness", "worst_fitness", "failed"]
    assert result.history["steps"].tolist() == [6 * (k + 1) for k in range(10)]
    assert result.num_generations == 10
    assert result.num_steps == 60
    assert np.isfinite(result.history["mean_fitness"]).all()
    assert (result.history["best_fitness"] < result.history["mean_fitness"]).all()
    assert (result.history["mean_fitness"] < result.history["worst_fitness"]).all()
    assert len(np.unique(result.history["best_fitness"])) == 10


def test_best_member(result):
    assert result.best_fitness == result.history["best_fitness"].min()
    np.testing.assert_allclose(bowl(result.best_solution), result.best_fitness, rtol=1e-5)
    # Here the best member is not in the last generation, and is not the mean.
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
    assert result.scores["fitness"][0] not in result.history["best_fitness"]  # the score uses held-out keys


def test_curve(result):
    frame = result.curve()
    pd.testing.assert_frame_equal(frame, pd.DataFrame(result.scores))
    diagnosis = ["sigma", "step_norm", "condition_number"]
    assert list(frame) == ["generation", "steps", "seconds", "fitness", *diagnosis]
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


def half_bowl(x, worst):
    return jnp.where(x[0] > 0, worst, jnp.sum(x**2))


@pytest.mark.parametrize("worst", [np.nan, np.inf])
def test_members_without_a_number_are_not_the_best(worst):
    problem = zoo.from_function(half_bowl, jnp.zeros(2), data=(jnp.float32(worst),))
    result = zoo.run(SNES, problem, 0, num_generations=6, num_scores=3)
    assert np.isfinite(result.best_fitness)
    assert result.best_fitness == result.history["best_fitness"].min()
    assert np.asarray(result.best_solution)[0] <= 0
    assert np.isfinite(result.history["mean_fitness"]).all()
    failed = result.history["failed"] > 0
    np.testing.assert_array_equal(np.isinf(result.history["worst_fitness"]), failed)
    assert result.failed == result.history["failed"].mean() > 0
    assert f"  {100 * result.failed:.3g} % of members failed\n" in repr(result)


def test_nothing_but_nan():
    problem = zoo.from_function(lambda x: jnp.sum(x) * jnp.nan, jnp.ones(2))
    result = zoo.run(SEARCH, problem, 0, num_generations=2, num_scores=1)
    assert result.best_fitness == np.inf
    assert result.best_solution.tolist() == [1.0, 1.0]
    assert result.num_generations == 2
    assert "100 % of members failed" in repr(result)
    best = result.best(2)
    assert best.fitness == np.inf
    assert np.isnan(best.standard_error)


def test_what_is_shown_says_which_is_better(result):
    assert f"score of the mean: fitness {result.score:.6g} (lower fitness is better)\n" in repr(result)
    assert f"best fitness of a member: {result.best_fitness:.6g} (lower is better)\n" in repr(result)
    assert result.failed == 0
    assert "failed" not in repr(result)


# Which solution to take


def test_the_luckiest_member_is_evaluated_again():
    noisy = zoo.from_function(lambda key, x: jnp.sum(x**2) + jax.random.normal(key), jnp.ones(2), takes_key=True)
    result = zoo.run(SNES, noisy, 0, num_generations=10, num_scores=1)
    assert result.best_fitness < -1
    best = result.best(400)
    other = {"mean": result.mean, "best_solution": result.best_solution}
    exact = {name: float(jnp.sum(x**2)) for name, x in other.items()}
    assert best.name == min(exact, key=lambda name: exact[name])  # the same noise for both makes them comparable
    assert_same(best.solution, other[best.name])
    assert best.standard_error == pytest.approx(1 / np.sqrt(400), rel=0.2)
    assert abs(best.fitness - exact[best.name]) < 4 * best.standard_error
    assert result.best(400) == best
    for bad in (1.5, True, "64"):
        with pytest.raises(TypeError, match="num_reevaluations must be a whole number, got"):
            result.best(bad)
    with pytest.raises(ValueError, match="num_reevaluations must be at least 1, got 0"):
        result.best(0)


def test_of_episodes_whole_ones_are_evaluated_again(walk):
    best = walk.best(8)
    problem = walk.problem.with_statistics(walk.problem_state.statistics)
    fitness = [problem.fitness(key, best.solution) for key in jax.random.split(jax.random.key(0), 8)]
    assert best.fitness == pytest.approx(np.mean(fitness), rel=1e-5)
    assert 0 < best.standard_error < np.inf


# Keys and what is given


def test_the_key_decides(result):
    assert_same_run(result, zoo.run(SNES, BOWL, 0, **BUDGET))
    assert_same_run(result, zoo.run(SNES, BOWL, jax.random.key(0), **BUDGET))
    assert_same_run(result, zoo.run(SNES, BOWL, **BUDGET))  # 0 is the default
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
    assert by_id.strategy == zoo.make_strategy("snes", population_size=10, sigma=2.0)  # the problem suggests these
    assert_same_run(by_id, zoo.run(by_id.strategy, sphere, 0, **budget))
    assert_same_run(by_id, zoo.run("snes", sphere, 0, **budget))
    # An instance keeps its own settings. Only open settings are filled in.
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
    zoo.run(SNES, BOWL, 0, **BUDGET)  # the fixture's program may have been dropped
    traced = len(TRACES)
    assert traced > 0
    other = zoo.run(SNES.replace(sigma=0.1), BOWL, 5, **BUDGET)
    zoo.run(SNES.replace(sigma=3), BOWL, 5, num_generations=8, num_scores=4)
    zoo.run(SNES, BOWL.replace(solution=jnp.ones(3)), **BUDGET)
    assert len(TRACES) == traced
    assert other.best_fitness != result.best_fitness
    zoo.run(SNES.replace(population_size=8), BOWL, **BUDGET)
    assert len(TRACES) > traced


# Saving


def test_save_and_load(walk, tmp_path):
    walk.save(tmp_path / "run")
    loaded = zoo.load_run(str(tmp_path / "run"), Walk(), PAIRS)
    assert_same_run(loaded, walk)
    assert (loaded.seconds, loaded.compile_seconds) == (walk.seconds, walk.compile_seconds)
    assert loaded.strategy == walk.strategy
    assert_same(loaded.key, walk.key)
    pd.testing.assert_frame_equal(loaded.curve(), walk.curve(), check_exact=True)
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["strategy"]["population_size"] == 4
    assert facts["problem"]["hazard"] == 0.3
    assert facts["versions"]["jax"] == jax.__version__
    assert facts["call"]["key"] == 0
    # A loaded run can be continued.
    further = {"num_generations": 14, "num_scores": 7}
    assert_same_run(zoo.run(start=loaded, **further), zoo.run(PAIRS, Walk(), 0, **further))


def test_save_replaces(result, walk, tmp_path):
    walk.save(tmp_path)
    result.save(tmp_path)
    assert_same_run(zoo.load_run(tmp_path, BOWL, SNES), result)


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
    with pytest.raises(TypeError, match=r"already made, and settings \['sigma'\]"):
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


def test_transfers_may_be_guarded(result):
    """The run moves no array implicitly between host and devices, and computes no NaN."""
    with jax.transfer_guard("disallow"), jax.debug_nans(True):
        guarded = zoo.run(SNES, zoo.from_function(bowl, np.zeros(3)), 0, **BUDGET)
        assert_same(guarded.mean, result.mean)
        zoo.minimize(bowl, np.zeros(3), SNES, callback=lambda progress: bool(progress.mean.sum() > 1e9), **BUDGET)
        zoo.benchmark({"a": SNES}, {"p": zoo.make_problem("blackbox/sphere", num_dims=2)}, num_steps=6, progress=False)


def test_minimize_keeps_few_programs(monkeypatch):
    """A new function in every call needs a program of its own (megabytes), so only a few programs are kept."""
    monkeypatch.setattr("zoo.loop.compiled.MAX_PROGRAMS", 2)
    zoo.loop.compiled.forget_programs()
    counts = []
    for center in range(4):
        zoo.minimize(lambda x, center=center: jnp.sum((x - center) ** 2), jnp.zeros(1), SEARCH, num_generations=1)
        counts.append([p.num_programs for p in (zoo.loop.compiled.start, zoo.loop.compiled.advance)])
    assert counts == [[1, 1], [2, 2], [1, 1], [2, 2]]


@pytest.mark.parametrize(
    ("num_dims", "id"), [(1, "cma_es"), (200, "cma_es"), (201, "sep_cma_es"), (10**6, "sep_cma_es")]
)
def test_minimize_chooses_by_dimension(num_dims, id, monkeypatch):
    monkeypatch.setattr("zoo.loop.run.run", lambda strategy, *_args, **_kwargs: strategy)
    chosen = zoo.minimize(bowl, np.zeros(num_dims, np.float32), sigma=0.25)
    assert isinstance(chosen, type(zoo.make_strategy(id)))
    assert chosen.sigma == 0.25


def test_a_search_that_there_is_no_memory_for():
    with pytest.raises(ValueError, match=r"CMAES: the state of a search in 1,000,000 dimensions takes .* TiB"):
        zoo.minimize(bowl, np.zeros(10**6, np.float32), "cma_es", num_generations=1)
