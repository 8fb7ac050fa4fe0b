"""What a report of a benchmark says, as frames and facts, whichever form the report has."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

_ALONE = 0.1  # busy cores; an idle machine has some too


class PairFacts(NamedTuple):
    """What is known about one strategy on one problem."""

    strategy: str
    problem: str
    info: Mapping[str, Any]
    """`Pair.info`. It may come from a file that somebody else wrote, so its values may be of any type."""


class Table(NamedTuple):
    """A table with any columns, its title, and a sentence that explains it."""

    title: str
    note: str
    frame: pd.DataFrame


@dataclasses.dataclass(frozen=True, eq=False)
class Contents:
    """The contents of a report.

    Attributes:
        metadata: `Results.metadata`.
        pairs: The facts of each pair.
        summary: `Results.summary()`.
        curves: The learning curves: `problem`, `strategy`, `axis` (`"steps"` or `"seconds"`), `x`, `score`
            (interquartile mean over seeds), and `low` and `high` (its 95 % interval, as far as seeds reach).
        runtimes: `Results.runtimes`. It is empty if no problem has targets.
        num_dims: The number of dimensions of each problem that has targets.
        ert: `Results.ert()`. With `None`, the report has no section on runtimes.
        failures: `Results.failures`.
        comparison: Tables that compare strategies.
    """

    metadata: Mapping[str, Any]
    pairs: Sequence[PairFacts]
    summary: pd.DataFrame
    curves: pd.DataFrame
    runtimes: pd.DataFrame
    num_dims: Mapping[str, int]
    ert: pd.DataFrame | None
    failures: pd.DataFrame
    comparison: Sequence[Table] = ()

    @property
    def tuned(self) -> list[tuple[str, str, Mapping[str, Any]]]:
        """Strategy, problem, and how it was tuned (`Pair.info["tuning"]`), for each pair that was tuned."""
        return [(pair.strategy, pair.problem, pair.info["tuning"]) for pair in self.pairs if pair.info.get("tuning")]


def mean_ranks(summary: pd.DataFrame) -> pd.Series:
    """Returns the mean rank of each strategy over problems, the best first. A failed pair ranks last.

    Ranks may be shared. Strategies with the same mean rank are in the order of their mean places in the summary, which
    lists the best of each problem first.
    """
    groups = summary.groupby("problem").strategy
    rank = summary["rank"].fillna(groups.transform("size"))
    counted = pd.DataFrame({"strategy": summary.strategy, "rank": rank, "place": groups.cumcount()})
    means = pd.DataFrame(counted.groupby("strategy").mean())
    return pd.Series(means.sort_values(by=["rank", "place"], kind="stable")["rank"])


def describe_load(load: Any) -> str | None:
    """Returns whether a pair was measured alone or beside other work. Returns `None` if that was not recorded.

    Args:
        load: `Pair.info["load"]`: `cores` (of the machine) and `busy_others` (the mean number of cores that other
            processes kept busy).
    """
    if not isinstance(load, Mapping):
        return None
    cores, busy = load.get("cores"), load.get("busy_others")
    if not isinstance(cores, int) or not isinstance(busy, (int, float)):
        return None
    if busy < _ALONE:
        return "measured alone"
    return f"beside other work ({busy:.1f} of {cores} cores busy)"


def describe_seconds(infos: Iterable[Mapping[str, Any]]) -> str:
    """Returns sentences that say what the seconds of a table are, and whether they can be compared.

    Args:
        infos: `Pair.info` of each pair.
    """
    meaning = (
        "Seconds: wall-clock time of all seeds together, without compilation and scoring. They depend on the machine "
        "and on what else it did."
    )
    loads = [describe_load(info.get("load")) for info in infos if not info.get("error")]
    known = [load for load in loads if load is not None]
    disturbed = [load for load in known if load != "measured alone"]
    if not known:
        return meaning
    if len(loads) == len(known) and not disturbed:
        return f"{meaning} All pairs were measured alone."
    parts = [f"{len(known) - len(disturbed)} of {len(loads)} pairs were measured alone"]
    if disturbed:
        parts.append(f"{len(disturbed)} beside other work")
    if len(known) < len(loads):
        parts.append(f"for {len(loads) - len(known)} it is not recorded")
    return f"{meaning} {', '.join(parts)}."
