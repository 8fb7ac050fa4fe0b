"""Keeps compiled programs on disk, for the next process."""

import hashlib
import importlib.metadata
import os
import pathlib
import platform
import shutil
import time
from typing import Any

import filelock
import jax
import platformdirs
from jax.experimental.compilation_cache import compilation_cache

_UNUSED_DAYS = 30


def use_compilation_cache(folder: str | pathlib.Path | None = None, *, max_bytes: int = 2**30) -> pathlib.Path:
    """Keeps compiled programs in a folder, so that a later process need not compile them again.

    Call it at the start of a script or a notebook. The command line calls it by itself. It sets up JAX's persistent
    compilation cache with a folder and a size limit, and keeps programs however fast they compiled. JAX finds a program
    by its text, its compiler options and the version of jaxlib. Anybody who can write into the folder can run code in
    your processes.

    Args:
        folder: Where to keep the programs. Defaults to the folder that JAX is set to (`JAX_COMPILATION_CACHE_DIR`),
            else to `ZOO_CACHE_DIR`, else to `es-zoo` in the user's cache folder. Programs go into a subfolder for this
            version of jaxlib and this kind of processor. Several processes may use it at once.
        max_bytes: Largest size of the subfolder. Beyond it, the programs that were unused for longest are dropped.

    Returns:
        The subfolder. If JAX was already set to a folder, returns that folder and changes nothing.

    Raises:
        ValueError: If the folder cannot be written to, or `max_bytes` is not a positive whole number.

    >>> import zoo
    >>> folder = zoo.use_compilation_cache()
    """
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1:
        raise ValueError(f"max_bytes must be a positive whole number, got {max_bytes!r}.")
    if folder is None:
        config: Any = jax.config  # its type does not list its entries
        configured = config.jax_compilation_cache_dir
        if configured:
            return pathlib.Path(configured)
        folder = os.environ.get("ZOO_CACHE_DIR") or platformdirs.user_cache_dir("es-zoo")
    root = pathlib.Path(folder).expanduser().resolve()
    path = root / f"jaxlib-{importlib.metadata.version('jaxlib')}-{_processor()}"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _tidy(root, path)
    except OSError as error:
        raise ValueError(f"Compiled programs cannot be kept in {root}: {error}. Name another folder.") from error
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_compilation_cache_max_size", max_bytes)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.reset_cache()  # otherwise JAX goes on with the folder of an earlier cache
    return path


def _processor() -> str:
    """Returns a digest of the processor's features. Compiled programs depend on them, but JAX's cache keys do not."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.lower().startswith(("flags", "features"))), platform.processor())
    return hashlib.sha256(f"{platform.machine()} {features}".encode()).hexdigest()[:8]


def _tidy(root: pathlib.Path, path: pathlib.Path) -> None:
    """Drops programs that a killed process left half written, and subfolders that have been unused for 30 days."""
    with filelock.FileLock(path / ".lockfile", timeout=60):  # JAX writes under this lock
        for program in path.glob("*-cache"):
            used = program.with_name(program.name.removesuffix("-cache") + "-atime")
            if not used.is_file():  # JAX writes this file last
                program.unlink()
    for other in root.glob("jaxlib-*"):
        days = (time.time() - max(x.stat().st_mtime for x in (other, *other.iterdir()))) / 86_400
        if other != path and days > _UNUSED_DAYS:
            shutil.rmtree(other, ignore_errors=True)
