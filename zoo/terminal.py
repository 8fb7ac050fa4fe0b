"""Output of the command line: text that is wrapped between words, and tables that fit the width of a terminal.

Output that is not a terminal, such as a pipe or a file, is never wrapped, and every row of a table is one full line.
"""

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import rich.console
from rich.cells import cell_len, set_cell_size
from rich.text import Text

from zoo.core.text import plain_text

if TYPE_CHECKING:
    import pandas as pd

OUT = rich.console.Console()
ERR = rich.console.Console(stderr=True)
_LEFT = ("problem", "strategy", "metric")
"""Columns of text; all others are numbers, which are aligned to the right."""
_GAP = "  "
_MAX_NAME = 30  # characters of a name; a longer one has its explanation below


def width() -> int | None:
    """Returns the number of columns of the terminal, or `None` if the output is not a terminal."""
    return OUT.width if OUT.is_terminal else None


def say(*parts: str | tuple[str, str], to: rich.console.Console | None = None, style: str = "") -> None:
    """Prints a paragraph.

    In a terminal it is wrapped between words. A word longer than a line, such as a path, stays in one piece.

    Args:
        parts: Texts, or pairs of a text and its style.
        to: Where to print it. Defaults to the standard output.
        style: Style of the whole paragraph.
    """
    text, start = Text.assemble(*parts, style=style), 0
    to = to or OUT
    for line in _wrap(text.plain, to.width, indent=_GAP) if to.is_terminal else ():
        words = line.strip()
        start = text.plain.index(words, start)
        before = "" if start == 0 else _GAP
        _print_line(Text.assemble(before, text[start : start + len(words)]), to)
        start += len(words)
    if not to.is_terminal or not text.plain:
        _print_line(text, to)


def _wrap(text: str, columns: int, *, begin: str = "", indent: str = "") -> list[str]:
    """Returns the lines of a text. No word is broken, not even one that is longer than a line."""
    return textwrap.wrap(
        text,
        columns,
        initial_indent=begin,
        subsequent_indent=indent,
        expand_tabs=False,
        replace_whitespace=False,  # `say` looks for the lines in the text
        break_long_words=False,
        break_on_hyphens=False,
    )


def _print_line(line: Text, to: rich.console.Console | None = None) -> None:
    """Prints a line as it is, also if it is longer than the terminal is wide."""
    (to or OUT).print(line, highlight=False, soft_wrap=True)


def show_lines(text: str) -> None:
    """Prints a text whose lines are already as long as they should be."""
    for line in text.splitlines():
        _print_line(Text(line))


def show_entries(title: str, entries: Iterable[tuple[str, str, str]]) -> None:
    """Prints a list for a terminal.

    Args:
        title: A line above the list.
        entries: For each entry its name, its explanation, which stands beside the name, and more text, which stands
            below.
    """
    entries = list(entries)
    names = [cell_len(name) for name, _, _ in entries if cell_len(name) <= _MAX_NAME]
    indent = " " * (max(names, default=0) + len(_GAP))
    say(title, style="bold")
    for name, explanation, more in entries:
        begin = set_cell_size(name, len(indent))
        if cell_len(name) > len(indent) - len(_GAP):
            _print_line(Text(name))
            begin = indent
        lines = _wrap(explanation, OUT.width, begin=begin, indent=indent) or [name]
        for line in (*lines, *_wrap(more, OUT.width, begin=_GAP * 2, indent=_GAP * 2)):
            _print_line(Text(line))


def show_table(
    frames: Sequence["pd.DataFrame"],
    narrower: Sequence["pd.DataFrame"] = (),
    *,
    title: str = "",
    sections: Sequence[str] | None = None,
    label: str | None = None,
) -> list[str]:
    """Prints a table, in the first of several forms that fits the terminal. No cell is ever broken or cut off.

    A terminal gets the first of `frames` that is narrow enough. If none is, the labels get lines of their own above
    their rows, and the first of `frames` and `narrower` that is narrow enough without them is printed. Output that is
    not a terminal gets the first frame as it is.

    Args:
        frames: The same rows with fewer and fewer columns, all of them text.
        narrower: Frames with fewer columns still.
        title: A line above the table.
        sections: Headings of the rows: each is printed once, above the rows that have it. It replaces the columns
            `problem` and `metric` in a terminal.
        label: Name of the column whose cells may get lines of their own.

    Returns:
        The names of the columns that were left out because there was no room.
    """
    if title:
        say("")
        say(plain_text(title), style="bold")
    frame, lines = _lay_out(frames, narrower, width(), sections, label)
    for line, style in lines:
        _print_line(Text(line, style))
    return [name for name in frames[0].columns if name not in frame.columns]


def _lay_out(
    frames: Sequence["pd.DataFrame"],
    narrower: Sequence["pd.DataFrame"],
    columns: int | None,
    sections: Sequence[str] | None,
    label: str | None,
) -> tuple["pd.DataFrame", list[tuple[str, str]]]:
    """Returns the frame that is printed, and its lines, each with its style."""
    if columns is None:
        return frames[0], _lines(frames[0])[0]
    forms = [(frame, None) for frame in frames]
    if label is not None:
        forms += [(frame, label) for frame in (*frames, *narrower)]
    for frame, stacked in forms[:-1]:
        lines, needed = _lines(frame, sections, stacked)
        if needed <= columns:
            return frame, lines
    frame, stacked = forms[-1]
    return frame, _lines(frame, sections, stacked)[0]


def _lines(
    frame: "pd.DataFrame", sections: Sequence[str] | None = None, stacked: str | None = None
) -> tuple[list[tuple[str, str]], int]:
    """Returns the lines of a frame, and their width without headings and stacked labels."""
    labels = None if stacked is None else frame[stacked]
    hidden = [*(() if sections is None else ("problem", "metric")), *(() if stacked is None else (stacked,))]
    frame = frame.drop(columns=hidden, errors="ignore")
    rows = [[plain_text(cell) for cell in row] for row in (frame.columns, *frame.itertuples(index=False))]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    indent = _GAP * ((sections is not None) + (labels is not None))

    def aligned(row: list[str]) -> str:
        cells = [
            set_cell_size(cell, size) if name in _LEFT else " " * (size - cell_len(cell)) + cell
            for cell, size, name in zip(row, widths, rows[0], strict=True)
        ]
        return f"{indent}{_GAP.join(cells)}".rstrip()

    lines = [(aligned(rows[0]), "bold")]
    for number, row in enumerate(rows[1:]):
        if sections is not None and (number == 0 or sections[number] != sections[number - 1]):
            lines.append((plain_text(sections[number]), "bold"))
        if labels is not None:
            lines.append((f"{_GAP if sections is not None else ''}{plain_text(labels.iloc[number])}", ""))
        lines.append((aligned(row), ""))
    return lines, len(indent) + sum(widths) + len(_GAP) * (len(widths) - 1)
