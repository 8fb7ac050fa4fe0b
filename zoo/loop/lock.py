"""Locks a folder, so that one process at a time writes into it."""

import contextlib
import os
import pathlib
import stat
import tempfile
from typing import Any, Self

import filelock
from jax.sharding import Mesh

from zoo.core.sharding import from_first_process
from zoo.loop.files import remove

_NAME = ".lock"


class UnwritableError(OSError, ValueError):
    """A folder cannot be written. The message names it."""


def lock_beside(path: pathlib.Path, what: str) -> contextlib.AbstractContextManager[Any]:
    """Locks a file, so that no other process writes it, by a file beside it. Makes its folder.

    Args:
        path: The file.
        what: The call that writes the file, for messages.

    Returns:
        A context manager that lets go of the lock at the end of its block.

    Raises:
        ValueError: If another process has locked the file, or its folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _lock(path.with_name(f".{path.name}.lock"))
    except filelock.Timeout:
        raise ValueError(
            f"Another process is writing {path}. Wait until it is done, or choose another file for {what}."
        ) from None
    except OSError as error:
        raise UnwritableError(
            f"{what} needs to write {path}, and cannot: {error.strerror or error}. Choose another file."
        ) from error


def _lock(path: pathlib.Path) -> contextlib.AbstractContextManager[Any]:
    """Takes the lock of a file. The end of a `with` block lets go of it."""
    if os.path.lexists(path) and (not stat.S_ISREG(path.lstat().st_mode) or path.lstat().st_nlink > 1):
        remove(path)  # a link would lock a file elsewhere
    return filelock.FileLock(path, timeout=0).acquire()


class FolderLock:
    """Makes a folder, and keeps other processes from writing into it during a `with` block.

    A folder that cannot be written (its disk is read-only or full, or it belongs to another user) can be entered too,
    because its content may be all that is needed. Callers call `check_writable` before they compute anything.

    Args:
        folder: The folder.
        what: The call that needs the folder, for messages, such as `"benchmark(out=...)"`.
        mesh: The mesh of the run. If several processes share it, all make the same calls, and the first process locks
            for all.
    """

    def __init__(self, folder: pathlib.Path, what: str, mesh: Mesh | None = None):
        self._folder, self._what, self._mesh = folder, what, mesh
        self._stack = contextlib.ExitStack()
        self._error: OSError | None = None

    def __enter__(self) -> Self:
        """Locks the folder.

        Raises:
            ValueError: If the folder is a file, another process uses it, or it is missing and cannot be made.
        """
        self._error = from_first_process(self._mesh, self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def is_writable(self) -> bool:
        """Whether the folder can be written."""
        return self._error is None

    def check_writable(self) -> None:
        """Raises an `UnwritableError` if the folder cannot be written."""
        if self._error is not None:
            raise UnwritableError(
                f"{self._what} needs to write in {self._folder}, and cannot: {self._error.strerror or self._error}. "
                "Choose another folder, or make room in this one."
            ) from self._error

    def _enter(self) -> OSError | None:
        """Locks the folder. Returns the error that makes it unwritable, or `None`."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ValueError(f"{self._what} needs a folder, but {self._folder} is a file.") from error
        except OSError as error:
            self._error = error
            if not os.path.isdir(self._folder):  # there is nothing to read either
                self.check_writable()
            return error
        try:
            self._stack.enter_context(_lock(self._folder / _NAME))
            with tempfile.TemporaryFile(dir=self._folder) as file:  # the lock may be writable where the folder is not
                file.write(bytes(4096))
        except filelock.Timeout:
            raise ValueError(
                f"Another process is using {self._folder.absolute()}. Wait until it is done, or choose another folder "
                f"for {self._what}."
            ) from None
        except OSError as error:
            self._stack.close()
            return error
        return None
