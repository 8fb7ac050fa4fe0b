"""Writes the log of a run while it runs: a CSV file with one row per generation.

Rows are appended whenever the host takes over from the compiled loop. The numbers come from the history of the run,
which the loop returns anyway. Only the seconds are interpolated, within a call of the loop.

A run that goes on, from a checkpoint or from a result, makes the file what it would have been without the
interruption. It keeps rows up to its generation, adds missing ones from its history, and drops later ones, because it
computes these generations again. Each row must be of the same run, which the last column says, or have the numbers of
its history: a run that goes on from a result may have another name. A row of the same run with other numbers is
damaged, and is written again.
"""

import contextlib
import csv
import io
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Self

from jax.sharding import Mesh

from zoo.core.sharding import from_first_process
from zoo.core.text import plain_text
from zoo.loop.files import DamagedError, opened, write_file
from zoo.loop.lock import lock_beside
from zoo.loop.log import CLOCK, HISTORY, Log

_FIRST = [*CLOCK, *(name for name in HISTORY if name != "steps")]
_RUN = "run"
_NAME = re.compile("[0-9a-f]{8}")  # of a run
_ADVICE = "Choose another file, or delete this one."


class LogFile:
    """A CSV file with one row per generation of a run, in a `with` block, which locks it.

    Columns: `generation`, `steps` (cumulative), `seconds` (in the compiled loop, interpolated within a call of it), the
    history (see `RunResult.history`), where the run was scored `score/<name>`, `sigma`, `step_norm` and
    `condition_number` (see `RunResult.scores`), and `run`, a short text that is the same in all rows of a run.

    Args:
        path: The file. Its folder is made if it is missing.
        run: A text that no other run has, 8 hexadecimal digits.
        before: The log of the run that `start` names, if there is one.
        mesh: The mesh of the run. If several processes share it, the first process writes.
    """

    def __init__(self, path: str | pathlib.Path, run: str, before: Log | None = None, mesh: Mesh | None = None):
        self.path = pathlib.Path(path).absolute()
        self._run, self._before, self._mesh = run, before, mesh
        self._stack = contextlib.ExitStack()
        self._handle: int | None = None  # of the file, once the run has begun
        self._done = 0  # generations in the file
        self._last = (0, b"")  # where the last row begins, and the row

    def __enter__(self) -> Self:
        """Locks the file.

        Raises:
            ValueError: If the file is no log, or of another run; if another process writes it; or if it cannot be
                written.
        """
        try:
            from_first_process(self._mesh, self._enter)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin(self, log: Log) -> None:
        """Makes the file hold the generations that the run has done.

        Raises:
            ValueError: If a row has other numbers than the run.
        """
        from_first_process(self._mesh, lambda: self._begin(log))

    def update(self, log: Log) -> None:
        """Appends the generations since the previous call. Adds the score of the last row if it was missing."""
        if self._handle is None:  # in all processes but the first
            return
        rows = list(_rows(log, self._done, self._run))
        text = b"".join(rows)
        start, last = self._last
        if last and not _same(last, row := next(_rows(log, self._done - 1, self._run))):
            os.ftruncate(self._handle, start)
            text, last = row + text, row
        self._last = (start + len(last) + sum(map(len, rows[:-1])), rows[-1]) if rows else (start, last)
        self._done += len(rows)
        try:
            while text:
                text = text[os.write(self._handle, text) :]
        except OSError as error:
            error.filename = str(self.path)  # the error of a full disk names no file
            raise

    def _enter(self) -> None:
        if os.path.isdir(self.path):
            raise ValueError(f"log must be the path of a file, but {self.path} is a folder.")
        self._stack.enter_context(lock_beside(self.path, "run(log=...)"))
        before = self._before
        self._check(self._rows_there(), [] if before is None else list(_rows(before, 0, self._run)), before)

    def _begin(self, log: Log) -> None:
        there, rows = self._rows_there(), list(_rows(log, 0, self._run))
        self._check(there, rows, log)
        # Seconds in the file are more exact than those that can be computed now.
        rows[: len(there)] = [
            old if _same(old, row) and _NAME.fullmatch(_name(old)) else row
            for row, old in zip(rows, there, strict=False)
        ]
        text = b"".join([_header(log), *rows])
        if not self.path.exists() or self.path.stat().st_nlink > 1 or self.path.read_bytes() != text:
            write_file(self.path, lambda file: file.write(text))
        self._done, self._last = len(rows), (len(text) - sum(map(len, rows[-1:])), b"".join(rows[-1:]))
        self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0))
        self._stack.callback(os.close, self._handle)

    def _rows_there(self) -> list[bytes]:
        """Returns the rows of the file, without a last one that was not written to its end.

        Raises:
            ValueError: If the file is not a log.
        """
        if not os.path.lexists(self.path):
            return []
        try:
            with opened(self.path) as file:
                text = file.read()
        except DamagedError as error:
            raise ValueError(f"log must be the path of a file, and {self.path} is not: {error.reason}") from None
        header, *rows = text.splitlines(keepends=True) or [b""]
        names = next(csv.reader([header.decode(errors="replace")]), [])
        if text and (names[: len(_FIRST)] != _FIRST or names[-1] != _RUN):
            raise ValueError(f"log={self.path} holds something else than the log of a run. {_ADVICE}")
        return [row for row in rows if row.endswith(b"\n")]

    def _check(self, there: Sequence[bytes], rows: Sequence[bytes], log: Log | None) -> None:
        """Raises a `ValueError` if rows of the file are of another run.

        Args:
            there: The rows of the file.
            rows: The rows of the generations that this run has done, as far as they are known.
            log: The log that these are of. With `None`, a damaged name is no error yet, because the row may have the
                numbers of the history.
        """
        size = 0 if log is None else len(_columns(log)) - len(log.score_names) - 2  # cells of the history
        for number, old in enumerate(there):
            run = _name(old)
            has_its_numbers = number < len(rows) and _cells(old)[:size] == _cells(rows[number])[:size]
            is_other = run != self._run and (log is not None or _NAME.fullmatch(run) is not None)
            if is_other and not has_its_numbers:
                raise ValueError(f"log={self.path} is of another run, from generation {number + 1} on. {_ADVICE}")


def _columns(log: Log) -> list[str]:
    scores = [f"score/{name}" if name in log.metric_names else name for name in log.score_names]
    return [plain_text(name) for name in (*log.since(0, int(log.generations[0])), *scores, _RUN)]


def _header(log: Log) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(_columns(log))
    return text.getvalue().encode()


def _rows(log: Log, after: int, run: str) -> Iterator[bytes]:
    """Yields the rows of all generations after one."""
    columns = [x.tolist() for x in log.since(0, after).values()]
    scores, without = log.scores_since(0, after), [""] * len(log.score_names)
    for row in zip(*columns, strict=True):
        scored = map(repr, scores[row[0]].values()) if row[0] in scores else without
        yield (",".join([*map(repr, row), *scored, run]) + "\n").encode()


def _cells(row: bytes) -> list[bytes]:
    """Returns the cells of a row that a repetition of the run would repeat: not the seconds, and not its name."""
    cells = row.split(b",")[:-1]
    return [*cells[: CLOCK.index("seconds")], *cells[CLOCK.index("seconds") + 1 :]]


def _name(row: bytes) -> str:
    """Returns the last cell of a row, the name of its run."""
    return row.decode(errors="replace").rstrip().rpartition(",")[2]


def _same(row: bytes, other: bytes) -> bool:
    return _cells(row) == _cells(other)
