"""What a sweep found: the choice, how sure it is, its score on test seeds, and all runs."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np
import pandas as pd

from zoo.core.arguments import checks_arguments
from zoo.core.checks import as_count
from zoo.core.distributions import is_scalable
from zoo.core.short import short
from zoo.figures.notebook import notebook_block, picture
from zoo.loop.csv_file import csv_of, read_csv
from zoo.loop.files import as_folder, checked, opened, read_parts, write_parts
from zoo.loop.lock import FolderLock
from zoo.loop.provenance import describe_value
from zoo.reports.grids import Grid, html_table, render, score_text
from zoo.statistics.aggregates import NUM_RESAMPLES, confidence_interval, middle_of_finite

if TYPE_CHECKING:
    import rich.table
    from matplotlib.figure import Figure

KINDS = {"setting": int, "seed": int, "score": float, "steps": int}
KINDS |= {"seconds": float, "compile_seconds": float, "budget": int, "error": str}
RUN_COLUMNS = tuple(KINDS)
_SHOWN = 5  # settings that `repr` and a notebook show
_MAX_STORED = 10_000  # numbers of an array that is saved


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Sweep:
    """The results of `zoo.sweep`. `zoo.Sweep.load(folder)` reads what `save`, or `sweep(out=folder)`, wrote.

    Attributes:
        settings: The values of each setting that was tried, by name.
        runs: The tuning runs, tidy: `setting` (its number), `seed`, `score` (the final headline score), `steps`,
            `seconds` and `compile_seconds` (the run's share of those of its block, and so dependent on what else the
            machine did), `budget`, and `error` (empty unless the run failed). With `halving`, a setting has runs of
            several budgets.
        test: The runs on test seeds, with the same columns: of the winner, and of the next best as far as there was
            room in its block.
        metadata: Strategy (`spec`: its id and settings), problem, space, budget, versions, device, date and key, and
            `load`: how busy other work kept the machine during the call, see `zoo.loop.load`.
    """

    settings: list[dict[str, Any]]
    runs: pd.DataFrame
    test: pd.DataFrame
    metadata: dict[str, Any]

    @property
    def best(self) -> dict[str, Any]:
        """The values of the setting that was chosen."""
        return self.settings[self.ranking[0]]

    @functools.cached_property
    def ranking(self) -> list[int]:
        """Numbers of the settings that had the whole budget, best first by their tuning score."""
        return self.frame.index.to_numpy()[self.frame["rank"].notna().to_numpy()].tolist()

    @functools.cached_property
    def frame(self) -> pd.DataFrame:
        """A row per setting, best first.

        `rank` (1 is the choice; none for a setting that halving dropped, or that failed on every seed), `score`
        (interquartile mean over the tuning seeds), `low` and `high` (its 95 % interval), `failed` (seeds
        without a finite score, which the mean leaves out; a setting with fewer of them ranks before one with more), the
        values of the setting (the geometric mean of a spread per parameter), the same four for the test seeds
        (`test_score`, ..., of the winner and of the next best), `budget`, and `error`.
        """
        rows = []
        for number, values in enumerate(self.settings):
            runs = _longest(self.runs, number)
            tested = self.test[self.test.setting == number].score.to_numpy(float)
            errors = [error for error in runs["error"] if error]
            row = {
                "setting": number,
                **_middle(runs["score"].to_numpy(float), ""),
                **{name: _typical(value) for name, value in values.items()},
                **_middle(tested, "test_"),
            }
            rows.append({**row, "budget": runs["budget"].max(), "error": errors[0] if errors else ""})
        frame = pd.DataFrame(rows).set_index("setting")
        signed = frame.score * (-1 if self.metadata["maximize"] else 1)
        is_ranked = (frame.budget == frame.budget.max()) & signed.notna()
        order = np.lexsort((signed, frame.failed, -frame.budget, ~is_ranked))
        rank = pd.Series(np.arange(1, len(frame) + 1), frame.index[order]).where(is_ranked).astype("Int64")
        frame.insert(0, "rank", rank)
        return frame.iloc[order]

    @functools.cached_property
    def certainty(self) -> float:
        """How often the same setting is chosen when the tuning seeds are drawn again, from 0 to 1 (bootstrap).

        Settings that tie share a choice.
        """
        runs = self.runs[self.runs.setting.isin(self.ranking) & (self.runs.budget == self.runs.budget.max())]
        scores = runs.pivot(index="seed", columns="setting", values="score")[self.ranking].to_numpy()
        rng = np.random.default_rng(0)
        seeds = rng.integers(0, len(scores), (NUM_RESAMPLES, len(scores)))
        failed, middle = middle_of_finite(np.moveaxis(scores[seeds], 1, 0))
        signed = np.where(np.isnan(middle), np.inf, middle * (-1 if self.metadata["maximize"] else 1))
        drawn = np.where(failed == failed.min(axis=1, keepdims=True), signed, np.inf)  # fewest failures come first
        is_best = drawn == drawn.min(axis=1, keepdims=True)
        return float(np.mean(is_best[:, 0] / is_best.sum(axis=1)))

    @property
    def strategy(self) -> dict[str, Any]:
        """The strategy with the settings that were chosen, as a dictionary for `zoo.run` and all other calls.

        Raises:
            ValueError: If the sweep was given a strategy that was made already. Use its `replace` with `best`.
        """
        if self.metadata["spec"] is None:
            raise ValueError(
                "This sweep was given a strategy that was made already, so its id is not known. Apply found.best to it "
                "with strategy.replace(**found.best)."
            )
        return spec_with_values(self.metadata["spec"], self.best)

    def __repr__(self) -> str:
        first, *lines = self.summary()
        frame = self.frame.head(_SHOWN)
        scores = [_shown(row, "") for row in frame.to_dict("records")]
        width = max(map(len, scores))
        lines.append("the best settings on the tuning seeds:")
        for rank, (number, score) in enumerate(zip(frame.index, scores, strict=True), 1):
            lines.append(f"  {rank}  {score:{width}}  {_shown_values(self.settings[number])}")
        return "\n  ".join([f"<{first}", *lines]) + ">"

    def summary(self) -> list[str]:
        """Returns what was found, as a few lines: the choice, its scores, and how sure it is."""
        facts, top = self.metadata, self.frame.iloc[0].to_dict()
        ((unit, total),) = facts["budget"].items()
        count = f"{len(self.settings)} settings x {facts['num_seeds']} seeds, {total} {unit} each"
        lines = [f"Sweep of {facts['strategy']} on {facts['problem']}: {count}", f"best: {_shown_values(self.best)}"]
        if facts["num_test_seeds"]:
            lines.append(f"{facts['headline']} on {facts['num_test_seeds']} test seeds: {_shown(top, 'test_')}")
        lines.append(f"on the tuning seeds, chosen for it: {_shown(top, '')}")
        lines.append(f"chosen again in {100 * self.certainty:.0f} % of resamples of the seeds")
        if num_failed := int((self.frame.failed > 0).sum()):
            lines.append(f"{num_failed} of {len(self.settings)} settings have no finite score on some seeds")
        return lines

    def _repr_html_(self) -> str:
        return notebook_block(repr(self), lambda: html_table(self._grid(_SHOWN, True)), lambda: picture(self.plot()))

    @checks_arguments
    def table(
        self,
        format: Literal["markdown", "latex", "rich", "html", "text"] = "text",
        *,
        bold_best: bool = True,
        num_settings: int = 10,
    ) -> "str | rich.table.Table":
        """Returns the best settings as a table, with their scores on the tuning seeds and on the test seeds.

        A score is an interquartile mean over seeds, with its 95 % confidence interval.

        Args:
            format: `"markdown"`, `"latex"` (with the rules of the package booktabs), `"html"`, `"text"` (aligned
                columns), or `"rich"` for a `rich.table.Table`.
            bold_best: Whether the score of the choice is bold, in text marked by a star.
            num_settings: How many settings are shown.

        Raises:
            TypeError: If `num_settings` is not a whole number.
            ValueError: If there is no such format, or `num_settings` is not positive.
        """
        return render(self._grid(as_count(num_settings, "num_settings"), bold_best), format)

    def _grid(self, num_settings: int, bold_best: bool) -> Grid:
        rows = self.frame.head(num_settings).to_dict("records")
        cells = [
            [
                "" if pd.isna(row["rank"]) else str(row["rank"]),
                *(_shown_value(row[name]) for name in self.best),
                score_text(row["score"], row["low"], row["high"]),
                "" if pd.isna(row["test_score"]) else score_text(row["test_score"], row["test_low"], row["test_high"]),
            ]
            for row in rows
        ]
        is_bold = [
            [bold_best and number == 0 and name == -2 for name in range(-len(each), 0)]
            for number, each in enumerate(cells)
        ]
        return Grid(["rank", *self.best, f"{self.metadata['headline']}, tuning seeds", "test seeds"], cells, is_bold)

    def plot(self) -> "Figure":
        """Draws the score against each setting, and over the two settings that matter most.

        Returns:
            A matplotlib figure (`figure.savefig("sweep.png")`).
        """
        from zoo.figures.sweep import plot_sweep

        return plot_sweep(self.frame, list(self.settings[0]), self.metadata)

    def save(self, folder: str | pathlib.Path) -> None:
        """Saves everything to a folder.

        Raises:
            ValueError: If the folder cannot be written, or another process is using it.
        """
        folder = as_folder(folder, "Sweep.save(folder)")
        with FolderLock(folder, "Sweep.save") as lock:
            lock.check_writable()
            self.save_into(folder)

    def save_into(self, folder: pathlib.Path) -> None:
        """Writes the sweep into a folder that is there and locked."""
        settings = [{name: _stored(value) for name, value in each.items()} for each in self.settings]
        parts = {"runs.csv": csv_of(self.runs), "test.csv": csv_of(self.test)}
        facts = {**self.metadata, "spec": describe_value(self.metadata["spec"]), "settings": settings}
        write_parts(folder, "sweep.json", facts, parts)

    @classmethod
    def load(cls, folder: str | pathlib.Path) -> "Sweep":
        """Loads what `save`, or `zoo.sweep(..., out=folder)`, wrote. A function among the values is loaded as its name.

        Raises:
            FileNotFoundError: If the folder holds no sweep.
            ValueError: If a file is damaged.
        """
        folder = as_folder(folder, "Sweep.load(folder)")

        def read(info: dict[str, Any], digests: Any) -> "Sweep":
            settings, _, _, _ = checked(info, settings=list, maximize=bool, headline=str, budget=dict)
            tables = []
            for name in ("runs.csv", "test.csv"):
                with opened(folder / name, digests.get(name, "")) as file:
                    table = read_csv(file, lambda column: KINDS.get(column, float))
                    if (
                        list(table.columns) != list(RUN_COLUMNS)
                        or not table.setting.between(0, len(settings) - 1).all()
                    ):
                        raise ValueError("it is not a table of the runs of this sweep")
                    tables.append(table)
            return cls(info.pop("settings"), tables[0], tables[1], info)

        try:
            return read_parts(folder, "sweep.json", read)
        except FileNotFoundError:
            raise FileNotFoundError(f"No sweep in {folder.absolute()}: expected a file sweep.json there.") from None


def _longest(runs: pd.DataFrame, setting: int) -> pd.DataFrame:
    """Returns the runs of a setting with the largest budget that it had."""
    runs = runs.loc[runs["setting"] == setting]
    return runs.loc[runs["budget"] == runs["budget"].max()]


def _middle(scores: np.ndarray, prefix: str) -> dict[str, float]:
    """Returns the interquartile mean of the finite scores, its interval, and how many scores are not finite."""
    low, high = confidence_interval(scores[np.isfinite(scores)])
    failed, middle = middle_of_finite(scores)
    numbers = {"score": float(middle), "low": float(low), "high": float(high), "failed": int(failed)}
    return {f"{prefix}{name}": value for name, value in numbers.items()}


def _typical(value: Any) -> Any:
    """Returns the geometric mean of a spread per parameter, which is its step size; any other value as it is."""
    if isinstance(value, (str, int, float)) or not is_scalable(value):
        return value
    leaves = [np.ravel(x) for x in jax.tree.leaves(value)]
    if not all(x.dtype.kind == "f" for x in leaves):  # such as the sizes of layers
        return value
    return float(np.exp(np.mean(np.log(np.concatenate(leaves)))))


def _stored(value: Any) -> Any:
    """Returns a value as JSON: short arrays in the structure of a solution as lists, which stand for them."""
    if is_scalable(value) and sum(map(np.size, jax.tree.leaves(value))) <= _MAX_STORED:
        value = jax.tree.map(lambda x: np.asarray(x).tolist() if np.ndim(x) else x, value)
    return describe_value(value)


def _shown(row: Mapping[str, Any], prefix: str) -> str:
    score, low, high, failed = (row[f"{prefix}{name}"] for name in ("score", "low", "high", "failed"))
    interval = f" ({low:.4g} to {high:.4g})" if np.isfinite(low) else ""
    return f"{score:.4g}{interval}" + (f", without {failed} seeds that have no finite score" if failed else "")


def spec_with_values(spec: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a strategy, given by its id or as a dictionary, with values of settings; "base.sigma" is one of its base.

    Raises:
        ValueError: If the strategy does not say what the base is.
    """
    made: dict[str, Any] = {"id": spec} if isinstance(spec, str) else dict(spec)
    for path, value in values.items():
        name, _, rest = path.partition(".")
        if not rest:
            made[name] = value
        elif isinstance(made.get(name), (str, Mapping)):
            made[name] = spec_with_values(made[name], {rest: value})
        else:
            raise ValueError(
                f"The space sweeps {path!r}, and the strategy does not say what its {name} is. Give it as a "
                f'dictionary, such as {{"id": "bounded", "{name}": "cma_es"}}.'
            )
    return made


def _shown_values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_shown_value(value)}" for name, value in values.items())


def _shown_value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else short(value)
