"""Benchmarks that tune each strategy first: what is tried, what is chosen, what it cost, and what is kept."""

import jax
import numpy as np
import pytest

import zoo
from zoo.tuning import search

NUM_STEPS, NUM_SEEDS = 60, 2
STRATEGIES = {
    "snes": {"id": "snes", "population_size": 6},
    "given": {"id": "random_search", "population_size": 6, "sigma": 1.5},
}
SETTINGS = {
    "num_seeds": 3,
    "num_steps": NUM_STEPS,
    "num_scores": 1,
    "tune": 5,
    "tune_seeds": NUM_SEEDS,
    "progress": False,
}


@pytest.fixture(scope="module")
def problem():
    return zoo.make_problem("blackbox/sphere", num_dims=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tuned")


@pytest.fixture(scope="module")
def results(problem, folder):
    return zoo.benchmark(STRATEGIES, {"p": problem}, **SETTINGS, out=folder)


@pytest.fixture
def found(results, folder):
    (tuned,) = (folder / "tuning").glob("*__snes")
    return zoo.Sweep.load(tuned)


def test_the_best_setting_on_the_tuning_seeds_is_chosen(results, found, problem):
    tuning = jax.random.fold_in(jax.random.key(0), search.TUNING)
    scores = []
    for values in found.settings:
        strategy = {**STRATEGIES["snes"], **values}
        keys = [jax.random.fold_in(tuning, seed) for seed in range(NUM_SEEDS)]
        runs = [zoo.run(strategy, problem, key, num_steps=NUM_STEPS, num_scores=1).score for key in keys]
        scores.append(np.mean(runs))
    assert found.settings[0] == {"sigma": 2.0, "mean_learning_rate": 1.0}  # the problem suggests this sigma
    assert all(0.2 <= values["sigma"] <= 20 and 0.1 <= values["mean_learning_rate"] <= 2 for values in found.settings)
    assert results.pair("snes", "p").info["tuning"]["best"] == found.settings[int(np.argmin(scores))]
    np.testing.assert_allclose(found.frame.sort_index().score, scores, rtol=1e-4)


def test_the_choice_is_run_on_the_seeds_of_the_benchmark(results, problem):
    info = results.pair("snes", "p").info
    strategies = {"snes": {**STRATEGIES["snes"], **info["tuning"]["best"]}, "given": STRATEGIES["given"]}
    again = zoo.benchmark(strategies, {"p": problem}, **{**SETTINGS, "tune": None})
    for label in STRATEGIES:
        np.testing.assert_allclose(results.scores(label, "p"), again.scores(label, "p"), rtol=1e-4)
    assert {name: info["strategy_settings"][name] for name in info["tuning"]["best"]} == info["tuning"]["best"]
    assert "tuned" not in again.summary()


def test_what_it_says(results, tmp_path):
    tuning = results.pair("snes", "p").info["tuning"]
    assert (tuning["num_settings"], tuning["num_seeds"], tuning["steps"]) == (5, NUM_SEEDS, 5 * NUM_SEEDS * NUM_STEPS)
    assert 0 < tuning["certainty"] <= 1
    assert results.pair("given", "p").info["tuning"] is None
    summary = results.summary().set_index("strategy")
    assert summary.tuned.to_dict() == {"snes": "tuned, 5 settings", "given": "default"}
    text = results.report(tmp_path).read_text()
    assert f"| 5 x {NUM_SEEDS} seeds |" in text.partition("## Tuning")[2]


def test_an_interrupted_tuning_goes_on(results, problem, tmp_path, monkeypatch):
    calls, run_block = [], search.run_block
    monkeypatch.setattr("zoo.tuning.blocks._MAX_RUNS", 4)  # ten runs are three blocks

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run_block(*args)

    monkeypatch.setattr(search, "run_block", interrupted)
    arguments = {"snes": STRATEGIES["snes"]}, {"p": problem}
    with pytest.raises(KeyboardInterrupt):
        zoo.benchmark(*arguments, **SETTINGS, out=tmp_path)
    again = zoo.benchmark(*arguments, **SETTINGS, out=tmp_path)
    assert len(calls) == 4
    np.testing.assert_allclose(again.scores("snes", "p"), results.scores("snes", "p"), rtol=1e-4)
    zoo.benchmark(*arguments, **SETTINGS, out=tmp_path)
    assert len(calls) == 4
    zoo.benchmark(*arguments, **{**SETTINGS, "num_seeds": 2}, out=tmp_path)  # another pair, tuned as before
    assert len(calls) == 4
    zoo.benchmark(*arguments, **{**SETTINGS, "tune_seeds": 1}, out=tmp_path)
    assert len(calls) == 6
    untuned = zoo.benchmark(*arguments, **{**SETTINGS, "tune": None}, out=tmp_path)
    assert untuned.pair("snes", "p").info["tuning"] is None


def test_a_link_on_the_way_is_not_followed(results, problem, tmp_path):
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    out.mkdir()
    arguments = {"snes": STRATEGIES["snes"]}, {"p": problem}
    (out / "tuning").symlink_to(elsewhere)
    with pytest.warns(UserWarning, match="tuning is damaged: it is a link"):
        found = zoo.benchmark(*arguments, **SETTINGS, out=out)
    np.testing.assert_allclose(found.scores("snes", "p"), results.scores("snes", "p"), rtol=1e-4)
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"tune": 1}, ValueError, "tune must be at least 2"),
        ({"tune_seeds": 0}, ValueError, "tune_seeds must be at least 1"),
        ({"mesh": zoo.population_mesh(1)}, ValueError, "Tune without a mesh"),
    ],
)
def test_what_is_refused(problem, settings, error, words):
    with pytest.raises(error, match=words):
        zoo.benchmark("snes", {"p": problem}, **{**SETTINGS, **settings})
