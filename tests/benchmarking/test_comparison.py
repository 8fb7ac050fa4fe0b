"""`Results.compare`: what it makes of seeds, failures and directions. `tests/statistics/` tests the statistics."""

import re
import warnings

import numpy as np
import pytest
import scipy.stats

import zoo
from tests.benchmarking.test_results import curves_to, make_pair, make_results
from zoo.statistics.aggregates import interquartile_mean

NUM_SEEDS = 8


def pairs_of(maximize=False, num_seeds=NUM_SEEDS, problems=("p", "q")):
    """Returns pairs of three strategies: `good` is far better than `mid` and `bad`, which are alike."""
    rng = np.random.default_rng(0)
    sign = -1 if maximize else 1
    return [
        make_pair(name, problem, sign * rng.normal(mean, 1, (num_seeds, 2)), maximize=maximize)
        for problem in problems
        for name, mean in (("mid", 9.0), ("bad", 9.0), ("good", 0.0))
    ]


@pytest.mark.parametrize("maximize", [False, True])
def test_rows(maximize):
    results = make_results(*pairs_of(maximize), num_seeds=NUM_SEEDS)
    comparison = results.compare()
    assert isinstance(comparison, zoo.Comparison)
    table = comparison.table
    assert len(table) == 6
    assert table[table.problem == "p"].strategy.tolist()[:2] == ["good", "good"]  # the better one stands first
    for row in table.itertuples():
        one, other = results.scores(row.strategy, row.problem), results.scores(row.against, row.problem)
        assert row.difference == pytest.approx(interquartile_mean(one - other))
        assert row.low < row.difference < row.high
        assert row.p_value == pytest.approx(scipy.stats.wilcoxon(one, other, method="exact").pvalue)
        better = one[:, None] > other if maximize else one[:, None] < other
        assert row.improvement == better.mean()
        assert row.winner == ("good" if row.strategy == "good" else "")
    smallest = 2 / 2**NUM_SEEDS
    assert sorted(table.p_value)[:4] == [smallest] * 4
    np.testing.assert_allclose(sorted(table.corrected)[:4], 6 * smallest)
    assert comparison.facts["num_seeds"] == NUM_SEEDS
    assert comparison.warning is None


def test_pairing_counts():
    """Differences within seeds are small and of one sign, although scores of different seeds differ by far more."""
    rng = np.random.default_rng(0)
    scores = 100 * rng.normal(size=(NUM_SEEDS, 1))
    results = make_results(make_pair("a", "p", scores), make_pair("b", "p", scores + rng.uniform(0.5, 1.5, (8, 1))))
    (row,) = results.compare().table.to_dict("records")
    assert row["winner"] == "a"
    assert -2 < row["low"] < row["high"] < 0
    assert row["improvement_low"] < 0.5 < row["improvement_high"]  # of runs that are not paired


def test_a_baseline():
    results = make_results(*pairs_of(), num_seeds=NUM_SEEDS)
    table = results.compare("mid", correction="fdr").table
    assert set(table.against) == {"mid"}
    assert table.groupby("problem").strategy.apply(sorted).tolist() == [["bad", "good"]] * 2
    expected = scipy.stats.false_discovery_control(table.p_value)
    np.testing.assert_allclose(table.corrected, expected)
    table = results.compare("good", correction=None, problem="q").table
    assert (table.problem == "q").all()
    assert table.winner.tolist() == ["good", "good"]
    assert table.corrected.tolist() == table.p_value.tolist()


def test_a_failed_pair_has_the_worst_score_of_every_seed():
    failed = make_pair("failed", "p", [], error="ValueError: no")
    comparison = make_results(*pairs_of(problems=["p"]), failed, num_seeds=NUM_SEEDS).compare("failed")
    table = comparison.table
    assert (table.winner == table.strategy).all()
    assert (table.improvement == 1).all()
    assert (np.isinf(table.difference) & (table.difference < 0)).all()
    assert table.low.isna().all()
    assert comparison.ranks.strategy.iloc[-1] == "failed"
    assert comparison.scores["failed"][0].tolist() == [0.0] * NUM_SEEDS
    comparison.plot()
    with pytest.raises(ValueError, match="one of them has not failed"):
        make_results(failed).compare()


def test_a_score_that_is_not_a_number_is_the_worst():
    finals = {"a": [1.0, 2, 3, 4, 5, np.nan], "b": [2.0, 3, 4, 5, 6, 7], "c": [np.inf] * 6}
    pairs = [make_pair(name, "p", curves_to(*scores)) for name, scores in finals.items()]
    with pytest.warns(UserWarning, match="With 6 seeds"):
        table = make_results(*pairs, num_seeds=6).compare().table.set_index(["strategy", "against"])
    row = table.loc["a", "b"]
    assert row.difference == 3.5 - 4.5  # the worst of six is cut off
    assert np.isnan(row.low)
    assert row.p_value == scipy.stats.wilcoxon([-1, -1, -1, -1, -1, 99], method=scipy.stats.PermutationMethod()).pvalue
    assert table.loc["b", "c"].difference == -np.inf


def test_problems_that_not_all_strategies_ran_on_are_left_out_of_ranks():
    comparison = make_results(*pairs_of()[:-1], num_seeds=NUM_SEEDS).compare()
    assert len(comparison.table) == 4
    assert comparison.facts["num_problems"] == 1
    none = make_results(*pairs_of()[:2], *pairs_of()[-2:], num_seeds=NUM_SEEDS).compare()
    assert none.facts["num_problems"] == 0
    assert none.ranks.mean_rank.isna().all()


def test_ranks_and_aggregate():
    problems = [f"p{number}" for number in range(12)]
    comparison = make_results(*pairs_of(problems=problems), num_seeds=NUM_SEEDS).compare(correction="fdr")
    assert comparison.ranks.strategy.iloc[0] == "good"
    assert comparison.ranks.mean_rank.iloc[0] == 1.0
    assert comparison.ranks.groups.tolist() == ["", "a", "a"]
    assert comparison.friedman_p_value < 1e-3
    aggregate = comparison.aggregate.set_index("strategy")
    assert aggregate.loc["good", "low"] > aggregate.loc["mid", "high"]
    profiles = comparison.profiles(at=[0.5])
    assert profiles.set_index("strategy").fraction["good"] == 1.0


@pytest.mark.parametrize("maximize", [False, True])
def test_a_reference(maximize):
    sign = -1 if maximize else 1
    finals = {"a": [sign * 2.0] * 8, "b": [sign * 12.0] * 8}
    pairs = [make_pair(name, "p", curves_to(*scores), maximize=maximize) for name, scores in finals.items()]
    scores = make_results(*pairs).compare(reference={"p": (sign * 10, 0.0)}).scores
    assert scores["a"][0].tolist() == [0.8] * 8
    np.testing.assert_allclose(scores["b"][0], -0.2)


def test_too_few_seeds():
    results = make_results(*pairs_of(num_seeds=3, problems=["p"]), num_seeds=3)
    with pytest.warns(UserWarning, match=r"0\.25, and 0\.75 after the correction for 3 .* at least 7 seeds") as caught:
        comparison = results.compare()
    assert [warning.filename for warning in caught] == [__file__]
    assert str(caught[0].message) == comparison.warning
    assert (comparison.table.winner == "").all()
    enough = make_results(*pairs_of(num_seeds=7, problems=["p"]), num_seeds=7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (enough.compare().table.winner != "").any()


def test_the_report_says_so(tmp_path):
    results = make_results(*pairs_of(num_seeds=3), num_seeds=3)
    assert "With 3 seeds no difference between two strategies can be" in results.report(tmp_path).read_text()
    enough = make_results(*pairs_of(), num_seeds=NUM_SEEDS)
    text = enough.report(tmp_path).read_text()
    assert "can be significant" not in text
    assert len(re.findall(r"\| good - (?:mid|bad) \|.*\| 0\.047 \| good \|", text)) == 4
    assert re.search(r"\| good \| 1\.00 \| a \|", text)


def test_text():
    results = make_results(*pairs_of(), num_seeds=NUM_SEEDS)
    lines = repr(results.compare()).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "<Comparison: 3 strategies on 2 problems, 8 seeds"
    assert "  p: good beats mid, bad" in lines or "  p: good beats bad, mid" in lines
    assert "good 1.00" in lines[-1]


def test_figure():
    figure = make_results(*pairs_of(), num_seeds=NUM_SEEDS).compare().plot()
    ranks, profiles, *differences = figure.axes
    assert ranks.get_xlabel() == "mean rank over problems"
    assert len(profiles.lines) == 3
    assert [axis.get_title() for axis in differences] == ["p", "q"]
    # Filled: good against each of the others.
    faces = [line.get_markerfacecolor() for line in differences[0].lines if line.get_marker() == "o"]
    assert [face != "white" for face in faces] == [True, True, False]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mid", "bad", "good"]
    wide = [make_pair(f"s{number}", "p", np.random.default_rng(number).normal(size=(8, 1))) for number in range(6)]
    with pytest.warns(UserWarning, match="With 8 seeds"):
        figure = make_results(*wide).compare().plot()
    assert len(figure.axes[2].get_yticks()) == 5  # of 15 pairs, those with the best
    wide += [make_pair(f"s{number}", "p", np.zeros((8, 1))) for number in range(6, 14)]
    with pytest.warns(UserWarning, match="With 8 seeds"):
        figure = make_results(*wide).compare("s0").plot()
    assert len(figure.axes[2].get_yticks()) == 13  # all that are compared with the baseline


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"baseline": "x"}, ValueError, "baseline must be one of None, 'mid', 'bad', 'good', got 'x'"),
        ({"test": None}, TypeError, "test must be one of"),
        ({"reference": {"x": (0, 1)}}, ValueError, "problem in reference must be one of 'p', 'q', got 'x'"),
        ({"reference": {"p": 1.0}}, TypeError, "reference of 'p' must be two scores"),
        ({"reference": {"p": (1.0, 1.0)}}, ValueError, "two different scores"),
    ],
)
def test_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        make_results(*pairs_of()).compare(**arguments)
