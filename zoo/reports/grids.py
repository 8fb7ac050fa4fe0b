"""Tables of short texts in several formats, with some cells in bold: for a paper, a page, a notebook, a terminal."""

import html
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pandas as pd

from zoo.core.checks import shown
from zoo.core.text import plain_text
from zoo.reports.contents import mean_ranks
from zoo.reports.tables import markdown_lines, markdown_text, short_number

if TYPE_CHECKING:
    import rich.table

Format = Literal["markdown", "latex", "rich", "html", "text"]
_NUMBER = re.compile(r"-?[\d.,]+(?:e[+-]?\d+)?")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}


class Grid(NamedTuple):
    """A table. Its first column has labels, and the others have numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_bold: Sequence[Sequence[bool]]


def score_grid(summary: pd.DataFrame, *, bold_best: bool) -> Grid:
    """Returns the scores of all strategies, best mean rank first: a row per strategy, and a column per problem.

    Args:
        summary: `Results.summary()`.
        bold_best: Whether scores of rank 1 are bold.
    """
    cells = {(row["problem"], row["strategy"]): row for row in summary.to_dict("records")}
    problems = [str(problem) for problem in summary.problem.unique()]
    rows, is_bold = [], []
    for strategy in map(str, mean_ranks(summary).index):
        found = [cells.get((problem, strategy)) for problem in problems]
        rows.append(
            [
                strategy,
                *("" if cell is None else score_text(cell["score"], cell["low"], cell["high"]) for cell in found),
            ]
        )
        is_bold.append([False, *(bold_best and cell is not None and _is_first(cell["rank"]) for cell in found)])
    return Grid(["strategy", *problems], rows, is_bold)


def frame_grid(frame: pd.DataFrame) -> Grid:
    """Returns a frame as a table, with short numbers and nothing in bold."""
    rows = [
        [short_number(cell) if isinstance(cell, float) else str(cell) for cell in row]
        for row in frame.itertuples(index=False)
    ]
    return Grid([str(name) for name in frame.columns], rows, [[False] * len(row) for row in rows])


def _is_first(rank: object) -> bool:
    return isinstance(rank, int) and rank == 1  # a failed pair has no rank


def score_text(score: float, low: float, high: float) -> str:
    """Returns a score and its interval as short text."""
    if np.isnan(score):
        return "failed"
    return short_number(score) + ("" if np.isnan(low) else f" ({short_number(low)} to {short_number(high)})")


def render(grid: Grid, format: Format) -> "str | rich.table.Table":
    """Returns a table in a format. Labels are escaped.

    Raises:
        ValueError: If there is no such format.
    """
    formats = {"markdown": _markdown, "latex": _latex, "rich": _rich, "html": html_table, "text": _text}
    if format not in formats:
        raise ValueError(f"format must be one of {', '.join(formats)}, got {shown(format)}.")
    return formats[format](grid)


def _rich(grid: Grid) -> "rich.table.Table":
    import rich.table
    from rich.text import Text

    table = rich.table.Table()
    for number, name in enumerate(grid.columns):
        table.add_column(Text(plain_text(name)), justify="left" if number == 0 else "right")
    for row, flags in zip(grid.rows, grid.is_bold, strict=True):
        texts = zip(row, flags, strict=True)
        table.add_row(*(Text(plain_text(cell), style="bold" if flag else "") for cell, flag in texts))
    return table


def _markdown(grid: Grid) -> str:
    marks = [":---", *("---:" for _ in grid.columns[1:])]
    rows = _marked([[markdown_text(cell) for cell in row] for row in grid.rows], grid, "**{}**")
    return markdown_lines([markdown_text(name) for name in grid.columns], marks, rows)


def _latex(grid: Grid) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"{' & '.join(cells)} \\\\"

    cells = [[_escape_latex(row[0]), *map(_latex_numbers, map(_escape_latex, row[1:]))] for row in grid.rows]
    rows = _marked(cells, grid, "\\textbf{{{}}}")
    return "\n".join(
        [
            "% \\usepackage{booktabs}",
            f"\\begin{{tabular}}{{l{'r' * (len(grid.columns) - 1)}}}",
            "\\toprule",
            line([_escape_latex(name) for name in grid.columns]),
            "\\midrule",
            *map(line, rows),
            "\\bottomrule",
            "\\end{tabular}",
        ]
    )


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(mark, mark) for mark in plain_text(text))


def _latex_numbers(text: str) -> str:
    """Returns text with a minus sign, and a power of ten in the place of an exponent, in each number."""

    def typeset(match: re.Match[str]) -> str:
        digits, _, exponent = match[0].partition("e")
        power = f"$\\times 10^{{{int(exponent)}}}$" if exponent else ""
        return digits.replace("-", "$-$") + power

    return _NUMBER.sub(typeset, text) if _NUMBER.match(text) else text


def html_table(grid: Grid) -> str:
    """Returns a table as HTML."""

    def escaped(text: str) -> str:
        return html.escape(plain_text(text))

    styles = [
        f' style="text-align: {"right" if i else "left"}; padding: 0.1em 0.6em"' for i in range(len(grid.columns))
    ]
    head = "".join(f"<th{style}>{escaped(name)}</th>" for name, style in zip(grid.columns, styles, strict=True))
    rows = _marked([[escaped(cell) for cell in row] for row in grid.rows], grid, "<strong>{}</strong>")
    body = [
        "<tr>" + "".join(f"<td{style}>{cell}</td>" for cell, style in zip(row, styles, strict=True)) + "</tr>"
        for row in rows
    ]
    lines = ["<table>", f"<thead><tr>{head}</tr></thead>", "<tbody>", *body, "</tbody>", "</table>"]
    return "\n".join(lines)


def _text(grid: Grid) -> str:
    """Returns aligned columns. There is no bold in plain text, so that a star stands behind such a cell."""
    rows = [list(map(plain_text, grid.columns)), *([plain_text(cell) for cell in row] for row in grid.rows)]
    if any(map(any, grid.is_bold)):
        flags = [[False] * len(grid.columns), *grid.is_bold]
        rows = [
            [f"{cell}{'*' if flag else ' '}" if i else cell for i, (cell, flag) in enumerate(zip(*each, strict=True))]
            for each in zip(rows, flags, strict=True)
        ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _marked(rows: Sequence[Sequence[str]], grid: Grid, form: str) -> list[list[str]]:
    """Returns the cells, the bold ones in the form of a format."""
    return [
        [form.format(cell) if flag else cell for cell, flag in zip(row, flags, strict=True)]
        for row, flags in zip(rows, grid.is_bold, strict=True)
    ]
