"""The HTML report of a benchmark: one file that needs no network, with figures that can be zoomed and tables that sort.

Python prepares texts and numbers. The template in `templates/` arranges them. `templates/report.js` sorts tables and
draws the figures with plotly.js, which the package `plotly` brings. A policy in the page (Content-Security-Policy) lets
only these two scripts run and forbids every request, whatever labels and errors contain.
"""

import base64
import datetime
import hashlib
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from zoo.core.text import plain_text
from zoo.loop.files import write_text
from zoo.reports.contents import Contents, describe_load, describe_seconds, mean_ranks
from zoo.reports.reproduce import command_line, python_call
from zoo.reports.tables import describe_few_seeds, describe_overshoot, format_ert, format_tuning, short_number
from zoo.statistics.runtimes import hardest_targets, solved_curves

_TEMPLATES = pathlib.Path(__file__).parent / "templates"
_DECADES = 3  # scores that span more of them are drawn on a logarithmic axis
_FEW = 10  # strategies that can be told apart in one figure


def write_html_report(path: pathlib.Path, contents: Contents) -> pathlib.Path:
    """Writes a report as one HTML file; see `Results.report`.

    Raises:
        ModuleNotFoundError: If jinja2 or plotly is not installed.
    """
    try:
        import jinja2
        import plotly.offline
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"The HTML report needs {error.name}, which is not installed: pip install es-zoo[html]. The Markdown "
            "report needs nothing more.",
            name=error.name,
        ) from None
    scripts = [_script(plotly.offline.get_plotlyjs()), _script((_TEMPLATES / "report.js").read_text())]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["plain"] = plain_text
    environment.filters["day_and_time"] = _day_and_time
    environment.filters["plain_lines"] = _plain_lines
    text = environment.get_template("report.html").render(
        **_page(contents),
        scripts=scripts,
        hashes=[_digest(script) for script in scripts],
        style=(_TEMPLATES / "report.css").read_text(),
        data=_script_json(_figures(contents)),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


# What the template is given


def _page(contents: Contents) -> dict[str, Any]:
    """Returns the texts and tables of the page."""
    summary, metadata = contents.summary, contents.metadata
    ranks = mean_ranks(summary)
    facts = {(pair.strategy, pair.problem): pair.info for pair in contents.pairs}
    problems = list(dict.fromkeys(pair.problem for pair in contents.pairs))
    maximize = {pair.problem: bool(pair.info.get("maximize")) for pair in contents.pairs}
    rows = {
        problem: [_row(row, facts) for row in summary.to_dict("records") if row["problem"] == problem]
        for problem in problems
    }
    for each in rows.values():
        _add_marks(each)
    return {
        "metadata": metadata,
        "strategies": [{"name": name, "mean_rank": rank} for name, rank in ranks.items()],
        "problems": problems,
        "rows": rows,
        "cells": {(row["strategy"], problem): row for problem in problems for row in rows[problem]},
        "direction": {problem: "higher" if maximize[problem] else "lower" for problem in problems},
        "seconds": describe_seconds(pair.info for pair in contents.pairs),
        "has_load": any(row["load"] for each in rows.values() for row in each),
        "overshoot": describe_overshoot(summary),
        "few_seeds": describe_few_seeds(summary),
        "comparison": [(table.title, table.note, _frame_table(table.frame)) for table in contents.comparison],
        "ert": [] if contents.ert is None else [_frame_table(table) for table in format_ert(contents.ert)],
        "tuning": _frame_table(format_tuning(contents.tuned)) if contents.tuned else None,
        "failures": [pair for pair in contents.pairs if pair.info.get("error")],
        "settings": _settings(contents, list(ranks.index)),
        "versions": _texts(metadata.get("versions")),
        "device": _texts(metadata.get("device")),
        "python_call": python_call(contents.metadata, contents.pairs),
        "command_line": command_line(contents.metadata, contents.pairs),
    }


def _row(row: dict[str, Any], facts: Mapping[tuple[str, str], Mapping[str, Any]]) -> dict[str, Any]:
    """Returns a row of the table of a problem: each number, and its text."""
    info = facts[row["strategy"], row["problem"]]
    numbers = {name: _number(row.get(name)) for name in ("rank", "score", "low", "high", "steps", "seconds")}
    compile_seconds = _number(row.get("compile_seconds"))
    interval = None
    if numbers["low"] is not None and numbers["high"] is not None:
        interval = f"{short_number(numbers['low'])} to {short_number(numbers['high'])}"
    return {
        **numbers,
        "strategy": row["strategy"],
        "metric": row["metric"],
        "failed": bool(info.get("error")),
        "interval": interval,
        "compile_seconds": compile_seconds,
        "load": describe_load(info.get("load")),
    }


def _add_marks(rows: list[dict[str, Any]]) -> None:
    """Adds where the score and the interval of each row lie between the lowest and the highest, from 0 to 100."""
    ends = [row[name] for row in rows for name in ("score", "low", "high") if row[name] is not None]
    is_log = _spans_decades(ends)
    scaled = [math.log(x) if is_log else x for x in ends]
    low, width = min(scaled, default=0.0), max(scaled, default=0.0) - min(scaled, default=0.0)

    def position(value: float | None) -> float | None:
        if value is None or not 0 < width < math.inf:
            return None
        return round(100 * ((math.log(value) if is_log else value) - low) / width, 1)

    for row in rows:
        row["marks"] = [position(row[name]) for name in ("low", "score", "high")]
        row["is_log"] = is_log


def _spans_decades(values: Sequence[float]) -> bool:
    """Returns whether values are positive and span so much that a logarithmic axis shows more."""
    return len(values) > 0 and min(values) > 0 and max(values) / min(values) > 10**_DECADES


def _frame_table(frame: pd.DataFrame) -> dict[str, Any]:
    """Returns a frame as texts, each with what it is sorted by."""
    rows = [[(_number(cell), _cell(cell)) for cell in row] for row in frame.itertuples(index=False)]
    kinds = [
        "number" if any(value is not None for value, _ in cells) else "text" for cells in zip(*rows, strict=True)
    ] or ["text"] * len(frame.columns)
    return {"columns": list(zip(map(str, frame.columns), kinds, strict=True)), "rows": rows}


def _cell(value: Any) -> str:
    number = None if isinstance(value, bool) else _number(value)
    if number is not None and not isinstance(value, str):
        return short_number(number)
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA else str(value)


def _settings(contents: Contents, order: list[str]) -> list[dict[str, Any]]:
    """Returns the settings of each strategy: a row for each set of problems on which they are the same."""
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in order}
    for pair in contents.pairs:
        values, tuning = pair.info.get("strategy_settings"), pair.info.get("tuning")
        if values is None and tuning is None:
            continue
        texts = _texts(values)
        key = json.dumps([texts, _texts(tuning)])
        row = found[pair.strategy].setdefault(key, {"problems": [], "settings": texts, "tuning": _texts(tuning)})
        row["problems"].append(pair.problem)
    return [{"strategy": name, "rows": list(rows.values())} for name, rows in found.items() if rows]


def _texts(values: Any) -> dict[str, str]:
    """Returns a mapping as texts. Anything that is no mapping becomes one text."""
    if not isinstance(values, Mapping):
        return {} if values is None else {"": json.dumps(values, default=str)}
    return {
        str(name): value if isinstance(value, str) else json.dumps(value, default=str)
        for name, value in values.items()
        if value is not None
    }


# What the figures are drawn from


def _figures(contents: Contents) -> dict[str, Any]:
    """Returns the curves of all figures, and the strategies in the order of their colours: the best first."""
    order = [str(name) for name in mean_ranks(contents.summary).index]
    number = {name: i for i, name in enumerate(order)}
    figures = []
    for index, problem in enumerate(dict.fromkeys(pair.problem for pair in contents.pairs)):
        curves = contents.curves[contents.curves.problem == problem]
        if not len(curves):
            continue
        groups = [pd.DataFrame(rows) for _, rows in curves.groupby(["strategy", "axis"], sort=False)]
        views = [
            {"label": label, "series": [_curve(number, rows) for rows in groups if rows.axis.iloc[0] == axis]}
            for axis, label in (("steps", "problem steps"), ("seconds", "wall-clock seconds, all seeds"))
        ]
        (first, *_) = (pair.info for pair in contents.pairs if pair.problem == problem and not pair.info.get("error"))
        maximize = bool(first.get("maximize"))
        is_log = not maximize and _spans_decades(curves.score[curves.score.map(math.isfinite)].tolist())
        y = f"{plain_text(first['headline'])} ({'higher' if maximize else 'lower'} is better)"
        figures.append({"id": f"curves-{index}", "views": views, "y": y, "log": is_log, "kind": "curve"})
    if len(contents.runtimes):
        dims = pd.Series(contents.num_dims, dtype=float)
        figures.append(
            _steps_figure(
                "ecdf", number, contents.runtimes, dims, "problem steps / dimension", "fraction of targets reached"
            )
        )
        figures.append(
            _steps_figure(
                "profile",
                number,
                hardest_targets(contents.runtimes),
                dims + 1,
                "simplex gradients (n + 1 problem steps)",
                "fraction of problems and seeds solved",
            )
        )
    return {"strategies": [plain_text(name) for name in order], "few": _FEW, "figures": figures}


def _curve(number: Mapping[str, int], rows: pd.DataFrame) -> dict[str, Any]:
    columns = {name: _rounded(rows[column]) for name, column in (("x", "x"), ("y", "score"))}
    if rows.low.notna().any():
        columns |= {name: _rounded(rows[name]) for name in ("low", "high")}
    return {"strategy": number[rows.strategy.iloc[0]], **columns}


def _steps_figure(
    id: str, number: Mapping[str, int], runtimes: pd.DataFrame, unit: pd.Series, label: str, y: str
) -> dict[str, Any]:
    series = [
        {"strategy": number[name], "x": _rounded(x), "y": _rounded(fractions), "end": _rounded(end)}
        for name, (x, fractions, end) in solved_curves(runtimes, unit).items()
    ]
    view = {"label": f"{label}; cross: the first run ended", "series": series}
    return {"id": id, "views": [view], "y": y, "log": False, "kind": "steps"}


def _rounded(values: Iterable[float]) -> list[float | None]:
    """Returns numbers with as many digits as a figure shows. What is not finite becomes `None`, as JSON has no NaN."""
    return [float(f"{x:.5g}") if math.isfinite(x) else None for x in values]


# Texts in a page


def _number(value: Any) -> float | None:
    """Returns a number that is finite, or `None`."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _day_and_time(date: Any) -> str:
    """Returns a date of the form "2026-11-29T20:55:21+00:00" in a form that is easier to read."""
    try:
        return f"{datetime.datetime.fromisoformat(str(date)).astimezone(datetime.UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError):
        return plain_text(date)


def _plain_lines(text: Any) -> str:
    """Returns text of several lines, such as a traceback, with control characters replaced."""
    lines = (line.expandtabs(4) for line in str(text).splitlines())
    return "\n".join(" " * (len(line) - len(line.lstrip(" "))) + plain_text(line) for line in lines)


def _script(text: str) -> str:
    """Returns a script in the form in which a browser reads it from a page, which its checksum is computed of."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _script_json(value: Any) -> str:
    """Returns JSON that cannot end the element that it stands in."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _digest(script: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
