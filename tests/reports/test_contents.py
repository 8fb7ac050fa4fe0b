"""What reports say about ranks and about seconds."""

import pandas as pd
import pytest

from zoo.reports.contents import describe_load, describe_seconds, mean_ranks


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        ({"cores": 4, "busy_others": 0.02}, "measured alone"),
        ({"cores": 2, "busy_others": 1.29}, "beside other work (1.3 of 2 cores busy)"),
        ({"cores": 2, "busy_others": None}, None),
        ({"cores": "2", "busy_others": 1.0}, None),
        (None, None),
        ([], None),
    ],
)
def test_load(load, expected):
    assert describe_load(load) == expected


def test_seconds():
    alone, beside = ({"load": {"cores": 2, "busy_others": busy}, "error": None} for busy in (0.0, 1.0))
    failed = {"error": "no", "load": None}
    unknown = {"error": None}
    assert describe_seconds([unknown, failed]).endswith("what else it did.")
    assert describe_seconds([alone, alone, failed]).endswith("did. All pairs were measured alone.")
    assert describe_seconds([alone, beside]).endswith("did. 1 of 2 pairs were measured alone, 1 beside other work.")
    assert describe_seconds([alone, unknown]).endswith("1 of 2 pairs were measured alone, for 1 it is not recorded.")


def test_mean_ranks():
    """A failed pair ranks last: behind the two others on q."""
    rows = [("p", "a", 2), ("p", "b", 1), ("p", "c", 2), ("q", "a", 1), ("q", "b", 2), ("q", "c", pd.NA)]
    ranks = mean_ranks(pd.DataFrame(rows, columns=["problem", "strategy", "rank"]).astype({"rank": "Int64"}))
    assert ranks.to_dict() == {"a": 1.5, "b": 1.5, "c": 2.5}
    assert list(ranks.index) == ["a", "b", "c"]


def test_strategies_that_share_their_ranks_are_in_the_order_of_their_scores():
    rows = [(problem, name, 1) for problem in "pq" for name in ("c", "a", "b")]
    assert list(mean_ranks(pd.DataFrame(rows, columns=["problem", "strategy", "rank"])).index) == ["c", "a", "b"]
