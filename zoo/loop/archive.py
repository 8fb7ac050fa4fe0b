"""Stores a pytree of arrays and facts about it in one `.npz` file, which NumPy reads too. The file may be untrusted.

The file has one entry per array, and `facts.json`. It is not compressed, so no entry is larger than the file. It stores
no classes: a tree is read back as dicts and lists of arrays, and random keys as their data.
"""

import io
import json
import math
import pathlib
import zipfile
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.keys import is_key
from zoo.loop.files import Write, opened

_FACTS = "facts.json"
_RAW = {1: np.uint8, 2: np.uint16}  # NumPy stores dtypes that it does not know, such as bfloat16, as these


def archive(tree: Any, facts: dict[str, Any] | None = None) -> Write:
    """Returns a function that writes a pytree of arrays, and JSON-able facts about it, to a file."""
    leaves: list[np.ndarray] = []
    structure = _as_json(tree, leaves)
    described = {"tree": structure, "dtypes": [x.dtype.name for x in leaves], "facts": facts or {}}
    text = json.dumps(described)

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as entries:
            entries.writestr(zipfile.ZipInfo(_FACTS), text)
            for number, leaf in enumerate(leaves):
                raw = leaf if leaf.dtype.kind in "biufc" else leaf.view(_RAW[leaf.dtype.itemsize])
                with entries.open(zipfile.ZipInfo(f"{number}.npy"), "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, raw, allow_pickle=False)

    return write


def load_archive(path: str | pathlib.Path, digest: str | None = None) -> tuple[Any, dict[str, Any]]:
    """Loads what `archive` wrote: dicts and lists of NumPy arrays, and the facts.

    Args:
        path: The file.
        digest: The checksum of the file, if it is known.

    Raises:
        FileNotFoundError: If nothing exists at the path.
        DamagedError: If the path holds anything that `archive` did not write.
    """
    with opened(pathlib.Path(path), digest) as file:
        return _read(file)


def _read(file: BinaryIO) -> tuple[Any, dict[str, Any]]:
    size = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as entries:
        infos = entries.infolist()
        if sum(x.file_size for x in infos) > size or any(x.compress_type != zipfile.ZIP_STORED for x in infos):
            raise ValueError("its entries are larger than the file.")
        described = json.loads(entries.read(_FACTS))
        facts = described["facts"]
        if not isinstance(facts, dict):
            raise ValueError("it has no facts.")
        leaves = [_array(entries.read(f"{i}.npy"), name) for i, name in enumerate(described["dtypes"])]
    return _from_json(described["tree"], leaves), facts


def _array(data: bytes, name: str) -> np.ndarray:
    """Returns the array of a `.npy` file. Checks its shape before it allocates memory."""
    header = io.BytesIO(data)
    if np.lib.format.read_magic(header) != (1, 0):
        raise ValueError("an array has an unknown version of the .npy format.")
    shape, is_fortran, stored = np.lib.format.read_array_header_1_0(header)
    dtype = jnp.dtype(name)
    is_number = jnp.issubdtype(dtype, np.number) or jnp.issubdtype(dtype, np.bool_)
    if not is_number or stored.itemsize != dtype.itemsize or stored.hasobject:
        raise ValueError(f"an array has dtype {stored}, but its entry says {name}.")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data) - header.tell():
        raise ValueError(f"an array does not have the size of its shape {shape}.")
    array = np.frombuffer(data[header.tell() :], stored).view(dtype)
    return array.reshape(shape, order="F" if is_fortran else "C").copy()


def _as_json(tree: Any, leaves: list[np.ndarray]) -> Any:
    """Returns a pytree as dicts and lists of the indices of its leaves. Appends the leaves to `leaves`."""
    children = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: x is not tree)
    if [path for path, _ in children] == [()]:
        leaves.append(np.asarray(jax.random.key_data(tree) if is_key(tree) else tree, order="C"))
        return len(leaves) - 1
    if tree is None:
        return None
    keys = [path[0] for path, _ in children]
    values = [_as_json(child, leaves) for _, child in children]
    if isinstance(tree, (tuple, list)) and all(isinstance(key, jax.tree_util.SequenceKey) for key in keys):
        return values
    return {jax.tree_util.keystr((key,), simple=True): value for key, value in zip(keys, values, strict=True)}


def _from_json(structure: Any, leaves: list[np.ndarray]) -> Any:
    if structure is None:
        return None
    if isinstance(structure, list):
        return [_from_json(x, leaves) for x in structure]
    if isinstance(structure, dict):
        return {name: _from_json(x, leaves) for name, x in structure.items()}
    if not isinstance(structure, int) or structure < 0:
        raise ValueError("its tree structure is invalid.")
    return leaves[structure]
