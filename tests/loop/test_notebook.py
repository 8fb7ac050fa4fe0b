"""Progress in a notebook without widgets: one line that is updated, and no warning."""

import sys
import time
import types

import pytest

from zoo.loop import notebook
from zoo.loop.progress import progress_bar


class ZMQInteractiveShell:
    """Has the name of the shell of a notebook."""


@pytest.fixture
def lines(monkeypatch):
    """Makes this process look like a notebook without widgets, and returns the lines that it would show."""
    shown = []

    class Handle:
        def update(self, data, *, raw):
            shown.append(data["text/plain"])

    def display(data, *, raw, display_id):
        assert raw
        assert display_id
        shown.append(data["text/plain"])
        return Handle()

    ipython = types.ModuleType("IPython")
    ipython.get_ipython = ZMQInteractiveShell
    ipython.display = types.ModuleType("IPython.display")
    ipython.display.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    monkeypatch.setattr(notebook.importlib.util, "find_spec", lambda name: None)
    return shown


@pytest.mark.filterwarnings("error")
def test_one_line_that_is_updated(lines, capsys):
    with progress_bar("title", 40, status="compiling") as show:
        show(10, "score 3")
        show(40, "score 2")
    assert lines[0].startswith(f"title  {'░' * 20}  0 %  0 s  compiling")
    assert lines[-1].startswith(f"title  {'█' * 20}  100 %  ")
    assert lines[-1].endswith("  score 2")
    assert capsys.readouterr() == ("", "")


def test_it_is_updated_while_nothing_else_happens(lines, monkeypatch):
    """A status may be a time."""
    monkeypatch.setattr(notebook, "_INTERVAL", 0.01)
    ticks = iter(range(1000))

    class Clock:
        def __str__(self):
            return f"{next(ticks)} s"

    with progress_bar("title", 4, status=Clock(), is_count=True) as show:
        while len(lines) < 3:
            time.sleep(0.01)
        show(3, "done")
    assert [line.rpartition("  ")[2] for line in lines[:3]] == ["0 s", "1 s", "2 s"]
    assert "  3/4  " in lines[-1]


def test_with_widgets_it_is_the_usual_bar(lines, monkeypatch):
    assert notebook.lacks_widgets()
    monkeypatch.setattr(notebook.importlib.util, "find_spec", lambda name: name)
    assert not notebook.lacks_widgets()


def test_this_is_no_notebook():
    assert not notebook.lacks_widgets()
