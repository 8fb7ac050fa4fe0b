"""The summary of a benchmark: a row per problem and strategy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from zoo.benchmarking.pair import Pair
from zoo.statistics.aggregates import confidence_interval, interquartile_mean
from zoo.statistics.ranks import shared_ranks


def summarize(pairs: Sequence[Pair]) -> pd.DataFrame:
    """Returns the summary of `Results.summary`. There must be at least one pair."""
    frame = pd.DataFrame([_row(pair) for pair in pairs])
    sign = frame.problem.map({pair.problem: -1 if pair.info["maximize"] else 1 for pair in pairs})
    has_failed = pd.Series([pair.info["error"] is not None for pair in pairs])
    cost = (frame.score * sign).where(~has_failed)
    # An interquartile mean cuts off a single seed that diverged, which must not look like success.
    cost = cost.mask([_has_diverged(pair) for pair in pairs], np.inf).to_numpy(float)
    bounds = np.sort(np.stack([frame.low * sign, frame.high * sign]), axis=0)
    rank = pd.Series(pd.NA, frame.index, dtype="Int64")
    for rows in frame.index[~has_failed].groupby(frame.problem[~has_failed]).values():
        rank[rows] = shared_ranks(cost[rows], *bounds[:, rows])
    frame.insert(6, "rank", rank)
    if any(pair.info.get("tuning") for pair in pairs):
        frame["tuned"] = [_describe_tuning(pair.info.get("tuning")) for pair in pairs]
    order = np.lexsort([cost, has_failed, frame.problem])
    return frame.iloc[order].reset_index(drop=True)


def _row(pair: Pair) -> dict[str, Any]:
    headline = pair.info["headline"]
    row = {"problem": pair.problem, "strategy": pair.strategy, "metric": headline}
    if pair.info["error"]:
        return {**row, "score": np.nan, "low": np.nan, "high": np.nan}
    scores = pair.final_scores(headline).to_numpy()
    low, high = confidence_interval(scores)
    return {
        **row,
        "score": interquartile_mean(scores),
        "low": float(low),
        "high": float(high),
        "num_seeds": len(scores),
        "steps": pair.curve[pair.curve.metric == headline].groupby("seed").steps.max().mean(),
        "overshoot": pair.info["overshoot"],
        "seconds": pair.info["seconds"],
        "compile_seconds": pair.info["compile_seconds"],
    }


def _has_diverged(pair: Pair) -> bool:
    return not pair.info["error"] and not np.isfinite(pair.final_scores(pair.info["headline"])).all()


def _describe_tuning(tuning: dict[str, Any] | None) -> str:
    """Returns whether a strategy was tuned, as text, from `Pair.info["tuning"]`."""
    return "default" if tuning is None else f"tuned, {tuning['num_settings']} settings"
