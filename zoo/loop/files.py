"""Writes files and folders as a whole or not at all, whatever interrupts the writing. Reads files that may be damaged.

A file is written beside its place, flushed to the disk, and renamed into place. If several files belong together, one
of them is the index and holds the checksums of the others. All files are written beside their places first, then the
index is replaced, then the other files are moved into place. So at any moment every file that the index names exists,
in place or beside it.

A file that is read may be damaged, or written by somebody hostile. It never leads out of its folder: links count as
damage, and names from files are checked before they become part of a path.
"""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO, TypeVar

from zoo.core.checks import shown

T = TypeVar("T")
Write = Callable[[BinaryIO], object]
"""A function that writes the contents of a file."""

_MAX_BYTES = 2**26  # largest JSON file that is read
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


class DamagedError(ValueError):
    """A file or folder does not hold what was written there. The message names it."""

    def __init__(self, path: pathlib.Path, reason: str):
        super().__init__(f"{path} is damaged: {reason}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> Any:  # so that it can be sent to the other processes of a mesh
        return type(self), (self.path, self.reason)


def as_folder(folder: Any, name: str) -> pathlib.Path:
    """Returns a folder as a path.

    Args:
        folder: The folder that was given.
        name: Its name in messages.

    Raises:
        TypeError: If the folder is neither text nor a path.
        ValueError: If the folder is an empty text.
    """
    return _as_path(folder, name, "folder", " Give '.' for the current folder.")


def as_file(file: Any, name: str) -> pathlib.Path:
    """Returns a file as a path. Arguments and errors are those of `as_folder`."""
    return _as_path(file, name, "file")


def _as_path(path: Any, name: str, kind: str, advice: str = "") -> pathlib.Path:
    if not isinstance(path, str | os.PathLike) or isinstance(path, bytes):
        raise TypeError(f"{name} must be a {kind}, as text or as a path, got {shown(path)}.")
    if not os.fspath(path):
        raise ValueError(f"{name} must be the path of a {kind}, got an empty text.{advice}")
    return pathlib.Path(path)


def write_file(path: pathlib.Path, write: Write) -> None:
    """Writes a file. A reader sees the old contents or the new contents, also after a loss of power."""
    with replaced_files({path: write}):
        pass


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text file. A reader sees the old text or the new text."""
    write_file(path, lambda file: file.write(text.encode()))


def write_json(path: pathlib.Path, facts: Mapping[str, Any]) -> None:
    """Writes JSON-able facts and their checksum."""
    facts = json.loads(json.dumps(facts))  # in the form that they will be read in
    write_text(path, json.dumps({**facts, "checksum": _checksum(facts)}, indent=1))


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads what `write_json` wrote.

    Raises:
        FileNotFoundError: If nothing exists at the path.
        DamagedError: If the path holds anything that `write_json` did not write.
    """
    with opened(path) as file:
        text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES} bytes")
        facts = json.loads(text)
        if not isinstance(facts, dict) or facts.pop("checksum", None) != _checksum(facts):
            raise ValueError("its checksum does not match")
    return facts


@contextlib.contextmanager
def opened(path: pathlib.Path, digest: str | None = None) -> Iterator[io.BufferedReader]:
    """Opens a file for reading. An error in the block means that the file is damaged.

    Args:
        path: The file.
        digest: The checksum that the file must have. A file beside its place with this checksum is accepted too. With
            `None`, there is no check.

    Raises:
        FileNotFoundError: If nothing exists at the path.
        DamagedError: If the path is not a regular file, has another checksum, or the block raises.
    """
    with damage_of(path), contextlib.ExitStack() as stack:
        yield _open(stack, path) if digest is None else _find(stack, path, digest)


@contextlib.contextmanager
def damage_of(path: pathlib.Path) -> Iterator[None]:
    """Raises a `DamagedError` of the file in place of any other error in the block, except for a missing file.

    Nothing is known about what a reader may raise on bytes that cannot be trusted.
    """
    try:
        yield
    except (DamagedError, FileNotFoundError):
        raise
    except Exception as error:
        reason = " ".join((str(error) or type(error).__name__).split()).rstrip(".")
        raise DamagedError(path, f"{reason}.") from error


@contextlib.contextmanager
def replaced_files(files: Mapping[pathlib.Path, Write | None]) -> Iterator[dict[str, str]]:
    """Writes files beside their places, yields their checksums by name, and moves them into place at the end.

    The block writes the index. From then on, the new files count. If it fails before, nothing changes.

    Args:
        files: For each path, the function that writes the file. With `None`, the file is removed.
    """
    digests = {}
    try:
        for path, write in files.items():
            if write is not None:
                digests[path.name] = _write_beside(path, write)
        _sync_folders(files)
    except BaseException:
        for path in files:
            remove(beside(path))
        raise
    yield digests  # if the block fails, the new files stay, because it may have replaced the index already
    for path, write in files.items():
        if write is None:
            remove(path)
            continue
        if path.is_dir():
            remove(path)
        beside(path).replace(path)
    _sync_folders(files)


def write_parts(folder: pathlib.Path, index: str, facts: Mapping[str, Any], parts: Mapping[str, Write | None]) -> None:
    """Writes an index and the files that belong to it. The old files stay until all new files are there.

    Args:
        folder: The folder, which must exist. Its other content stays.
        index: The name of the index, a JSON file.
        facts: The content of the index, besides checksums.
        parts: For each other file, the function that writes it. With `None`, the file is removed.
    """
    with replaced_files({folder / name: write for name, write in parts.items()}) as digests:
        write_json(folder / index, {**facts, "files": digests})


def read_parts(folder: pathlib.Path, index: str, read: Callable[[dict[str, Any], Mapping[str, str]], T]) -> T:
    """Reads what `write_parts` wrote, also while another process is writing it.

    Args:
        folder: The folder.
        index: The name of the index, a JSON file.
        read: Called with the facts and the checksums by name. It opens the other files with these checksums.

    Raises:
        FileNotFoundError: If there is no index.
        DamagedError: If the index is damaged, or `read` raises this error.
    """
    facts = read_json(folder / index)
    while True:
        before = json.dumps(facts)
        try:
            digests = facts.pop("files", None)
            if not isinstance(digests, dict) or not all(isinstance(x, str) for x in digests.values()):
                raise DamagedError(folder / index, "it names no files.")
            return read(facts, digests)
        except (DamagedError, FileNotFoundError) as error:
            facts = read_json(folder / index)
            if json.dumps(facts) == before:  # no other process has replaced it meanwhile
                if isinstance(error, FileNotFoundError):
                    raise DamagedError(pathlib.Path(error.filename), "it is missing.") from None
                raise


def checked_name(name: object) -> str:
    """Returns a name that was read from a file, if it is safe as part of a path.

    Raises:
        ValueError: If the name is not safe, because it could lead out of the folder.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"A name of letters, digits, '_', '-' and '.' was expected, which can be part of a path, got {name!r}."
        )
    return name


def checked(facts: Mapping[str, Any], **types: Any) -> list[Any]:
    """Returns the facts with the given names, if they have the given types.

    `float` includes whole numbers. Whole numbers must fit in 64 bits.

    Raises:
        ValueError: If a fact is missing, has another type, or is too large.
    """
    values = []
    for name, type in types.items():
        if name not in facts:
            raise ValueError(f"{name!r} is missing.")
        value = facts[name]
        allowed = (int, float) if type is float else type
        if not isinstance(value, allowed) or (isinstance(value, bool) and type in (int, float)):
            raise ValueError(f"{name!r} is of type {value.__class__.__name__}.")
        if type in (int, float) and isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError(f"{name!r} is too large a number.")
        values.append(value)
    return values


def beside(path: pathlib.Path) -> pathlib.Path:
    """Returns the path where a file is written before it is moved into place."""
    return path.with_name(f".{path.name}.new")


def below(root: pathlib.Path, *names: str) -> pathlib.Path:
    """Returns the path of a folder or a file below a folder. Checks the names.

    Raises:
        ValueError: If a name is not safe as part of a path.
        DamagedError: If the path leads through a link.
    """
    path = root
    for name in names:
        path = path / checked_name(name)
        with damage_of(path):
            if path.is_symlink():
                raise ValueError("it is a link")
    return path


def make_below(root: pathlib.Path, *names: str) -> pathlib.Path:
    """Makes a folder below `root`, and makes `root` if it is missing.

    A link on the way is damage, and is removed. A file on the way may be the user's, so it is renamed.
    """
    root.mkdir(parents=True, exist_ok=True)
    path = root
    for name in names:
        path = path / checked_name(name)
        if path.is_symlink():
            path.unlink()
        elif path.exists() and not path.is_dir():
            path.replace(path.with_name(f"{name}.old"))
        path.mkdir(exist_ok=True)
    return path


def remove(path: pathlib.Path) -> None:
    """Removes a file, a link or a whole folder, if it exists. The target of a link stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def named_once(errors: Iterable[Exception]) -> str:
    """Returns the messages of several errors on one line."""
    return " ".join(" ".join(str(error).split()) for error in errors)


def _checksum(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _open(stack: contextlib.ExitStack, path: pathlib.Path) -> io.BufferedReader:
    """Opens a regular file. Refuses others: a pipe would block, a device may never end, a link may lead anywhere."""
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode):
        raise ValueError("it is a link." if stat.S_ISLNK(mode) else "it is not a file.")
    return stack.enter_context(path.open("rb"))


def _find(stack: contextlib.ExitStack, path: pathlib.Path, digest: str) -> io.BufferedReader:
    """Opens the file with a checksum, at its place or beside it."""
    problem: Exception | None = None
    for place in (path, beside(path)):
        try:
            file = _open(stack, place)
            if hashlib.file_digest(file, "sha256").hexdigest() == digest:
                file.seek(0)
                return file
            raise ValueError("its checksum does not match.")
        except (OSError, ValueError) as error:
            problem = problem or error
    raise problem or ValueError


def _write_beside(path: pathlib.Path, write: Write) -> str:
    """Writes a file beside its place and returns its checksum."""
    place = beside(path)
    remove(place)  # a killed process may have left it, or it is a link that writing would follow
    try:
        with place.open("x+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        error.filename = error.filename or str(path)  # the error of a full disk names no file
        raise


def _sync_folders(files: Iterable[pathlib.Path]) -> None:
    """Flushes the names of files to the disk, if the system can."""
    if os.name == "nt":
        return
    for folder in {path.parent for path in files}:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
