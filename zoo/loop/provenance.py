"""Records what a run was: settings as JSON, versions, device and commit. A fingerprint tells two runs apart."""

import dataclasses
import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.keys import as_key, is_key
from zoo.core.settings import internal_fields


def describe_settings(instance: Any) -> dict[str, Any]:
    """Returns the settings of a strategy or problem as JSON-able values, by name.

    Arrays become shape, dtype and a hash; functions become their qualified names.
    """
    described = {"class": f"{type(instance).__module__}:{type(instance).__qualname__}"}
    hidden = internal_fields(type(instance))
    for field in dataclasses.fields(instance):
        if field.name in hidden:
            continue
        described[field.name] = describe_value(getattr(instance, field.name))
    return described


def describe_value(value: Any) -> Any:
    """Returns a JSON-able description of a value; see `describe_settings`."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (np.generic, np.ndarray, jax.Array)):
        array = np.asarray(jax.random.key_data(value) if is_key(value) else value)  # pyright: ignore[reportArgumentType]
        if array.ndim == 0:
            return array.item()
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:16]
        return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest}
    if isinstance(value, dict):
        return {str(k): describe_value(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [describe_value(v) for v in value]
    if isinstance(value, functools.partial):
        return {
            "partial": describe_value(value.func),
            "args": describe_value(value.args),
            **describe_value(value.keywords),
        }
    if callable(value) and hasattr(value, "__qualname__"):
        return _describe_function(value)
    if dataclasses.is_dataclass(value) and not type(value).__module__.startswith("flax.linen"):
        fields = [f for f in dataclasses.fields(value) if f.name not in ("parent", "name")]  # flax's own
        return {
            "class": type(value).__qualname__,
            **{f.name: describe_value(getattr(value, f.name)) for f in fields},
        }
    if type(value).__repr__ is object.__repr__:  # its text is an address
        return {"class": type(value).__qualname__, **describe_value(getattr(value, "__dict__", {}))}
    return repr(value)


def describe_key(key: jax.Array) -> Any:
    """Returns a random key as JSON-able values, from which `key_from` makes it again. A key of a seed is that seed."""
    generator, data = str(jax.random.key_impl(key)), np.asarray(jax.random.key_data(key))
    if key.ndim == 0 and generator == str(jax.random.key_impl(jax.random.key(0))):
        seed = functools.reduce(lambda number, word: number << 32 | word, data.tolist())
        if seed < 2**31 and np.array_equal(jax.random.key_data(jax.random.key(seed)), data):
            return seed
    return {"generator": generator, "data": data.tolist()}


def key_from(described: Any) -> jax.Array:
    """Returns the random key that `describe_key` described.

    Raises:
        ValueError: If the description does not describe a key.
    """
    try:
        if not isinstance(described, dict):
            return as_key(described)
        return jax.random.wrap_key_data(jnp.asarray(described["data"], jnp.uint32), impl=described["generator"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError(f"Expected a stored random key, a seed or a generator and data, got {described!r}.") from None


def _describe_function(function: Any) -> str:
    """Returns a function's name. Adds a hash of its code if the name is not unique, as for a lambda."""
    name = f"{function.__module__}:{function.__qualname__}"
    code = getattr(function, "__code__", None)
    if code is None or "<" not in function.__qualname__:
        return name
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != types.CellType()]
    # Functions in its closure are described by name, because they may call each other, or themselves.
    cells = [getattr(cell, "__qualname__", cell) for cell in cells]
    constants = [c for c in code.co_consts if isinstance(c, (bool, int, float, str, bytes, type(None)))]
    state = [code.co_code.hex(), repr(constants), code.co_names, *map(describe_value, (cells, function.__defaults__))]
    return f"{name}#{fingerprint([*state, describe_value(function.__kwdefaults__)])}"


def describe_numbers() -> dict[str, Any]:
    """Returns the settings of JAX that decide numbers: precision, matrix product precision, and generator."""
    config: Any = jax.config  # its type does not list its entries
    generator = str(config.jax_default_prng_impl)
    return {
        "precision": 64 if config.jax_enable_x64 else 32,
        "matmul precision": str(config.jax_default_matmul_precision or "default"),
        "generator": generator if config.jax_threefry_partitionable else f"{generator}, not partitionable",
    }


def fingerprint(description: Any) -> str:
    """Returns a short hash of a JSON-able description."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]


def _describe_environment() -> dict[str, Any]:
    """Returns versions, device, compiler flags and git commit."""
    packages = ("es-zoo", "jax", "jaxlib", "flax", "optax", "gymnax", "bbobax", "numpy")
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    device = jax.devices()[0]
    return {
        "versions": {"python": platform.python_version(), **versions},
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """Returns the commit of the zoo's own checkout. Returns `None` if it was installed from a distribution."""
    root = pathlib.Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def make_metadata(**facts: Any) -> dict[str, Any]:
    """Returns metadata of work that starts now: date, versions, device and commit, besides the given facts."""
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"date": date, **_describe_environment(), **facts}
