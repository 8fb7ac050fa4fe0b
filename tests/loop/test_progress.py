"""The line of a progress bar in terminals of several widths."""

import io

import pytest
import rich.console
import rich.progress

from zoo.loop.progress_line import Line

LONG = "lottery([red]sep_cma_es) on supervised/digits\nwith a long label (3/12)"
WIDE = "進化戦略" * 20
STATUS = "test_accuracy 0.9312, generation 11000"


def lines_of(title, width, done, *, is_count=False, status=STATUS, encoding="utf-8"):
    file = io.TextIOWrapper(io.BytesIO(), encoding)
    console = rich.console.Console(file=file, width=width, force_terminal=True, color_system=None)
    bar = rich.progress.Progress(Line(is_count=is_count), console=console, get_time=lambda: 100.0)
    task = bar.add_task(title, total=12_000, status=status)
    bar.update(task, completed=done)
    console.print(bar.get_renderable())
    file.seek(0)
    return file.read().splitlines()


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("title", ["run", LONG, WIDE, ""], ids=["short", "long", "wide", "none"])
def test_score_and_time_are_never_cut_or_wrapped(width, title):
    places = set()
    for done in (0, 6_000, 12_000):
        (line,) = lines_of(title, width, done)
        assert rich.cells.cell_len(line) == width
        assert f"{done // 120}%" in line
        assert " test_accuracy 0.9312" in line
        assert ("generation 11000" in line) == (width > 60)
        places.add((rich.cells.cell_len(line.partition("%")[0]), rich.cells.cell_len(line.partition(" test")[0])))
    assert len(places) == 1  # nothing moves while the bar grows
    (line,) = lines_of(title, width, 5_000, is_count=True)
    assert " 5000/12000  0:00:00 test_accuracy 0.9312" in line


def test_a_long_title_keeps_its_ends():
    (line,) = lines_of(LONG, 80, 0)
    assert line.startswith("lottery([r…el (3/12) ")
    (line,) = lines_of(LONG, 80, 0, encoding="ascii")
    assert line.startswith("lottery([...l (3/12) ")
    assert "sep_cma_es) on supervised/digits with a" in lines_of(LONG, 300, 0)[0]


def test_a_status_that_does_not_fit_keeps_its_number():
    status = f"{'metric_' * 10}0.9312, generation 7"
    (line,) = lines_of("run", 80, 0, status=status)
    assert line.rstrip().endswith("_0.9312")
    assert "metric_metric" in line
