"""Compiled programs kept on disk, where the next process finds them."""

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

    Call it at the start of a script or a notebook; the command line does so by itself. It is JAX's persistent
    compilation cache with a place, a limit and no lower bound: programs are found by their text, their compiler options
    and the version of jaxlib. Whoever may write into the folder may run code in your processes.

    Args:
        folder: Where to keep them; default: the one JAX is set to (`JAX_COMPILATION_CACHE_DIR`), else `ZOO_CACHE_DIR`,
            else `es-zoo` in the user's cache folder. They go into a subfolder for this jaxlib and kind of processor.
            Several processes may use it at once.
        max_bytes: Size of the subfolder from which on the programs that were unused for longest are dropped.

    Returns:
        The subfolder, or the folder that JAX was set to, which is left as it is.

    Raises:
        ValueError: If the folder cannot be written to, or `max_bytes` is not positive.

    >>> import zoo
    >>> folder = zoo.use_compilation_cache()
    """
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1:
        raise ValueError(f"max_bytes must be a positive whole number, got {max_bytes!r}.")
    if folder is None:
        config: Any = jax.config  # whose type does not list its entries
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
    compilation_cache.reset_cache()  # or what is compiled next goes where the last cache was
    return path


def _processor() -> str:
    """Returns a digest of what the processor can do, which a compiled program depends on and JAX's keys leave out."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.lower().startswith(("flags", "features"))), platform.processor())
    return hashlib.sha256(f"{platform.machine()} {features}".encode()).hexdigest()[:8]


def _tidy(root: pathlib.Path, path: pathlib.Path) -> None:
    """Drops what a killed process left half written, and what other versions of jaxlib have not used for long."""
    with filelock.FileLock(path / ".lockfile", timeout=60):  # JAX's own, under which it writes: nobody does now
        for program in path.glob("*-cache"):
            used = program.with_name(program.name.removesuffix("-cache") + "-atime")
            if not used.is_file():  # it is written last
                program.unlink()
    for other in root.glob("jaxlib-*"):
        days = (time.time() - max(x.stat().st_mtime for x in (other, *other.iterdir()))) / 86_400
        if other != path and days > _UNUSED_DAYS:
            shutil.rmtree(other, ignore_errors=True)
