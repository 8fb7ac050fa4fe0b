"""Results: frames, statistics, ranks, figures, reports, and the folder that holds them."""

import json
import os
import re

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import zoo
from zoo.benchmarking.pair import CURVE_COLUMNS, Pair
from zoo.loop.provenance import make_metadata
from zoo.reports.tables import describe_overshoot, format_summary, markdown_table
from zoo.statistics.aggregates import confidence_interval


def make_pair(strategy, problem, values, *, maximize=False, error=None, seconds=2.0, overshoot=0.0):
    """Returns a pair with the given headline scores, `[num_seeds, num_points]`, or a failed pair without scores."""
    info = {
        "identity": None if error else {"what": {}},
        "strategy_settings": None if error else {"sigma": 0.1},
        "problem_settings": {},
        "headline": "score",
        "maximize": maximize,
        "num_steps": 100,
        "num_seeds": len(values),
        "seconds": 0.0 if error else seconds,
        "compile_seconds": 0.0 if error else 1.5,
        "overshoot": 0.0 if error else overshoot,
        "error": error,
    }
    if error:
        return Pair(strategy, problem, info, pd.DataFrame(columns=list(CURVE_COLUMNS)))
    frames = []
    for seed, curve in enumerate(values):
        points = np.arange(len(curve))
        labels = {"strategy": strategy, "problem": problem, "seed": seed}
        clock = {"generation": points, "steps": 10 * points + seed * (points > 0), "seconds": seconds / 2 * points}
        for metric, value in (("score", curve), ("other", -np.asarray(curve, float))):
            frames.append(pd.DataFrame({**labels, **clock, "metric": metric, "value": np.asarray(value, float)}))
    curve = pd.concat(frames, ignore_index=True)
    return Pair(strategy, problem, info, curve, {"mean": np.arange(3.0 * len(values)).reshape(-1, 3), "statistics": ()})


def make_results(*pairs, num_seeds=2):
    return zoo.Results(list(pairs), make_metadata(num_seeds=num_seeds, key=0))


def curves_to(*finals):
    """Returns curves that end at the given values."""
    return [[9.0, 5.0, final] for final in finals]


def make_example():
    """Returns results on two problems, one of which is maximised. A strategy failed on it."""
    rng = np.random.default_rng(0)
    return make_results(
        make_pair("a", "low/1", rng.normal(0, 1, (5, 4)), seconds=1.0),
        make_pair("b", "low/1", rng.normal(5, 1, (5, 4))),
        make_pair("a", "high", rng.normal(0, 1, (5, 4)), maximize=True),
        make_pair("b", "high", rng.normal(5, 1, (5, 4)), maximize=True),
        make_pair("c", "high", [], maximize=True, error="RuntimeError: out | of\nluck"),
        num_seeds=5,
    )


@pytest.fixture
def results():
    return make_example()


# Frames


def test_curves_and_final(results):
    assert tuple(results.curves) == CURVE_COLUMNS
    assert len(results.curves) == 4 * 5 * 4 * 2
    final = results.final
    assert len(final) == 4 * 5 * 2
    assert (final.generation == 3).all()
    for pair in results.pairs[:4]:
        rows = pair.curve[(pair.curve.metric == "score") & (pair.curve.generation == 3)]
        np.testing.assert_array_equal(results.scores(pair.strategy, pair.problem), rows.value)
        np.testing.assert_array_equal(results.scores(pair.strategy, pair.problem, "other"), -rows.value)


def test_one_pair(results):
    assert results.pair("b", "high") is results.pairs[3]
    with pytest.raises(KeyError, match=r"No pair.*'d'"):
        results.pair("d", "high")
    assert results.failures.to_dict("records") == [
        {"strategy": "c", "problem": "high", "error": "RuntimeError: out | of\nluck"}
    ]


def test_summary(results):
    summary = results.summary()
    assert list(summary) == [
        *("problem", "strategy", "metric", "score", "low", "high", "rank"),
        *("num_seeds", "steps", "overshoot", "seconds", "compile_seconds"),
    ]
    assert summary.problem.tolist() == ["high", "high", "high", "low/1", "low/1"]
    assert summary.strategy.tolist() == ["b", "a", "c", "a", "b"]
    assert summary["rank"].tolist() == [1, 2, pd.NA, 1, 2]
    row = summary.iloc[3]
    scores = results.scores("a", "low/1")
    assert row.score == np.sort(scores)[1:-1].mean()
    assert (row.low, row.high) == confidence_interval(scores)
    assert row.low < row.score < row.high
    assert (row.metric, row.num_seeds, row.seconds, row.compile_seconds) == ("score", 5, 1.0, 1.5)
    assert row.steps == 30 + np.mean(range(5))
    failed = summary.iloc[2]
    assert failed[["score", "low", "high", "steps", "seconds"]].isna().all()


@pytest.mark.parametrize(("maximize", "ranks"), [(False, [2, 1, 3]), (True, [2, 3, 1])])
def test_rank_direction(maximize, ranks):
    pairs = [
        make_pair(name, "p", curves_to(final, final), maximize=maximize)
        for name, final in (("mid", 2.0), ("low", 1.0), ("high", 3.0))
    ]
    summary = make_results(*pairs).summary().set_index("strategy")
    assert summary["rank"][["mid", "low", "high"]].tolist() == ranks
    assert summary["rank"].is_monotonic_increasing  # best first


@pytest.mark.parametrize("maximize", [False, True])
def test_failed_pairs_and_nan_rank_last(maximize):
    worst = -1e30 if maximize else 1e30
    summary = make_results(
        make_pair("failed", "p", [], maximize=maximize, error="ValueError: no"),
        make_pair("nan", "p", curves_to(np.nan, 1.0), maximize=maximize),
        make_pair("bad", "p", curves_to(worst, worst), maximize=maximize),
        make_pair("good", "p", curves_to(1.0, 1.0), maximize=maximize),
        make_pair("tied", "p", curves_to(1.0, 1.0), maximize=maximize),
    ).summary()
    ranks = summary.set_index("strategy")["rank"]
    assert ranks[["good", "tied", "bad"]].tolist() == [1, 1, 3]
    assert ranks["nan"] == 4
    assert ranks["failed"] is pd.NA
    assert summary.strategy.iloc[-1] == "failed"
    assert summary.set_index("strategy").loc["nan", ["score", "low", "high"]].isna().all()


@pytest.mark.parametrize("maximize", [False, True])
def test_a_seed_that_diverged_ranks_behind_strategies_without_one(maximize):
    """An interquartile mean of four or more seeds cuts off a single infinite score."""
    sign = -1.0 if maximize else 1.0
    finals = {"diverged": [0, 0, 0, 0, np.inf], "mid": [5, 5, 5, 5, 5], "good": [1, 1, 1, 1, 1]}
    pairs = [
        make_pair(name, "p", curves_to(*(sign * each for each in finals[name])), maximize=maximize) for name in finals
    ]
    summary = make_results(*pairs).summary()
    assert summary.strategy.tolist() == ["good", "mid", "diverged"]
    assert summary["rank"].tolist() == [1, 2, 3]
    assert summary.score.iloc[-1] == 0


def test_ranks_are_per_problem():
    summary = make_results(
        make_pair("a", "p", curves_to(1.0, 1.0)),
        make_pair("a", "q", curves_to(5.0, 5.0)),
        make_pair("b", "q", curves_to(4.0, 4.0)),
    ).summary()
    assert summary[["problem", "strategy", "rank"]].to_numpy().tolist() == [["p", "a", 1], ["q", "b", 1], ["q", "a", 2]]


def test_a_single_seed():
    results = make_results(make_pair("a", "p", curves_to(1.5)), num_seeds=1)
    row = results.summary().iloc[0]
    assert row.score == 1.5
    assert row.num_seeds == 1
    assert np.isnan(row.low)
    assert np.isnan(row.high)
    results.plot()
    assert format_summary(results.summary())["95 % interval"].tolist() == [""]


def test_everything_failed(tmp_path):
    results = make_results(
        make_pair("a", "p", [], error="ValueError: no"), make_pair("b", "p", [], error="OSError: none")
    )
    assert results.summary()["rank"].isna().all()
    assert format_summary(results.summary())["rank"].tolist() == ["", ""]
    assert tuple(results.curves) == CURVE_COLUMNS
    assert len(results.final) == 0
    text = results.report(tmp_path).read_text()
    assert "OSError: none" in text
    assert len(results.failures) == 2


# The folder


def test_save_and_load(results, tmp_path):
    results.save(tmp_path)
    loaded = zoo.Results.load(str(tmp_path))
    pd.testing.assert_frame_equal(loaded.curves, results.curves, check_exact=True)
    pd.testing.assert_frame_equal(loaded.final, results.final, check_exact=True)
    pd.testing.assert_frame_equal(loaded.summary(), results.summary(), check_exact=True)
    pd.testing.assert_frame_equal(loaded.failures, results.failures)
    assert loaded.metadata == results.metadata
    assert [pair.info for pair in loaded.pairs] == [pair.info for pair in results.pairs]
    np.testing.assert_array_equal(loaded.pairs[0].solution["mean"], np.arange(15.0).reshape(5, 3))
    assert loaded.pairs[4].solution is None


def test_values_that_are_not_finite_survive(tmp_path):
    values = [[1e-300, np.nan, np.inf], [0.1 + 0.2, -np.inf, 1 / 3]]
    results = make_results(make_pair("a", "p", values))
    results.save(tmp_path)
    pd.testing.assert_frame_equal(zoo.Results.load(tmp_path).curves, results.curves, check_exact=True)


def test_values_survive_to_the_last_bit(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 500)) * 10 ** rng.uniform(-30, 30, (2, 500))
    results = make_results(make_pair("a", "p", values))
    results.save(tmp_path)
    pd.testing.assert_frame_equal(zoo.Results.load(tmp_path).curves, results.curves, check_exact=True)


@pytest.mark.parametrize("labels", [("0.1", "1"), ("1e3", "nan"), ("None", "NA"), ("True", "007"), ("null", " a")])
def test_labels_that_look_like_something_else_survive(labels, tmp_path):
    results = make_results(
        make_pair(labels[0], labels[1], curves_to(1.0, 2.0)), make_pair(labels[1], labels[1], curves_to(3.0, 4.0))
    )
    results.save(tmp_path)
    loaded = zoo.Results.load(tmp_path)
    pd.testing.assert_frame_equal(loaded.curves, results.curves, check_exact=True)
    assert loaded.scores(labels[0], labels[1]).tolist() == [1.0, 2.0]
    assert loaded.summary().strategy.tolist() == [labels[0], labels[1]]
    assert loaded.final.strategy.tolist() == results.final.strategy.tolist()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a b", "p"), ("a-b", "p")),
        (("a/b", "p"), ("a-b", "p")),
        (("lr=1", "p"), ("lr 1", "p")),
        (("a", "x/y"), ("a", "x y")),
        (("b__c", "a"), ("c", "a__b")),
        (("é", "p"), ("è", "p")),
        (("++", "p"), ("**", "p")),
        (("a.tmp", "p"), ("a", "p")),
        (("a" * 1000, "p" * 1000), ("a" * 999 + "b", "p" * 1000)),
    ],
)
def test_pairs_with_similar_labels_do_not_overwrite_each_other(one, other, tmp_path):
    results = make_results(make_pair(*one, curves_to(1.0, 1.0)), make_pair(*other, curves_to(2.0, 2.0)))
    results.save(tmp_path)
    loaded = zoo.Results.load(tmp_path)
    assert [(pair.strategy, pair.problem) for pair in loaded.pairs] == [one, other]
    assert loaded.scores(*one).tolist() == [1.0, 1.0]
    assert loaded.scores(*other).tolist() == [2.0, 2.0]


def test_labels_do_not_lead_out_of_the_folder(tmp_path):
    results = make_results(make_pair("../../up", "..", curves_to(1.0)), make_pair("/root", "C:\\x", curves_to(2.0)))
    results.save(tmp_path / "inside")
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    assert len(zoo.Results.load(tmp_path / "inside").pairs) == 2


def test_saving_again_replaces(results, tmp_path):
    results.save(tmp_path)
    changed = make_results(make_pair("a", "low/1", curves_to(1.0, 2.0)))
    changed.save(tmp_path)
    loaded = zoo.Results.load(tmp_path)
    assert len(loaded.pairs) == 1
    assert loaded.scores("a", "low/1").tolist() == [1.0, 2.0]
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_pair_is_written_at_once_or_not_at_all(tmp_path):
    pair = make_pair("a", "p", curves_to(1.0, 2.0))
    make_results(pair).save(tmp_path)
    broken = Pair("a", "p", {**pair.info, "seconds": object()}, pair.curve.assign(value=0.0), pair.solution)
    with pytest.raises(TypeError):
        broken.save(tmp_path)
    assert zoo.Results.load(tmp_path).scores("a", "p").tolist() == [1.0, 2.0]
    pair.save(tmp_path)  # files of the failed attempt do not matter
    assert zoo.Results.load(tmp_path).scores("a", "p").tolist() == [1.0, 2.0]


def test_nothing_to_load(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No benchmark in .*nowhere.*benchmark\.json"):
        zoo.Results.load(tmp_path / "nowhere")


def test_pairs_that_are_missing_are_left_out(results, tmp_path):
    results.save(tmp_path)
    for path in tmp_path.rglob("pair.json"):
        if json.loads(path.read_text())["strategy"] == "a":
            path.unlink()
    assert [pair.strategy for pair in zoo.Results.load(tmp_path).pairs] == ["b", "b", "c"]


# Reports


def test_report(results, tmp_path):
    path = results.report(tmp_path / "new")
    assert path == tmp_path / "new" / "report.md"
    text = path.read_text()
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert len(pictures) == len(set(pictures)) == 2
    for picture in pictures:
        assert (path.parent / picture).read_bytes().startswith(b"\x89PNG")
    for problem in ("low/1", "high"):
        assert f"\n## {problem}\n" in text
    row = results.summary().iloc[3]
    assert f"| 1 | a | score | {row.score:.4g} | {row.low:.4g} to {row.high:.4g} | 32 | 1.00 | 1.5 |" in text
    assert "|  | c | score | failed |" in text
    assert "| c | high | RuntimeError: out \\| of luck |" in text
    ranks = text.partition("## Mean rank over problems")[2]
    assert re.findall(r"\| (\w) \| ([\d.]+) \|", ranks) == [("a", "1.50"), ("b", "1.50"), ("c", "3.00")]
    assert "5 seeds; key 0" in text
    assert f"XLA_FLAGS {os.environ['XLA_FLAGS']}" in text
    assert f"jax {results.metadata['versions']['jax']}" in text
    for pair in results.pairs:
        assert f"- {pair.strategy} on {pair.problem}: `" in text


def test_report_in_a_file_of_ones_own(results, tmp_path):
    path = results.report(str(tmp_path / "mine.md"))
    assert path == tmp_path / "mine.md"
    assert path.is_file()
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_report_of_loaded_results(results, tmp_path):
    results.save(tmp_path)
    text = zoo.Results.load(tmp_path).report(tmp_path / "loaded").read_text()
    assert text == results.report(tmp_path / "made").read_text()


def test_pictures_of_problems_with_similar_labels(tmp_path):
    results = make_results(make_pair("a", "x/y", curves_to(1.0)), make_pair("a", "x_y", curves_to(2.0)))
    text = results.report(tmp_path).read_text()
    assert len(set(re.findall(r"!\[.*?\]\((.*?)\)", text))) == 2
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_markdown_table():
    frame = pd.DataFrame({"a": [1, 2], "b|c": ["x", "y|\nz"]})
    assert markdown_table(frame).splitlines() == [
        "| a | b\\|c |",
        "| --- | --- |",
        "| 1 | x |",
        "| 2 | y\\| z |",
    ]


def test_the_solutions_of_a_pair_may_be_jax_arrays(tmp_path):
    pair = make_pair("a", "p", curves_to(1.0))
    solution = {"mean": {"w": jnp.ones((1, 2, 3)), "layers": [jnp.zeros((1, 2))]}, "statistics": ()}
    Pair("a", "p", pair.info, pair.curve, solution).save(tmp_path)
    loaded = Pair.load(tmp_path, "a", "p").solution["mean"]
    np.testing.assert_array_equal(loaded["w"], np.ones((1, 2, 3)))
    np.testing.assert_array_equal(loaded["layers"][0], np.zeros((1, 2)))


def test_generations_that_were_dropped_are_told(tmp_path):
    values = np.zeros((2, 3))
    pairs = [make_pair("a", "p", values), make_pair("b", "p", values, overshoot=1234.0)]
    failed = make_pair("c", "p", [], error="E")
    for others in (pairs[:1], [failed]):
        assert describe_overshoot(make_results(*others).summary()) is None
    results = make_results(*pairs, failed)
    sentence = describe_overshoot(results.summary())
    assert sentence is not None
    assert sentence.startswith(
        "Budget: the last generation of 1 pair did not fit and was dropped. Its steps (1,234 to 1,23"
    )
    assert sentence in results.report(tmp_path).read_text()
