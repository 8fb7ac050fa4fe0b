"""The line of a progress bar. It fits terminals of any width: no part is wrapped, and time and status stay readable."""

import rich.progress
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.text import Text

from zoo.core.text import plain_text

_TIME = 8  # columns of a time
_STATUS = 40  # columns of the status, if there is room
_BAR = (6, 40)  # columns of the bar, at least and at most; where there is less room, there is no bar


class Line(rich.progress.ProgressColumn):
    """Title, bar, share that is done, time and status.

    Args:
        is_count: Whether to show `done/total` and the elapsed time. Otherwise the line shows the percentage and the
            remaining time.
    """

    def __init__(self, *, is_count: bool):
        super().__init__()
        self._is_count = is_count

    def render(self, task: rich.progress.Task) -> "_Row":
        """Returns the line for a task with a `status` field."""
        total = int(task.total or 0)
        if self._is_count:
            share = f"{int(task.completed)}/{total}".rjust(2 * len(str(total)) + 1)
            seconds = task.finished_time if task.finished else task.elapsed
        else:
            share, seconds = f"{task.percentage:>3.0f}%", task.time_remaining
        bar = ProgressBar(total=total, completed=task.completed, animation_time=task.get_time())
        style = "progress.elapsed" if self._is_count else "progress.remaining"
        return _Row(
            plain_text(task.description), bar, share, (_clock(seconds), style), plain_text(task.fields["status"])
        )


class _Row:
    """One line of a terminal."""

    def __init__(self, title: str, bar: ProgressBar, share: str, time: tuple[str, str], status: str):
        self._title, self._bar, self._share, self._time, self._status = title, bar, share, time, status

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(options.max_width, options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        dots = "..." if options.ascii_only else "…"
        room = options.max_width - len(self._share) - _TIME - 4  # for title, bar and status
        title, bar = _widths(room, cell_len(self._title))
        left = room - title - bar + (bar == 0)
        status = _shortened(_first_parts(self._status, left), left, dots)
        parts = (self._share, "progress.percentage"), " ", self._time, " ", status
        # Texts are rendered here, because a table would pad each of them to the width of the line.
        yield from Text(f"{_shortened(self._title, title, dots)} ").render(console)
        if bar:
            self._bar.width = bar
            drawn = [*console.render(self._bar, options)]
            yield from [*drawn, Segment(" " * (bar + 1 - sum(part.cell_length for part in drawn)))]
        yield from Text.assemble(*parts).render(console)


def _widths(room: int, title: int) -> tuple[int, int]:
    """Returns the widths of title and bar, without a bar if there is no room for it.

    Args:
        room: Columns for title, bar and status together.
        title: Columns of the whole title.
    """
    rest = room - min(_STATUS, 3 * room // 5)
    at_least, at_most = _BAR
    if title > rest:  # a title that fits is worth more than a bar
        title = rest if rest < 3 * at_least else rest - at_least
    bar = min(rest - title, at_most)
    return title, bar if bar >= at_least else 0


def _first_parts(text: str, width: int) -> str:
    """Returns a text without the last of its parts, which commas separate, as far as needed for it to fit."""
    while cell_len(text) > width and ", " in text:
        text = text.rpartition(", ")[0]
    return text


def _shortened(text: str, width: int, dots: str) -> str:
    """Returns a text of at most this width, with its middle cut out if need be."""
    if cell_len(text) <= width:
        return text
    left = max(0, width - len(dots))
    tail = text[len(text) - left // 2 :]
    return f"{set_cell_size(text, max(0, left - cell_len(tail)))}{dots}{tail}"[: max(0, width)]


def _clock(seconds: float | None) -> str:
    """Returns a time as hours, minutes and seconds."""
    if seconds is None:
        return "-:--:--".rjust(_TIME)
    minutes, rest = divmod(int(seconds), 60)
    text = f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
    return (text if len(text) <= _TIME else f"{minutes // 1440} days").rjust(_TIME)
