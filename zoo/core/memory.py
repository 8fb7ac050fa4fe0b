"""Sizes of memory. Large allocations are checked beforehand, because a failed one may take the whole machine down."""

import math
import os
from typing import Any

import jax


def total_memory() -> int | None:
    """Returns the memory of all devices in bytes, or `None` if it is not known."""
    try:
        stats = jax.devices()[0].memory_stats()  # None on a CPU
    except jax.errors.JaxRuntimeError:
        stats = None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] * jax.device_count()
    if jax.default_backend() != "cpu" or not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def num_bytes(tree: Any) -> int:
    """Returns the size in bytes of a pytree of arrays or of `jax.ShapeDtypeStruct`."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def say_bytes(number: int) -> str:
    """Returns a number of bytes in words.

    >>> say_bytes(4_398_046_511_104)
    '4 TiB'
    """
    number = min(number, 2**80)  # the division of a larger integer could overflow
    power = min(int(math.log2(max(number, 1)) / 10), 5)
    return f"{number / 1024**power:.3g} {['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'][power]}"
