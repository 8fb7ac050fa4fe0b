"""Files and folders that others may damage, and that are written whole or not at all, whatever interrupts the writing.

A file is written beside its place, flushed to the disk, and renamed into place. Of several files that belong together
one is the index: it holds the checksums of the others. All are written beside their places first, then the index is
replaced, then the others take their places. So at any moment the index finds all that it promises, in place or beside.

What is read may have been damaged, or written by somebody hostile. It is never followed out of its folder: links count
as damage, and names from files are checked before they become part of a path.
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
"""Writes the contents of a file."""

_MAX_BYTES = 2**26  # of a JSON file, to be read whole
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


class DamagedError(ValueError):
    """A file or folder is not what was written there; the message names it."""

    def __init__(self, path: pathlib.Path, reason: str):
        super().__init__(f"{path} is damaged: {reason}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> Any:  # or it could not be sent to the other processes of a mesh
        return type(self), (self.path, self.reason)


def as_folder(folder: Any, name: str) -> pathlib.Path:
    """Returns a folder that was given under a name as a path.

    Raises:
        TypeError: If it is neither text nor a path.
        ValueError: If it is empty.
    """
    if not isinstance(folder, str | os.PathLike) or isinstance(folder, bytes):
        raise TypeError(f"{name} must be a folder, as text or as a path, got {shown(folder)}.")
    if not os.fspath(folder):
        raise ValueError(f"{name} must be a folder, got an empty text. The one that Python runs in is '.'.")
    return pathlib.Path(folder)


def write_file(path: pathlib.Path, write: Write) -> None:
    """Writes a file: a reader sees the old contents or the new ones, also after a loss of power."""
    with replaced_files({path: write}):
        pass


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text file: a reader sees the old text or the new one."""
    write_file(path, lambda file: file.write(text.encode()))


def write_json(path: pathlib.Path, facts: Mapping[str, Any]) -> None:
    """Writes JSON-able facts, with their checksum."""
    facts = json.loads(json.dumps(facts))  # as they will be read
    write_text(path, json.dumps({**facts, "checksum": _checksum(facts)}, indent=1))


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads what `write_json` wrote.

    Raises:
        FileNotFoundError: If there is nothing at this place.
        DamagedError: If it is anything else.
    """
    with opened(path) as file:
        text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES} bytes")
        facts = json.loads(text)
        if facts.pop("checksum") != _checksum(facts):
            raise ValueError("its checksum is another")
    return facts


@contextlib.contextmanager
def opened(path: pathlib.Path, digest: str | None = None) -> Iterator[io.BufferedReader]:
    """Opens a file to read what was promised there. Whatever goes wrong in the block is damage of this file.

    Args:
        path: The file.
        digest: The checksum that it must have, if any. A file beside its place that has it will do.

    Raises:
        FileNotFoundError: If there is nothing at this place.
        DamagedError: If it is no regular file, has another checksum, or if anything goes wrong in the block.
    """
    with damage_of(path), contextlib.ExitStack() as stack:
        yield _open(stack, path) if digest is None else _find(stack, path, digest)


@contextlib.contextmanager
def damage_of(path: pathlib.Path) -> Iterator[None]:
    """Takes whatever goes wrong in the block for damage of a file: a reader may raise anything over others' bytes."""
    try:
        yield
    except (DamagedError, FileNotFoundError):
        raise
    except Exception as error:
        reason = " ".join((str(error) or type(error).__name__).split()).rstrip(".")
        raise DamagedError(path, f"{reason}.") from error


@contextlib.contextmanager
def replaced_files(files: Mapping[pathlib.Path, Write | None]) -> Iterator[dict[str, str]]:
    """Writes files beside their places, yields their checksums by name, and at the end moves them into place.

    The block writes the index, which is the moment from which on they count. If it fails, nothing changes.

    Args:
        files: What writes each; `None`: the file is removed.
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
    yield digests  # if the block fails they stay, as the index may have been replaced by then
    for path, write in files.items():
        if write is None:
            remove(path)
            continue
        if path.is_dir():
            remove(path)
        beside(path).replace(path)
    _sync_folders(files)


def write_parts(folder: pathlib.Path, index: str, facts: Mapping[str, Any], parts: Mapping[str, Write | None]) -> None:
    """Writes a folder of an index and of files that belong to it; the old ones are there until all new ones are.

    Args:
        folder: The folder, which exists; what else is in it stays.
        index: The name of the JSON file.
        facts: What is in it, besides checksums.
        parts: What writes each of the other files; `None`: there is none of this name.
    """
    with replaced_files({folder / name: write for name, write in parts.items()}) as digests:
        write_json(folder / index, {**facts, "files": digests})


def read_parts(folder: pathlib.Path, index: str, read: Callable[[dict[str, Any], Mapping[str, str]], T]) -> T:
    """Reads what `write_parts` wrote, also while another process is writing it.

    Args:
        folder: The folder.
        index: The name of the JSON file.
        read: Gets the facts, and checksums by name, with which it may open the other files.

    Raises:
        FileNotFoundError: If there is no index.
        DamagedError: If it is damaged, or `read` says so.
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
            if json.dumps(facts) == before:  # nobody has replaced it meanwhile
                if isinstance(error, FileNotFoundError):
                    raise DamagedError(pathlib.Path(error.filename), "it is missing.") from None
                raise


def checked_name(name: object) -> str:
    """Returns a name that was read from a file, if it may become part of a path.

    Raises:
        ValueError: If it may not: it would lead elsewhere.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"A name of letters, digits, '_', '-' and '.' was expected, which may be that of a folder; got {name!r}."
        )
    return name


def checked(facts: Mapping[str, Any], **types: Any) -> list[Any]:
    """Returns facts by name, if they are of the types promised.

    `float` means whole numbers too. Whole numbers have to fit in 64 bits.

    Raises:
        ValueError: If one is missing or of another type.
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
    """Returns where a file is written before it takes its place."""
    return path.with_name(f".{path.name}.new")


def below(root: pathlib.Path, *names: str) -> pathlib.Path:
    """Returns the path of a folder or a file below a folder, of names that were checked.

    Raises:
        DamagedError: If it leads through a link.
    """
    path = root
    for name in names:
        path = path / checked_name(name)
        with damage_of(path):
            if path.is_symlink():
                raise ValueError("it is a link")
    return path


def make_below(root: pathlib.Path, *names: str) -> pathlib.Path:
    """Makes a folder below another, which may be missing too.

    A link on the way was damage, and goes. So may be a file; but as it may be somebody's, it is renamed.
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
    """Removes a file, a link or a whole folder, if there is one; what a link points to stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def named_once(errors: Iterable[Exception]) -> str:
    """Returns the messages of several errors as one line."""
    return " ".join(" ".join(str(error).split()) for error in errors)


def _checksum(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _open(stack: contextlib.ExitStack, path: pathlib.Path) -> io.BufferedReader:
    """Opens a regular file: a pipe would block, a device would never end, a link leads elsewhere."""
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode):
        raise ValueError("it is a link." if stat.S_ISLNK(mode) else "it is no file.")
    return stack.enter_context(path.open("rb"))


def _find(stack: contextlib.ExitStack, path: pathlib.Path, digest: str) -> io.BufferedReader:
    """Opens a file of that checksum, at its place or beside it."""
    problem: Exception | None = None
    for place in (path, beside(path)):
        try:
            file = _open(stack, place)
            if hashlib.file_digest(file, "sha256").hexdigest() == digest:
                file.seek(0)
                return file
            raise ValueError("its checksum is another.")
        except (OSError, ValueError) as error:
            problem = problem or error
    raise problem or ValueError


def _write_beside(path: pathlib.Path, write: Write) -> str:
    """Writes a file beside its place and returns its checksum."""
    place = beside(path)
    remove(place)  # left behind by a process that was killed; or a link, which writing would follow
    try:
        with place.open("x+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk has no name
        raise


def _sync_folders(files: Iterable[pathlib.Path]) -> None:
    """Flushes the names of files to the disk, where the system can."""
    if os.name == "nt":
        return
    for folder in {path.parent for path in files}:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
