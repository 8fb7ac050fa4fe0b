"""Paired timing: two programs take turns in one process, so that their ratio holds if the machine's speed drifts.

Imports and compilation are timed in new processes, which take turns as well.
"""

import dataclasses
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Paired:
    """Median seconds per call, and the ratio of the first program to the second, computed per round."""

    first: float
    second: float
    ratio: float  # median over rounds
    low: float  # quartiles of the ratio over rounds
    high: float


def time_paired(first: Callable[[], Any], second: Callable[[], Any], *, rounds: int = 15, settle: int = 0) -> Paired:
    """Times two programs in turn, A B A B ..., after two calls of each to compile and warm up.

    Makes `settle` calls without timing before each timed call. If a program frees much memory, the next program would
    otherwise pay for allocating its own again.
    """

    def seconds_of(program: Callable[[], Any]) -> float:
        for _ in range(settle):
            jax.block_until_ready(program())
        return _seconds(program)

    for program in (first, second):
        jax.block_until_ready(program())
        jax.block_until_ready(program())
    seconds = np.array([[seconds_of(first), seconds_of(second)] for _ in range(rounds)])
    ratios = seconds[:, 0] / seconds[:, 1]
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    first_seconds, second_seconds = np.median(seconds, axis=0)
    return Paired(first_seconds, second_seconds, middle, low, high)


def _seconds(program: Callable[[], Any]) -> float:
    clock = time.perf_counter()
    jax.block_until_ready(program())
    return time.perf_counter() - clock


def time_process(*arguments: str, cache: str | None = None) -> np.ndarray:
    """Returns wall and CPU seconds of a new Python process: `[2]`.

    Args:
        *arguments: Arguments of the Python interpreter.
        cache: Folder in which JAX keeps compiled programs. With `None`, JAX keeps none.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    if cache is not None:
        environment |= {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_CHILDREN)
    return np.array([wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime])
