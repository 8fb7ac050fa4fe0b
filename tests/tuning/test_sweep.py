"""Sweeps: what is drawn, what is run in which program, what is chosen, and what is reported."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest

import zoo
from zoo.loop import compiled
from zoo.tuning import search as module
from zoo.tuning.blocks import Run, cut_into_blocks
from zoo.tuning.space import as_space, draw_settings, draw_with_default

SPACE = {"sigma": zoo.space.log_uniform(0.01, 1), "learning_rate": [0.05, 0.2]}
SMALL = {"num_settings": 4, "num_seeds": 2, "num_test_seeds": 4, "num_generations": 6, "progress": False}


@pytest.fixture(scope="module")
def problem():
    return zoo.make_problem("blackbox/sphere", num_dims=3)


@pytest.fixture(scope="module")
def found(problem):
    num_programs = compiled.advance.num_programs
    found = zoo.sweep({"id": "open_es", "population_size": 6}, problem, SPACE, **SMALL)
    assert compiled.advance.num_programs == num_programs + 1  # tuning and test, all settings and seeds
    return found


# What is drawn


@pytest.mark.parametrize(
    ("distribution", "ends", "middle"),
    [
        (zoo.space.uniform(-1, 3), (-1, 3), 1),
        (zoo.space.log_uniform(0.01, 1), (0.01, 1), 0.1),
        (zoo.space.integers(2, 6), (2, 6), 4),
        (zoo.space.integers(4, 65, step=4, log=True), (4, 64), 12),
        (zoo.space.choice(["a", "b", "c"]), ("a", "c"), "b"),
    ],
    ids=repr,
)
def test_a_fraction_becomes_a_value(distribution, ends, middle):
    got = [distribution.at(u) for u in (0.0, 0.5, 1.0)]
    expected = [ends[0], middle, ends[1]]
    assert got == (pytest.approx(expected, rel=1e-12) if isinstance(got[0], float) else expected)


def test_whole_numbers_have_equal_shares():
    values = [zoo.space.integers(1, 4).at(u) for u in np.linspace(0, 1, 4001)]
    counts = np.bincount(values)[1:]
    assert counts.min() >= 999


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: zoo.space.log_uniform(0, 1), ValueError, "log_uniform needs a positive low"),
        (lambda: zoo.space.uniform(2, 1), ValueError, "uniform needs low < high, got 2 and 1"),
        (lambda: zoo.space.uniform("a", 1), TypeError, "uniform: low must be a number"),
        (lambda: zoo.space.uniform(0, math.inf), ValueError, "uniform: high must be finite"),
        (lambda: zoo.space.integers(1.5, 3), TypeError, "integers: low must be a whole number"),
        (lambda: zoo.space.integers(1, 3, step=0), ValueError, "integers: step must be at least 1"),
        (lambda: zoo.space.choice([]), ValueError, "choice expects at least one value"),
        (lambda: zoo.space.choice("ab"), TypeError, "choice expects a list of values"),
        (lambda: as_space({}), ValueError, "space has no settings to sweep"),
        (lambda: as_space(["sigma"]), TypeError, "space must be a dictionary from settings"),
        (lambda: as_space({"sigma": (0.1, 1)}), TypeError, r"is a pair, \(0.1, 1\), .*zoo.space.uniform\(0.1, 1\)"),
        (lambda: as_space({"sigma": 0.1}), TypeError, r"space\['sigma'\] must be a list of values or a distribution"),
    ],
)
def test_bad_distributions(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("sampler", ["sobol", "random"])
def test_draws_are_different_and_come_from_the_seed(sampler):
    space = as_space({"a": zoo.space.uniform(0, 1), "n": zoo.space.integers(1, 3), "c": ["x", "y"]})
    drawn = draw_settings(space, 11, sampler, seed=1)
    assert len({repr(each) for each in drawn}) == 11
    assert drawn == draw_settings(space, 11, sampler, seed=1) != draw_settings(space, 11, sampler, seed=2)
    assert drawn[:8] == draw_settings(space, 8, sampler, seed=1)
    assert {each["c"] for each in drawn} == {"x", "y"}


def test_a_small_space_is_drawn_once():
    assert len(draw_settings(as_space({"a": [1, 2, 3], "b": ["x", "y"]}), 32, "sobol", 0)) == 6
    assert len(draw_settings(as_space({"n": zoo.space.integers(1, 5)}), 32, "random", 0)) == 5


def test_the_default_is_not_drawn_again(problem):
    strategy = zoo.make_strategy("snes", sigma=0.5)
    drawn = draw_with_default(as_space({"sigma": [0.1, 0.5, 2.0]}), strategy, 3, "sobol", 0)
    assert drawn == [{"sigma": 0.5}, {"sigma": 0.1}, {"sigma": 2.0}]


def test_grids():
    space = as_space({"s": zoo.space.log_uniform(0.01, 1), "t": zoo.space.uniform(0, 1), "c": ["x", "y"]})
    drawn = draw_settings(space, 20, "grid", 0)
    assert len(drawn) == 18  # 3 x 3 x 2
    np.testing.assert_allclose(sorted({each["s"] for each in drawn}), [0.01, 0.1, 1])
    with pytest.raises(ValueError, match="has 2 settings, more than num_settings=1"):
        draw_settings(space, 1, "grid", 0)
    with pytest.raises(ValueError, match="sampler must be one of 'sobol', 'random', 'grid', got 'tpe'"):
        draw_settings(space, 4, "tpe", 0)


def test_blocks_have_equal_sizes():
    runs = [Run(i, 0) for i in range(10)]
    blocks = cut_into_blocks(runs, 4, is_fixed=False)
    assert [len(block) for block in blocks] == [4, 4, 4]
    assert [run.setting for block in blocks for run in block] == [*range(10), 9, 9]
    assert [len(block) for block in cut_into_blocks(runs[:3], 8, is_fixed=True)] == [8]
    assert [len(block) for block in cut_into_blocks(runs[:6], 4, is_fixed=False)] == [3, 3]


# What is run


def test_runs_are_those_of_single_runs(found, problem):
    tuning = jax.random.fold_in(jax.random.key(0), module.TUNING)
    assert len(found.runs) == 4 * 2
    for row in (found.runs.iloc[0], found.runs.iloc[-1]):
        strategy = {"id": "open_es", "population_size": 6, **found.settings[row.setting]}
        run = zoo.run(strategy, problem, jax.random.fold_in(tuning, int(row.seed)), num_generations=6, num_scores=1)
        np.testing.assert_allclose(row.score, run.score, rtol=1e-4)
        assert row.steps == run.num_steps


def test_test_seeds_are_those_of_a_benchmark(found, problem):
    strategy = {"id": "open_es", "population_size": 6, **found.best}
    results = zoo.benchmark({"best": strategy}, {"p": problem}, num_seeds=4, num_steps=36, num_scores=1, progress=False)
    scores = found.test[found.test.setting == found.ranking[0]].score
    np.testing.assert_allclose(scores, results.scores("best", "p"), rtol=1e-4)


def test_each_combination_of_static_values_is_a_program(problem):
    space = {"sigma": [0.1, 0.2], "optimizer": ["adam", "sgd"]}
    num_programs = compiled.advance.num_programs
    found = zoo.sweep({"id": "open_es", "population_size": 4}, problem, space, **SMALL)
    assert compiled.advance.num_programs == num_programs + 2
    assert len(found.settings) == 4
    assert sorted(found.frame["rank"]) == [1, 2, 3, 4]


def test_settings_of_a_base(problem):
    strategy = {"id": "bounded", "base": {"id": "snes", "population_size": 4}, "lower": -9.0, "upper": 9.0}
    settings = {**SMALL, "num_settings": 2, "num_generations": 2}
    found = zoo.sweep(strategy, problem, {"base.sigma": [0.1, 2.0]}, **settings)
    assert found.best == {"base.sigma": 2.0}
    assert found.strategy["base"] == {"id": "snes", "population_size": 4, "sigma": 2.0}
    assert strategy["base"] == {"id": "snes", "population_size": 4}
    zoo.run(found.strategy, problem, num_generations=1)
    made = zoo.make_strategy(strategy)
    again = zoo.sweep(made, problem, {"base.sigma": [0.1, 2.0]}, **settings)
    np.testing.assert_allclose(again.runs.score, found.runs.score, rtol=1e-5)


# What is chosen and reported


class Noise(zoo.Problem):
    """Every solution has a score of pure noise, so that no setting is better than another."""

    def initial_solution(self, key):
        return jnp.zeros(1)

    def fitness(self, key, solution):
        return jnp.sum(solution)

    def score(self, key, solution):
        bits = jax.lax.bitcast_convert_type(solution[0], jnp.int32)
        return {"fitness": jax.random.normal(jax.random.fold_in(key, bits))}


def test_the_winners_score_is_unbiased_on_test_seeds_only():
    """Over 16 settings with scores from N(0, 1), the smallest mean of two seeds is -1.77 / sqrt(2) on average."""
    problem, tuning, test = Noise(), [], []
    for key in range(12):
        settings = {"num_settings": 16, "num_seeds": 2, "num_test_seeds": 8, "num_generations": 1, "progress": False}
        strategy = {"id": "random_search", "population_size": 2}
        found = zoo.sweep(strategy, problem, {"sigma": zoo.space.uniform(0.5, 1)}, key=key, **settings)
        winner = found.frame.iloc[0]
        tuning.append(winner.score)
        test.append(winner.test_score)
    assert abs(np.mean(test)) < 4 * 0.4 / np.sqrt(12)
    assert np.mean(tuning) < -1.25 + 4 * 0.35 / np.sqrt(12) < -0.8


def make(scores, *, maximize=False):
    """A sweep with the given tuning scores, `[num_settings, num_seeds]`."""
    scores = np.asarray(scores, float)
    rows = [(i, s, scores[i, s], 10, 0.1, 0.1, 10, "") for i in range(len(scores)) for s in range(scores.shape[1])]
    runs = pd.DataFrame(rows, columns=list(module.RUN_COLUMNS))
    facts = {"maximize": maximize, "headline": "h", "num_seeds": scores.shape[1], "num_test_seeds": 1}
    facts |= {"spec": None, "budget": {"generations": 10}, "space": {"sigma": "uniform(0, 9)"}}
    settings = [{"sigma": float(i)} for i in range(len(scores))]
    return zoo.Sweep(settings, runs, runs[:0], {**facts, "strategy": "s", "problem": "p"})


def test_the_choice_and_how_sure_it_is():
    scores = [[1, 2, 3], [1.1, 2.1, 3.1], [np.nan, 0, 0], [9, 9, 9]]
    assert make(scores).ranking == [0, 1, 3, 2]  # those that fail on fewer seeds come first
    assert make([[np.nan, np.nan], [5, 6]]).ranking == [1]  # without a score there is no rank
    assert "1 of 4 settings have no finite score on some seeds" in repr(make(scores))
    assert make(scores).frame.score.tolist() == [2, pytest.approx(2.1), 9, 0]
    assert make(scores, maximize=True).best == {"sigma": 3.0}
    assert make([[1, 1, 1], [2, 2, 2]]).certainty == 1
    assert make([[1, 1, 1], [1, 1, 1]]).certainty == 0.5  # a tie
    assert len(make(scores).plot().axes) == 1
    with pytest.raises(ValueError, match=r"with strategy\.replace\(\*\*found\.best\)"):
        _ = make(scores).strategy
    assert 0.2 < make([[1, 2, 3, 1.5], [3, 1, 2, 1.6]]).certainty < 0.8
    # Every setting fails on a seed. The first is better on the others, also by the seeds that remain in a resample.
    assert make([[1, 1, 1, 1, np.inf], [5, 5, 5, 5, np.nan]]).certainty > 0.99


def test_halving_keeps_settings_that_fail_on_fewer_seeds():
    """An interquartile mean of four or more seeds cuts off a single infinite score."""
    scores = [[0, 0, 0, 0, np.inf], [5, 5, 5, 5, 5], [np.nan] * 5, [4, 4, 4, 4, 4]]
    assert module._best(make(scores).runs, 2, maximize=False) == [1, 3]
    assert module._best(make(scores).runs, 2, maximize=True) == [1, 3]
    assert module._best(make(scores).runs, 3, maximize=False) == [0, 1, 3]


def test_halving_drops_settings_after_shorter_budgets(problem):
    space = {"sigma": zoo.space.log_uniform(0.01, 1)}
    settings = {**SMALL, "num_settings": 8, "num_generations": 8, "halving": 2}
    found = zoo.sweep({"id": "open_es", "population_size": 6}, problem, space, **settings)
    assert found.runs.groupby("budget").setting.nunique().to_dict() == {2: 8, 4: 4, 8: 2}
    assert found.frame["rank"].notna().sum() == 2
    whole = zoo.sweep({"id": "open_es", "population_size": 6}, problem, space, **{**settings, "halving": None})
    kept = found.runs[found.runs.budget == 8]
    same = whole.runs.merge(kept, on=["setting", "seed"])
    np.testing.assert_allclose(same.score_x, same.score_y, rtol=1e-4)
    assert len(same) == 4


def test_halving_needs_a_budget_to_halve(problem):
    with pytest.raises(ValueError, match=r"halving=3 needs a budget of at least 9 generations.*got 6"):
        zoo.sweep("open_es", problem, {"sigma": [0.1, 0.2]}, **SMALL, halving=3)


def test_a_setting_that_fails_does_not_lose_the_others(problem):
    settings = {**SMALL, "num_generations": None, "num_steps": 20}
    found = zoo.sweep("open_es", problem, {"population_size": [4, 64]}, **settings)
    assert found.best == {"population_size": 4}
    assert "spends 64 problem steps" in found.frame.loc[1, "error"]
    with pytest.raises(ValueError, match="No setting of the sweep has a score: A generation of OpenES spends 64"):
        zoo.sweep("open_es", problem, {"population_size": [64, 128]}, **settings)


@pytest.mark.parametrize(
    ("strategy", "space", "error", "words"),
    [
        ("open_es", {"sigm": [0.1]}, TypeError, "has no setting 'sigm'"),
        (
            "open_es",
            {"sigma": [0.1, -1]},
            ValueError,
            r"not valid, \{'sigma': -1\}: OpenES.sigma must be",
        ),
        ("open_es", {"base.sigma": [0.1]}, ValueError, "does not say what its base is"),
        ("no_such", {"sigma": [0.1]}, ValueError, "Unknown strategy 'no_such'"),
        (zoo.make_strategy("snes"), {"sigm": [0.1]}, TypeError, "SNES has no setting 'sigm', which the space sweeps"),
    ],
)
def test_bad_spaces(strategy, space, error, words, problem):
    with pytest.raises(error, match=words):
        zoo.sweep(strategy, problem, space, **SMALL)


# What is kept


def test_an_interrupted_sweep_goes_on(problem, tmp_path, monkeypatch):
    arguments = ({"id": "open_es", "population_size": 6}, problem, {"sigma": [0.1, 0.2], "optimizer": ["adam", "sgd"]})
    whole = zoo.sweep(*arguments, **SMALL)
    calls, run_block = [], module.run_block

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run_block(*args)

    monkeypatch.setattr(module, "run_block", interrupted)
    with pytest.raises(KeyboardInterrupt):
        zoo.sweep(*arguments, **SMALL, out=tmp_path)
    found = zoo.sweep(*arguments, **SMALL, out=tmp_path)
    assert len(calls) == 4  # two blocks of tuning, the second one twice, and the test
    for got, expected in ((found.runs, whole.runs), (found.test, whole.test)):
        times = ["seconds", "compile_seconds"]
        pd.testing.assert_frame_equal(got.drop(columns=times), expected.drop(columns=times))
    zoo.sweep(*arguments, **SMALL, out=tmp_path)
    assert len(calls) == 4
    with pytest.raises(ValueError, match=r"holds another sweep: budget: .*fresh=True"):
        zoo.sweep(*arguments, **{**SMALL, "num_generations": 7}, out=tmp_path)
    zoo.sweep(*arguments, **{**SMALL, "num_generations": 7}, out=tmp_path, fresh=True)
    assert len(calls) == 7


def test_another_sweep_is_refused_before_anything_is_computed(found, problem, tmp_path, monkeypatch):
    found.save(tmp_path)
    monkeypatch.setattr(module, "run_block", None)
    with pytest.raises(ValueError, match=r"holds another sweep: .*fresh=True"):
        zoo.sweep("open_es", problem, SPACE, **SMALL, out=tmp_path)
    assert zoo.Sweep.load(tmp_path).settings == found.settings


def test_a_sweep_is_not_beside_blocks_of_another(problem, tmp_path, monkeypatch):
    """A sweep that replaces another one is interrupted after its first block."""
    arguments = ({"id": "open_es", "population_size": 6}, problem, {"sigma": [0.1, 0.2], "optimizer": ["adam", "sgd"]})
    settings = {**SMALL, "num_test_seeds": 0}
    zoo.sweep(*arguments, **settings, out=tmp_path)
    calls, run_block = [], module.run_block

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 2:
            assert len(list((tmp_path / "blocks").iterdir())) == 1
            raise KeyboardInterrupt
        return run_block(*args)

    monkeypatch.setattr(module, "run_block", interrupted)
    with pytest.raises(KeyboardInterrupt):
        zoo.sweep(*arguments, **{**settings, "num_generations": 7}, out=tmp_path, fresh=True)
    with pytest.raises(FileNotFoundError, match="No sweep in"):
        zoo.Sweep.load(tmp_path)
    with pytest.raises(ValueError, match="holds another sweep: budget: 7 generations there"):
        zoo.sweep(*arguments, **settings, out=tmp_path)
    zoo.sweep(*arguments, **{**settings, "num_generations": 7}, out=tmp_path)
    assert len(calls) == 3


def make_optimizer(name, factor):
    """An optimizer of the user's, which is told from others by its name."""

    def optimizer(learning_rate):
        return optax.sgd(factor * learning_rate)

    optimizer.__qualname__ = name
    return optimizer


def test_the_code_of_all_settings_is_part_of_a_sweep(problem, tmp_path):
    def sweep(factor):
        space = {"optimizer": [make_optimizer("a", 1.0), make_optimizer("b", factor)]}
        settings = {**SMALL, "num_test_seeds": 0, "num_generations": 2}
        return zoo.sweep({"id": "open_es", "population_size": 6}, problem, space, **settings, out=tmp_path)

    pd.testing.assert_frame_equal(sweep(2.0).runs, sweep(2.0).runs)  # the seconds too: nothing is computed again
    with pytest.raises(ValueError, match="holds another sweep: other programs"):
        sweep(3.0)


def test_save_and_load(found, tmp_path):
    found.save(tmp_path / "sweep")
    again = zoo.Sweep.load(tmp_path / "sweep")
    assert again.settings == found.settings
    pd.testing.assert_frame_equal(again.runs, found.runs)
    pd.testing.assert_frame_equal(again.frame, found.frame)
    assert repr(again) == repr(found)
    text = (tmp_path / "sweep" / "runs.csv").read_text()
    (tmp_path / "sweep" / "runs.csv").write_text(text.replace("0,0,", "0,1,", 1))
    with pytest.raises(ValueError, match=r"runs\.csv"):
        zoo.Sweep.load(tmp_path / "sweep")
    with pytest.raises(FileNotFoundError, match="No sweep in"):
        zoo.Sweep.load(tmp_path)


def test_what_a_sweep_says_and_shows(found):
    lines = repr(found).splitlines()
    assert lines[0] == "<Sweep of open_es(population_size=6) on BBOB: 4 settings x 2 seeds, 6 generations each"
    assert lines[2].startswith("  fitness on 4 test seeds: ")
    assert len(lines) == 10
    number = found.frame.index[3]
    assert lines[9].startswith(f"    4  {found.frame.score[number]:.4g} (")
    assert f"  sigma={found.settings[number]['sigma']:.4g}, learning_rate=" in lines[9]
    titles = [axis.get_xlabel() for axis in found.plot().axes]
    assert sorted(titles[:2]) == ["learning_rate", "sigma"]


# Spaces of strategies, factors, and settings from elsewhere


@pytest.mark.parametrize(
    ("factor", "bounds", "expected"),
    [
        (zoo.space.times(0.1, 10), {}, (0.05, 0.5, 5.0)),
        (zoo.space.times(0.1, 10), {"at_most": 1}, (0.05, 0.05**0.5, 1.0)),
        (zoo.space.times(0.1, 10), {"at_least": 0.2}, (0.2, 1.0, 5.0)),
        (zoo.space.times(0.1, 10), {"above": 0.4}, (0.4001, (0.4001 * 5) ** 0.5, 5.0)),
    ],
)
def test_a_factor_multiplies_a_value_within_its_bounds(factor, bounds, expected):
    assert [factor.of(0.5, bounds, "a").at(u) for u in (0.0, 0.5, 1.0)] == pytest.approx(expected, rel=1e-12)


def test_a_factor_multiplies_a_spread_per_parameter():
    value = {"a": 0.5, "b": np.array([1.0, 8.0], np.float32)}
    got = zoo.space.times(0.1, 10).of(value, {"at_most": 20}, "sigma").at(1.0)
    assert got["a"] == 5.0
    np.testing.assert_array_equal(got["b"], np.array([10, 20], np.float32))
    for wrong in (0.0, -1.0, None, "a", np.zeros(2)):
        with pytest.raises(ValueError, match=r"a is searched by times\(0\.1, 10\).*must be positive"):
            zoo.space.times(0.1, 10).of(wrong, {}, "a")


class Spread(zoo.Problem):
    """Suggests a spread per parameter."""

    @property
    def suggestions(self):
        return {"sigma": [0.5, [1.0, 4.0]]}

    def initial_solution(self, key):
        return [jnp.ones(()), jnp.ones(2)]

    def fitness(self, key, solution):
        return solution[0] ** 2 + jnp.sum(solution[1] ** 2)


def test_the_space_of_a_strategy(tmp_path):
    """What is given is not tuned; the first setting is the default; a spread is scaled, stored and used as a whole."""
    strategy = {"id": "bounded", "base": {"id": "snes", "population_size": 4, "mean_learning_rate": 0.9}}
    settings = {**SMALL, "num_generations": 2, "num_test_seeds": 2}
    found = zoo.sweep(strategy, Spread(), **settings, out=tmp_path)
    assert [list(each) for each in found.settings] == [["base.sigma"]] * 4
    assert found.settings[0] == {"base.sigma": [0.5, [1.0, 4.0]]}
    scaled = found.settings[1]["base.sigma"]
    assert scaled[1] == pytest.approx([2 * scaled[0], 8 * scaled[0]])
    np.testing.assert_allclose(found.frame.loc[0, "base.sigma"], (0.5 * 1 * 4) ** (1 / 3))
    assert zoo.Sweep.load(tmp_path).settings == found.settings
    assert [axis.get_xscale() for axis in found.plot().axes] == ["log"]
    zoo.run(found.strategy, Spread(), num_generations=1)


def test_a_default_base_is_spelled_out(problem):
    settings = {**SMALL, "num_generations": 1, "num_test_seeds": 0}
    found = zoo.sweep("bounded", problem, {"base.sigma": [0.5]}, **settings)
    assert found.strategy == {"id": "bounded", "base": {"id": "open_es", "learning_rate": 0.1, "sigma": 0.5}}


def test_a_strategy_without_settings_to_tune(problem):
    with pytest.raises(ValueError, match=r"random_search\(sigma=1\) declares no settings to tune, besides"):
        zoo.sweep({"id": "random_search", "sigma": 1}, problem, **SMALL)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"settings": []}, ValueError, "settings has nothing to try"),
        ({"settings": [{"sigma": 1}, {"learning_rate": 1}]}, ValueError, "must have values for the same names"),
        ({"settings": {"sigma": 1}}, TypeError, "settings must be a list of dictionaries"),
        ({"settings": [{"sigma": 1}], "space": {"sigma": [1]}}, ValueError, "Both a space and settings are given"),
        ({"settings": [{"population_size": 6}]}, ValueError, "population_size is given for the strategy, and is a set"),
        ({"space": {"population_size": [6]}}, ValueError, "population_size is given for the strategy, and is a set"),
        ({"settings": [{"sigma": 1}], "sampler": "tpe"}, ValueError, "sampler must be one of"),
        ({"num_test_seeds": -1}, ValueError, "num_test_seeds must be at least 0"),
    ],
)
def test_settings_that_are_refused(settings, error, words, problem):
    with pytest.raises(error, match=words):
        zoo.sweep({"id": "open_es", "population_size": 6}, problem, **{**SMALL, **settings})


def test_another_library_asks_for_settings(problem):
    """Optuna's sampler of the Parzen kind asks for batches, each of which is one sweep; it learns from the scores."""
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=4))
    ranges = {
        "sigma": optuna.distributions.FloatDistribution(0.001, 100, log=True),
        "learning_rate": optuna.distributions.FloatDistribution(0.001, 10, log=True),
    }
    settings = {**SMALL, "num_test_seeds": 0}
    for _ in range(4):
        trials = [study.ask(ranges) for _ in range(4)]
        asked = [trial.params for trial in trials]
        found = zoo.sweep({"id": "open_es", "population_size": 6}, problem, settings=asked, **settings)
        assert found.settings == asked
        for trial, score in zip(trials, found.frame.score.sort_index(), strict=True):
            study.tell(trial, score)
    scores = [trial.value for trial in study.trials]
    assert study.best_value == min(scores)
    assert np.median(scores[8:]) < np.median(scores[:4])
    assert len(found.test) == 0
    assert "test seeds" not in repr(found)
