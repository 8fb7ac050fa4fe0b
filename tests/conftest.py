"""Settings and fixtures for all tests."""

import collections
import importlib.metadata
import importlib.util
import os
import pathlib

# These flags must be set before JAX starts. One thread per worker, so that workers do not fight for the cores. Little
# optimisation, because the suite spends its time compiling programs that run for milliseconds. The flags change speed,
# not semantics. An unknown flag aborts the process, and from jaxlib 0.11 on the flag for fusion emitters no longer
# exists. The caller's flags come last, so they win: `make test-isa` runs tests with others.
os.environ["XLA_FLAGS"] = " ".join(
    [
        "--xla_cpu_multi_thread_eigen=false",
        "--xla_backend_optimization_level=0",
        "--xla_cpu_parallel_codegen_split_count=1",
        "--xla_cpu_use_fusion_emitters=false" if importlib.metadata.version("jaxlib").startswith("0.10.") else "",
        os.environ.get("XLA_FLAGS", ""),
    ]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Implicit promotion of ranks and dtypes is an error, so that users who forbid it in their own code can use es-zoo.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
# Keeps compiled programs for the next run of the suite, and for the other worker. `make clean` drops them.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".cache" / "programs"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import gc
import gzip
import shutil
import struct

import jax
import numpy as np
import pytest

# Tracing makes many objects and few cycles, and looking for cycles took a tenth of the time.
gc.set_threshold(200_000, 50, 100)


collect_ignore = ["plug_in"]  # a separate package with its own tests: see `test_wheel.py`


def pytest_configure(config):
    # An environment made for another checkout would mix its strategies with es-zoo from this one.
    here = pathlib.Path(__file__).resolve().parents[1] / "strategies" / "__init__.py"
    found = importlib.util.find_spec("zoo.strategies")
    if found is None or found.origin is None or pathlib.Path(found.origin).resolve() != here:
        where = "is not installed" if found is None else f"has its strategies in {found.origin}"
        pytest.exit(f"The zoo {where}. Install this checkout with `make test` or `pip install -e .`.", returncode=4)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def pytest_sessionstart(session):
    programs = pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    if not hasattr(session.config, "workerinput") and programs.is_dir():
        size = sum(path.stat().st_size for path in programs.iterdir())
        if size > 2**31:
            shutil.rmtree(programs)


def pytest_terminal_summary(terminalreporter):
    """Prints the ten slowest files, as candidates when the suite exceeds its time budget."""
    seconds = collections.Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration"):
                seconds[report.nodeid.partition("::")[0]] += report.duration
    terminalreporter.write_sep("=", f"{sum(seconds.values()):.0f} s of tests; the slowest files")
    for file, total in seconds.most_common(10):
        terminalreporter.write_line(f"{total:7.1f} s  {file}")


_LOOK_EVERY = 25
_MAX_MAPS = 30_000  # Linux allows 65 530
_num_tests = 0


def _num_maps() -> int:
    """Returns the number of memory maps of this process (each compiled program takes ten or more), or 0 if unknown."""
    maps = pathlib.Path("/proc/self/maps")
    return maps.read_bytes().count(b"\n") if maps.exists() else 0


@pytest.fixture(autouse=True)
def _forget_programs():
    """Drops compiled programs now and then, because thousands exhaust the memory maps and crash the process."""
    yield
    global _num_tests
    _num_tests += 1
    if _num_tests % _LOOK_EVERY == 0 and _num_maps() > _MAX_MAPS:
        jax.clear_caches()


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def x64():
    """Switches double precision on for one test."""
    with jax.enable_x64(True):
        yield


def write_idx(path: pathlib.Path, array: np.ndarray, *, compress: bool) -> None:
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if compress else content)


@pytest.fixture(scope="session")
def idx_folder(tmp_path_factory):
    """Returns a data folder with a tiny dataset in the IDX format under each name of the MNIST family."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for number, name in enumerate(("mnist", "fashion_mnist", "kmnist")):
        (root / name).mkdir()
        for part, size in (("train", 20), ("t10k", 10)):
            suffix, compress = (".gz", True) if number else ("", False)
            images = rng.integers(0, 256, (size, 28, 28))
            write_idx(root / name / f"{part}-images-idx3-ubyte{suffix}", images, compress=compress)
            labels = np.arange(size) % 10
            write_idx(root / name / f"{part}-labels-idx1-ubyte{suffix}", labels, compress=compress)
    return root
