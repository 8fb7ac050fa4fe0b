"""Tells the user's code from the zoo's and from installed libraries, whose versions identify their code."""

import functools
import hashlib
import importlib.metadata
import pathlib
import sys
import sysconfig
from typing import Any

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_FOLDERS = tuple(sorted({str(pathlib.Path(sysconfig.get_path(name))) for name in ("stdlib", "platstdlib")}))
_SITE = ("site-packages", "dist-packages")
# Modules and folders that compute no results.
_ONLY_SHOWS = {"__main__.py", "cli.py", "plot.py", "figures", "reports", "summary.py", "contents.py", "comparison.py"}
_ONLY_SHOWS |= {"paired.py", "ranks.py", "profiles.py"}  # of zoo/statistics; what tuning chooses by is not among them


@functools.cache
def library_of_file(filename: str) -> str | None:
    """Returns the library that a source file belongs to: its name and version, such as "optax 0.2.8".

    Returns "zoo" and "python" for these two, and `None` for the user's code.
    """
    if filename.startswith("<frozen"):
        return "python"
    path = pathlib.PurePath(filename)
    if any(path.is_relative_to(folder) for folder in _our_folders()):
        return "zoo"
    for number, part in enumerate(path.parts[:-1]):
        if part in _SITE:
            return _distribution(path.parts[number + 1].partition(".")[0])
    return "python" if filename.startswith(_FOLDERS) else None


def library_of_module(name: str) -> str | None:
    """Returns the library and version of a module by its name: "zoo" for the zoo, and `None` for the user's code."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names and top != "__main__":
        return "python"
    module = sys.modules.get(name)
    if module is None or name == "__main__":
        return None
    filename = getattr(module, "__file__", None)
    return None if filename is None else library_of_file(filename)


def is_of_library(value: Any) -> bool:
    """Returns whether a function or a class is the object that a library, or the zoo, has under its name."""
    name, where = getattr(value, "__qualname__", None), getattr(value, "__module__", None)
    module = sys.modules.get(where) if isinstance(where, str) else None
    if not isinstance(name, str) or module is None or library_of_module(module.__name__) is None:
        return False
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is value


@functools.cache
def digest_of_sources() -> str:
    """Returns a digest of the zoo's source files, because in a checkout they change and the version does not."""
    digest, files = hashlib.sha256(), {}
    for path in (path for folder in _our_folders() for path in folder.rglob("*.py") if not _only_shows(path)):
        files[path.relative_to(_ROOT if path.is_relative_to(_ROOT) else _ROOT.parent).as_posix()] = path
    for name, path in sorted(files.items()):
        digest.update(f"{name}\n".encode() + path.read_bytes())
    return f"#{digest.hexdigest()[:16]}"


def _only_shows(path: pathlib.Path) -> bool:
    return path.name in _ONLY_SHOWS or path.parent.name in _ONLY_SHOWS


@functools.cache
def _our_folders() -> tuple[pathlib.Path, ...]:
    """Returns the folders of the zoo. In a checkout, strategies and problems lie beside `zoo/`."""
    parts = (_ROOT / "strategies", _ROOT / "problems")
    return (_ROOT, *(part if part.is_dir() else _ROOT.parent / part.name for part in parts))


@functools.cache
def _distribution(top: str) -> str:
    try:
        return f"{top} {importlib.metadata.version(top)}"
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(top, [])
        return " ".join([top, *(importlib.metadata.version(name) for name in sorted(set(names)))])
