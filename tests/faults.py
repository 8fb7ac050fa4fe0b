"""Faults of saved files: damage, and contents that an attacker could put there, for any file.

The saved data are in `thing/` of a sandbox. Nothing done with them may change `outside/`.
"""

import contextlib
import errno
import io
import json
import os
import pathlib
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from zoo.loop.files import read_json, remove, write_json

MARKUP = "<script>alert(1)</script>[red]`|\x1b[31m\n# x"
_NUM_FAULTS = 12  # per file
HEADER = {"descr": "<f4", "fortran_order": False}


class Sandbox:
    """A copy of saved data, and a folder beside it that must not change."""

    def __init__(self, folder: pathlib.Path, thing: pathlib.Path):
        self.folder, self._original = folder, thing
        self.thing, self.outside = folder / "thing", folder / "outside"
        self.outside.mkdir()
        (self.outside / "round_00.npz").write_text("mine")
        shutil.copytree(thing, self.outside / "copy")
        self._before = snapshot(self.outside)

    def reset(self, name: str | None = None) -> None:
        """Restores the saved data, or one of its files."""
        if name is None or not self.thing.is_dir():
            shutil.rmtree(self.thing, ignore_errors=True)
            shutil.copytree(self._original, self.thing)
        else:
            remove(self.thing / name)
            shutil.copyfile(self._original / name, self.thing / name)

    def check(self) -> None:
        assert snapshot(self.outside) == self._before
        names = {path.name for path in self.folder.iterdir()}
        assert names <= {"thing", "outside", "saved"}, names


def snapshot(folder: pathlib.Path) -> dict[str, tuple[int, bytes | None]]:
    return {
        str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
    }


def files_of(thing: pathlib.Path) -> list[str]:
    return [
        str(path.relative_to(thing)) for path in sorted(thing.rglob("*")) if path.is_file() and path.name != ".lock"
    ]


# Damage: written data are missing or changed.


def damages(sandbox: Sandbox, name: str) -> dict[str, Callable[[pathlib.Path], object]]:
    def half(path: pathlib.Path) -> None:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def flip(path: pathlib.Path) -> None:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))

    def link(path: pathlib.Path) -> None:
        path.unlink()
        path.symlink_to(sandbox.outside / "copy" / name)

    def pipe(path: pathlib.Path) -> None:
        path.unlink()
        os.mkfifo(path)

    def folder(path: pathlib.Path) -> None:
        path.unlink()
        path.mkdir()

    def line_less(path: pathlib.Path) -> None:
        path.write_bytes(b"\n".join(path.read_bytes().split(b"\n")[:-2]) + b"\n")

    return {
        "truncated": half,
        "emptied": lambda path: path.write_bytes(b""),
        "garbage": lambda path: path.write_bytes(np.random.default_rng(0).bytes(500)),
        "one bit": flip,
        "one line less": line_less,
        "link": link,
        "pipe": pipe,
        "folder": folder,
        "missing": lambda path: path.unlink(),
        "nested": lambda path: path.write_text("[" * 100_000),
    }


# Hostile contents with correct checksums.


def hostile_values(sandbox: Sandbox) -> list[Any]:
    outside = str(sandbox.outside)
    paths = ["..", "../outside", "../../outside", outside, f"{outside}/round_00", "", ".", "con\x00"]
    return [*paths, MARKUP, None, -1, 10**9, 10**30, 1e308, True, [], {}, [10**9] * 9, "O"]


def hostile_jsons(facts: Any, values: list[Any]) -> Iterator[Any]:
    """Yields the facts with each value replaced by each of `values`, and with each entry left out."""
    if isinstance(facts, dict):
        for name, value in facts.items():
            yield {other: x for other, x in facts.items() if other != name}
            for changed in (*values, *hostile_jsons(value, values)):
                yield {**facts, name: changed}
        yield {**facts, "../outside": 1, MARKUP: 1}
    if isinstance(facts, list):
        for number, value in enumerate(facts[:3]):
            for changed in (*values, *hostile_jsons(value, values)):
                yield [*facts[:number], changed, *facts[number + 1 :]]
        yield [*facts, *facts]


def some_hostile_files(path: pathlib.Path, values: list[Any]) -> list[Callable[[pathlib.Path], object]]:
    """Returns a sample of the hostile files, because there are thousands. With `ALL_FAULTS` set, returns all."""
    files = list(hostile_files(path, values))
    if os.environ.get("ALL_FAULTS") or len(files) <= _NUM_FAULTS:
        return files
    chosen = np.random.default_rng(0).choice(len(files), _NUM_FAULTS, replace=False)
    return [files[number] for number in sorted(chosen)]


def hostile_files(path: pathlib.Path, values: list[Any]) -> Iterator[Callable[[pathlib.Path], object]]:
    """Yields functions that write hostile contents into a JSON file or an archive."""
    if path.suffix == ".json":
        for facts in hostile_jsons(read_json(path), values):
            yield lambda place, facts=facts: write_json(place, facts)
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        for facts in hostile_jsons(json.loads(entries["facts.json"]), values):
            yield lambda place, facts=facts: write_zip(place, {**entries, "facts.json": json.dumps(facts).encode()})
        for array in hostile_arrays():
            for name in [name for name in entries if name.endswith(".npy")][:2]:
                yield lambda place, name=name, array=array: write_zip(place, {**entries, name: array})
        yield lambda place: write_zip(place, {**entries, "../../outside/round_00.npz": b"theirs"})
        yield lambda place: write_zip(place, entries, zipfile.ZIP_DEFLATED)


def hostile_arrays() -> Iterator[bytes]:
    for shape in ((2**40,), (2**62, 2**62), (-1,), (10**9, 0), (0,), ()):
        yield npy({**HEADER, "shape": shape}, bytes(8))
    for descr in ("|O", "<f8", "|S8", "<c16", [("a", "<f4")], f"|V{2**31}"):
        yield npy({**HEADER, "descr": descr, "shape": (1,)}, bytes(8))
    yield b"\x93NUMPY\x01\x00\xff\xff"
    yield b"\x93NUMPY\x03\x00\x04\x00\x00\x00{}  "
    yield b""


def npy(header: dict[str, Any], data: bytes) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + data


def write_zip(path: pathlib.Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


@contextlib.contextmanager
def gathered() -> Iterator[list[str]]:
    """Yields a list that gets, at the end, the messages of all warnings and of an expected error."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield messages
        except (ValueError, FileNotFoundError) as error:
            messages.append(str(error))
    messages += [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]


def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the disk read-only, also for root."""
    real = os.open

    def refusing(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return real(path, flags, *args, **kwargs)

    def refused(path: Any, *_args: Any, **_kwargs: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    monkeypatch.setattr(os, "open", refusing)
    for name in ("mkdir", "unlink", "rename", "replace", "rmdir"):
        monkeypatch.setattr(os, name, refused)
