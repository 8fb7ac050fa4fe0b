"""Tables of scores in several formats."""

import html.parser
import re

import numpy as np
import pytest
import rich.console
import rich.table

from tests.benchmarking.test_results import curves_to, make_pair, make_results
from tests.faults import MARKUP
from zoo.reports.grids import Grid, render, score_grid


@pytest.fixture
def results():
    """Two strategies share rank 1 on p. On q, b is best and c failed."""
    tied = [make_pair(name, "p", curves_to(-1.0, -1.0)) for name in "ab"]
    others = [make_pair("c", "p", curves_to(20.0, 20.0)), make_pair("c", "q", [], error="no")]
    on_q = [make_pair("a", "q", curves_to(5e-12, 5e-12)), make_pair("b", "q", curves_to(4e-12, 4e-12))]
    return make_results(*tied, *others, *on_q)


def test_all_that_share_rank_1_are_bold(results):
    grid = score_grid(results.summary(), bold_best=True)
    assert grid.columns == ["strategy", "p", "q"]
    assert [row[0] for row in grid.rows] == ["b", "a", "c"]  # by mean rank
    assert grid.rows[2] == ["c", "20 (20 to 20)", "failed"]
    assert grid.is_bold == [[False, True, True], [False, True, False], [False, False, False]]
    assert not np.any(score_grid(results.summary(), bold_best=False).is_bold)


def test_text(results):
    assert results.table(problem="p").splitlines() == [
        "strategy              p",
        "a         -1 (-1 to -1)*",
        "b         -1 (-1 to -1)*",
        "c         20 (20 to 20)",
    ]


def test_markdown(results):
    lines = results.table("markdown").splitlines()
    assert lines[:2] == ["| strategy | p | q |", "| :--- | ---: | ---: |"]
    assert lines[2] == "| b | **-1 (-1 to -1)** | **4e-12 (4e-12 to 4e-12)** |"


def test_latex(results):
    lines = results.table("latex").splitlines()
    power = r"4$\times 10^{-12}$"
    minus = "$-$1"
    assert lines[1:5] == [r"\begin{tabular}{lrr}", r"\toprule", r"strategy & p & q \\", r"\midrule"]
    assert lines[5] == rf"b & \textbf{{{minus} ({minus} to {minus})}} & \textbf{{{power} ({power} to {power})}} \\"
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]


def test_rich(results):
    table = results.table("rich")
    assert isinstance(table, rich.table.Table)
    console = rich.console.Console(width=80, force_terminal=True, color_system="standard")
    with console.capture() as capture:
        console.print(table)
    assert len(re.findall(r"\x1b\[1m-1 \(-1 to -1\)", capture.get())) == 2


class Cells(html.parser.HTMLParser):
    """Reads the cells of a table back, and which of them are bold."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        if data.strip():
            self.cells.append((data, self.tags[-1] == "strong"))


def test_html(results):
    cells = Cells(results.table("html")).cells
    assert cells[:3] == [("strategy", False), ("p", False), ("q", False)]
    assert cells[3:6] == [("b", False), ("-1 (-1 to -1)", True), ("4e-12 (4e-12 to 4e-12)", True)]


def test_labels_are_text():
    label = f"{MARKUP} & 50 % _x_ {{}} ^ ~ \\ # $"
    grid = Grid([label, label], [[label, "1"]], [[False, False]])
    plain = " ".join(label.replace("\x1b", "\N{REPLACEMENT CHARACTER}").split())
    assert [cell for cell, _ in Cells(render(grid, "html")).cells] == [plain, plain, plain, "1"]
    row = render(grid, "latex").splitlines()[3]
    row = row.replace(r"\textbackslash{}", "").replace(r"\textasciicircum{}", "").replace(r"\textasciitilde{}", "")
    row = row.replace(r"\textless{}", "").replace(r"\textgreater{}", "")
    assert not re.search(r"(?<!\\)[%$#_{}~^<>]", row.removesuffix(r" \\"))
    assert len(re.findall(r"(?<!\\)&", row)) == 1  # the one between the two cells
    assert render(grid, "markdown").count("\n") == 2
    assert "<script" not in render(grid, "markdown")
    assert "\x1b" not in render(grid, "text")


def test_what_is_wrong_is_named(results):
    with pytest.raises(ValueError, match="format must be one of markdown, latex, rich, html, text, got 'pdf'"):
        results.table("pdf")
    with pytest.raises(KeyError, match="No problem 'x'"):
        results.table(problem="x")
