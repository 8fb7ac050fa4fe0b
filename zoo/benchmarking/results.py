"""The results of a benchmark: tidy frames, a summary with confidence intervals, figures, and a folder for all of it.

The folder has `benchmark.json` (versions, device, commit), and a subfolder of `pairs/` for each pair of strategy and
problem; see `pair.py`.
"""

import functools
import pathlib
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from zoo.benchmarking.comparison import Comparison, compare_pairs
from zoo.benchmarking.pair import CURVE_COLUMNS, Pair
from zoo.benchmarking.summary import summarize
from zoo.core.arguments import checks_arguments
from zoo.core.checks import as_count
from zoo.core.short import short
from zoo.core.text import file_name
from zoo.figures.notebook import notebook_block, picture
from zoo.loop.files import DamagedError, as_folder, checked, damage_of, named_once, read_json, write_json
from zoo.loop.lock import FolderLock
from zoo.statistics.paired import Correction, Test
from zoo.statistics.runtimes import RUNTIME_COLUMNS, expected_running_time, select_targets

if TYPE_CHECKING:
    import rich.table
    from matplotlib.figure import Figure

_MAX_DRAWN = 12  # pairs whose curves are drawn quickly enough for a notebook


class Results:
    """The results of a benchmark.

    Attributes:
        pairs: One `Pair` per strategy and problem.
        metadata: Versions, device, git commit, date, key and number of seeds.
    """

    def __init__(self, pairs: list[Pair], metadata: dict[str, Any]):
        self.pairs = pairs
        self.metadata = metadata

    def __repr__(self) -> str:
        names = {"strategies": [p.strategy for p in self.pairs], "problems": [p.problem for p in self.pairs]}
        lines = [f"{kind}: {short(list(dict.fromkeys(each)))}" for kind, each in names.items()]
        count = f"{len(self.pairs)} pairs, {len(self.failures)} failed, {self.metadata['num_seeds']} seeds"
        return "\n  ".join([f"<Results: {count}", *lines]) + ">"

    def _repr_html_(self) -> str:
        from zoo.reports.grids import html_table, score_grid

        parts = [lambda: html_table(score_grid(self.summary(), bold_best=True))]
        if len(self.pairs) <= _MAX_DRAWN:
            parts.append(lambda: picture(self.plot()))
        return notebook_block(repr(self), *parts)

    @functools.cached_property
    def curves(self) -> pd.DataFrame:
        """Score curves, tidy: one row per strategy, problem, seed, scoring and metric."""
        frames = [pair.curve for pair in self.pairs if len(pair.curve)]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(CURVE_COLUMNS))

    @functools.cached_property
    def final(self) -> pd.DataFrame:
        """Final scores: the last row of each curve."""
        keys = ["strategy", "problem", "seed", "metric"]
        return self.curves.groupby(keys, sort=False).tail(1).reset_index(drop=True)

    @functools.cached_property
    def runtimes(self) -> pd.DataFrame:
        """The steps at which each run reached each target, tidy.

        The frame is empty if no problem has targets (`Problem.runtime_targets`). Its columns are `strategy`, `problem`,
        `seed`, `target` (the easiest target of a problem comes first), `steps` (problem steps until the best fitness
        evaluated so far first reached the target; NaN if it never did) and `budget` (all steps that this seed spent).
        Steps are counted in whole generations. If fitness is not the score (`Problem.fitness_is_score` is false), for
        example because it is noisy, `steps` is the number of steps at the first scoring (`benchmark(num_scores=...)`)
        at which the score of the mean reached the target.
        """
        frames = [pair.runtimes for pair in self.pairs if len(pair.runtimes)]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(RUNTIME_COLUMNS))

    def ert(self, targets: Iterable[float] | None = None) -> pd.DataFrame:
        """Returns the expected running time to each target.

        Args:
            targets: The targets to return. Defaults to all that were recorded.

        Returns:
            One row per problem, strategy and target: `ert` (problem steps that all seeds spent until they reached the
            target or ended, divided by the number of seeds that reached it; infinite if no seed did), `num_successes`
            and `num_seeds`.

        Raises:
            ValueError: If no problem has targets, or a target was not recorded.

        References:
            Hansen et al. 2016, arXiv 1605.03560.
        """
        return expected_running_time(select_targets(self._check_runtimes(), targets))

    def _check_runtimes(self) -> pd.DataFrame:
        if not len(self.runtimes):
            raise ValueError(
                "These results have no runtimes. Runtimes are recorded for problems that have targets: the problems "
                "under blackbox/, and your own if it has a property `runtime_targets`, the scores to time runs by."
            )
        return self.runtimes

    @property
    def failures(self) -> pd.DataFrame:
        """The pairs that failed, with their errors."""
        rows = [
            {"strategy": p.strategy, "problem": p.problem, "error": p.info["error"]}
            for p in self.pairs
            if p.info["error"]
        ]
        return pd.DataFrame(rows, columns=["strategy", "problem", "error"])

    def pair(self, strategy: str, problem: str) -> Pair:
        """Returns one pair.

        Raises:
            KeyError: If there is no such pair.
        """
        for pair in self.pairs:
            if (pair.strategy, pair.problem) == (strategy, problem):
                return pair
        known = [(pair.strategy, pair.problem) for pair in self.pairs]
        raise KeyError(f"No pair ({strategy!r}, {problem!r}) in these results. They have {known}.")

    def scores(self, strategy: str, problem: str, metric: str | None = None) -> np.ndarray:
        """Returns the final scores of a pair, `[num_seeds]`.

        Args:
            strategy: The strategy's label.
            problem: The problem's label.
            metric: Name of the metric. Defaults to the headline metric.

        Raises:
            KeyError: If there is no such pair, or it has no such metric.
        """
        pair = self.pair(strategy, problem)
        name = str(pair.info["headline"] if metric is None else metric)
        known = list(pair.curve.metric.unique())
        if name not in known and not pair.info["error"]:
            raise KeyError(f"No metric {name!r} of ({strategy!r}, {problem!r}). It has {known}.")
        return pair.final_scores(name).to_numpy()

    def summary(self) -> pd.DataFrame:
        """Summarises the final headline scores: one row per problem and strategy.

        Returns:
            A frame with the columns `problem`, `strategy`, `metric`, `score` (interquartile mean over seeds), `low` and
            `high` (its 95 % confidence interval: from ten seeds on a bootstrap interval, else one like Student's),
            `rank` on the problem, `num_seeds`, `steps` (mean over seeds), `overshoot` (mean over seeds of the steps of
            a last generation that was dropped because it did not fit in the budget), `seconds` (all seeds together,
            without compilation and scoring) and `compile_seconds`. If any strategy was tuned, the column `tuned` says
            of each whether it ran with its defaults, or how many settings were tried; `Pair.info["tuning"]` says more.

            The rank is 1 plus the number of strategies whose interval lies wholly on the better side of this one's, so
            that strategies whose intervals overlap may share a rank. With a single seed there are no intervals, and all
            share the first. A strategy with a seed whose score is not finite ranks behind those without. Failed pairs
            have no rank and come last. `compare` tests whether two strategies differ.

        Raises:
            ValueError: If there are no pairs.

        References:
            Agarwal et al. 2021, arXiv 2108.13264 (interquartile mean).
        """
        if not self.pairs:
            raise ValueError("These results have no finished pair, so there is nothing to summarise.")
        return summarize(self.pairs)

    @checks_arguments
    def compare(
        self,
        baseline: str | None = None,
        *,
        correction: Correction | None = "holm",
        test: Test = "wilcoxon",
        problem: str | None = None,
        reference: Mapping[str, tuple[float, float]] | None = None,
    ) -> Comparison:
        """Compares the final headline scores of the strategies: two at a time on each problem, and over all problems.

        Seed i has the same key for every strategy, so that tests and intervals of differences are paired by seed. A NaN
        counts as the worst score, and so does every seed of a failed pair. There is no interval for scores that are not
        finite.

        Ranks and normalised scores are over the problems on which all strategies were run. On each problem, the worst
        finite score of all strategies and seeds becomes 0 and the best one 1, unless `reference` says otherwise. So
        these numbers depend on which strategies take part, and a single very bad run moves the others together.

        Args:
            baseline: The strategy with which all others are compared. With `None`, each is compared with each. Then
                `strategy` is the one with the better interquartile mean, and `against` the other one.
            correction: How p values are corrected for the number of comparisons. `"holm"` bounds the probability of any
                false difference, and `"fdr"` the expected share of false ones among those found. With `None`, they are
                not corrected.
            test: What is tested by flipping the signs of the differences of paired seeds, in all ways: `"wilcoxon"`
                sums their signed ranks, which no single seed can dominate, `"permutation"` the differences themselves.
            problem: The problem to compare on. Defaults to all problems.
            reference: By problem, the score that becomes 0 and the score that becomes 1, such as those of a random and
                of an expert policy.

        Returns:
            The comparison: `table`, `ranks`, `aggregate`, `profiles()`, `plot()`.

        Raises:
            ValueError: If there are no two strategies to compare, or a name is not in these results.
            TypeError: If an argument has another type.

        References:
            Demšar 2006, JMLR 7 (ranks); Agarwal et al. 2021, arXiv 2108.13264 (normalised scores, probability of
            improvement, profiles); Holm 1979 (correction).
        """
        comparison = compare_pairs(self.pairs, baseline, correction, test, problem, reference)
        if comparison.warning:
            warnings.warn(comparison.warning, stacklevel=3)
        return comparison

    @checks_arguments
    def table(
        self,
        format: Literal["markdown", "latex", "rich", "html", "text"] = "text",
        *,
        bold_best: bool = True,
        problem: str | None = None,
    ) -> "str | rich.table.Table":
        """Returns the final scores as a table: a row per strategy, the best mean rank first, and a column per problem.

        A cell has the interquartile mean over seeds and its 95 % confidence interval.

        Args:
            format: `"markdown"`, `"latex"` (with the rules of the package booktabs), `"html"`, `"text"` (aligned
                columns), or `"rich"` for a `rich.table.Table`.
            bold_best: Whether scores that have rank 1 on their problem are bold, in text marked by a star.
            problem: The problem to show. Defaults to all problems.

        Raises:
            KeyError: If the results have no such problem.
            ValueError: If there is no such format, or there are no pairs.
        """
        from zoo.reports.grids import render, score_grid

        summary = self.summary()
        if problem is not None:
            known = list(summary.problem.unique())
            if problem not in known:
                raise KeyError(f"No problem {problem!r} in these results. They have {known}.")
            summary = summary.loc[summary.problem == problem]
        return render(score_grid(summary, bold_best=bold_best), format)

    def plot(self, problem: str | None = None, *, top: int = 10, small_multiples: bool = False) -> "Figure":
        """Draws learning curves against steps and against seconds: interquartile means with 95 % bands.

        With more than twelve strategies, the best of each problem are drawn in colour, and the others grey behind them.

        Args:
            problem: The problem to draw. Defaults to all problems.
            top: How many of many strategies are drawn in colour.
            small_multiples: Whether each strategy has a small panel of its own, in which all others are grey. The
                panels are against steps.

        Returns:
            A matplotlib figure (`figure.savefig("curves.png")`).

        Raises:
            KeyError: If the results have no such problem.
            TypeError: If `top` is not a whole number.
            ValueError: If `top` is not positive.
        """
        from zoo.figures.curves import plot_curves

        top = as_count(top, "top")
        return plot_curves(self.curves, self._facts, self._order, problem, top=top, small_multiples=small_multiples)

    def plot_ecdf(self, *, top: int = 10) -> "Figure":
        """Draws runtime distributions: the fraction of all (problem, target, seed) triples reached within a budget.

        The budget is in problem steps per dimension, so that problems of different dimensions share an axis. A cross
        marks the end of a strategy's shortest run. Beyond it the curve is a lower bound.

        Args:
            top: How many strategies are drawn in colour, if there are more than twelve: those with the largest area
                under their curve.

        Returns:
            A matplotlib figure.

        Raises:
            TypeError: If `top` is not a whole number.
            ValueError: If no problem has targets, or `top` is not positive.

        References:
            Hansen et al. 2016, arXiv 1605.03560.
        """
        from zoo.figures.runtimes import plot_ecdf

        return plot_ecdf(self._check_runtimes(), self._num_dims, self._order, top=as_count(top, "top"))

    def plot_data_profile(self, target: float | Iterable[float] | None = None, *, top: int = 10) -> "Figure":
        """Draws data profiles: the fraction of problems (and seeds) solved within a number of simplex gradients.

        A simplex gradient is n + 1 evaluations in n dimensions. Here a problem is solved when its target is reached.
        (Moré and Wild instead require a reduction relative to that of the best solver.)

        Args:
            target: The target at which a problem counts as solved, or several targets, each of which counts separately.
                Defaults to each problem's hardest target.
            top: How many strategies are drawn in colour, as in `plot_ecdf`.

        Returns:
            A matplotlib figure.

        Raises:
            TypeError: If `top` is not a whole number.
            ValueError: If no problem has targets, a target was not recorded, or `top` is not positive.

        References:
            Moré, Wild 2009, doi 10.1137/080724083.
        """
        from zoo.figures.runtimes import plot_data_profile

        top = as_count(top, "top")
        return plot_data_profile(self._check_runtimes(), self._num_dims, self._order, target, top=top)

    @property
    def _facts(self) -> pd.DataFrame:
        """What figures have to know of each pair besides its curve."""
        columns = ("headline", "maximize", "num_seeds")
        rows = [
            {"strategy": pair.strategy, "problem": pair.problem, "failed": pair.info["error"] is not None}
            | {name: pair.info.get(name) for name in columns}  # a problem without its data has no number of seeds
            for pair in self.pairs
        ]
        return pd.DataFrame(rows, columns=["strategy", "problem", "failed", *columns])

    @property
    def _num_dims(self) -> pd.Series:
        """The number of dimensions of each problem with runtimes, by its label."""
        return pd.Series({p.problem: p.info["num_dims"] for p in self.pairs if len(p.runtimes)}, dtype=float)

    @functools.cached_property
    def _order(self) -> list[str]:
        """The strategies in the order in which they get their colours, the same in all figures."""
        from zoo.figures.curves import by_rank

        return by_rank(self.final, self._facts)

    def save(self, folder: str | pathlib.Path) -> None:
        """Saves everything to a folder. Pairs with the same labels in the folder are replaced.

        Raises:
            ValueError: If the folder cannot be written, or another process is using it.
        """
        folder = as_folder(folder, "Results.save(folder)")
        with FolderLock(folder, "Results.save") as lock:
            lock.check_writable()
            for pair in self.pairs:
                pair.save(folder)
            self.save_metadata(folder)

    def save_metadata(self, folder: pathlib.Path) -> None:
        """Writes `benchmark.json`, with the order of the pairs, into an existing folder."""
        order = [[pair.strategy, pair.problem] for pair in self.pairs]
        write_json(folder / "benchmark.json", {**self.metadata, "pairs": order})

    @classmethod
    def load(cls, folder: str | pathlib.Path) -> "Results":
        """Loads what `save` or `benchmark(..., out=folder)` wrote.

        Pairs that are damaged or missing are left out. One warning names them.

        Raises:
            FileNotFoundError: If the folder holds no benchmark.
            ValueError: If `benchmark.json` is damaged.
        """
        folder = as_folder(folder, "Results.load(folder)")
        path = folder / "benchmark.json"
        try:
            metadata = read_json(path)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"No benchmark in {folder.absolute()}: expected a file benchmark.json there."
            ) from None
        except DamagedError as error:
            raise DamagedError(
                path, f"{error.reason} benchmark(..., out={str(folder)!r}) writes it again and keeps finished pairs."
            ) from None
        with damage_of(path):
            order = _read_order(metadata)
        pairs, lost = [], []
        for strategy, problem in order:
            try:
                pairs.append(Pair.load(folder, strategy, problem))
            except DamagedError as error:
                lost.append(error)
            except FileNotFoundError as error:
                lost.append(DamagedError(pathlib.Path(error.filename), "it is missing."))
        if lost:
            warnings.warn(
                f"Left out, and computed again by benchmark(..., out={str(folder)!r}): {named_once(lost)}", stacklevel=2
            )
        return cls(pairs, metadata)

    def report(self, path: str | pathlib.Path) -> pathlib.Path:
        """Writes a report: one HTML file, or a Markdown file with its pictures beside it.

        The HTML file needs no network. Its figures can be zoomed, its curves can be switched on and off, and its tables
        can be sorted.

        Args:
            path: An `.html` file, a `.md` file, or a folder, which gets a `report.md`.

        Returns:
            The path of the file.

        Raises:
            ModuleNotFoundError: If an HTML report is asked for and the extra `html` is not installed.
        """
        path = as_folder(path, "Results.report(path)")
        from zoo.benchmarking.contents import make_contents

        contents = make_contents(self.pairs, self.metadata, self.summary(), self.runtimes, self.failures)
        if path.suffix in (".html", ".htm"):
            from zoo.reports.html import write_html_report

            return write_html_report(path, contents)
        from zoo.reports.markdown import write_report

        figures = {f"curves_{file_name(problem)}": self.plot(problem) for problem in contents.summary.problem.unique()}
        if len(self.runtimes):
            figures |= {"runtime_ecdf": self.plot_ecdf(), "data_profile": self.plot_data_profile()}
        return write_report(path, contents, figures)


def _read_order(metadata: dict[str, Any]) -> list[list[str]]:
    """Removes the labels of the pairs from the contents of `benchmark.json`, and returns them.

    Raises:
        ValueError: If the contents are not what `save_metadata` writes.
    """
    (order,) = checked(metadata, pairs=list)
    device, _, _, _ = checked(metadata, device=dict, versions=dict, date=str, num_seeds=int)
    checked(device, count=int, kind=str)
    if not all(isinstance(labels, list) and list(map(type, labels)) == [str, str] for labels in order):
        raise ValueError("its pairs have no labels.")
    if len({tuple(labels) for labels in order}) < len(order):
        raise ValueError("it lists a pair twice.")
    return metadata.pop("pairs")
