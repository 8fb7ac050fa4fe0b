"""Reads the IDX files of the MNIST family (LeCun, Cortes, Burges: http://yann.lecun.com/exdb/mnist), gzipped or not."""

import gzip
import os
import pathlib
import struct
import zlib

import numpy as np

_PARTS = ("train-images", "train-labels", "t10k-images", "t10k-labels")


def load_idx_dataset(name: str, data_dir: str | os.PathLike[str] | None) -> tuple[np.ndarray, ...]:
    """Loads a dataset of the MNIST family.

    Args:
        name: Subfolder of the data folder, for example `"mnist"`. If a file is not there, it is read from the data
            folder itself.
        data_dir: Data folder. Defaults to `$ZOO_DATA`.

    Returns:
        Training images `[n, height, width]`, training labels `[n]`, test images and test labels, all as bytes.

    Raises:
        FileNotFoundError: If a file is missing. The message says which file, and where it was searched for.
        ValueError: If a file is damaged, or images and labels do not match.
    """
    folder = data_dir or os.environ.get("ZOO_DATA")
    if not folder:
        raise FileNotFoundError(
            f"The dataset {name!r} is read from a data folder: pass data_dir=..., or set $ZOO_DATA. It must have "
            f"{name}/train-images-idx3-ubyte(.gz) and the three other files of the dataset."
        )
    root = pathlib.Path(folder).expanduser()
    arrays = []
    for part in _PARTS:
        num_axes = 3 if part.endswith("images") else 1
        path = _find(root, name, f"{part}-idx{num_axes}-ubyte")
        arrays.append(_read_idx(path, num_axes))
        if num_axes == 1 and len(arrays[-1]) != len(arrays[-2]):
            raise ValueError(
                f"{path} has {len(arrays[-1])} labels for {len(arrays[-2])} images; expected one label per image."
            )
    return tuple(arrays)


def _find(root: pathlib.Path, name: str, stem: str) -> pathlib.Path:
    folders = (root / name, root)
    for folder in folders:
        for candidate in (folder / stem, folder / f"{stem}.gz"):
            if candidate.is_file():
                return candidate
    looked = " and ".join(str(folder.absolute()) for folder in folders)
    raise FileNotFoundError(f"Expected {stem} or {stem}.gz for the dataset {name!r}; looked in {looked}.")


def _read_idx(path: str | os.PathLike[str], num_axes: int) -> np.ndarray:
    """Reads one IDX file of bytes.

    Args:
        path: The file. It is read as gzip if its first bytes are gzip's.
        num_axes: Expected number of axes.

    Raises:
        ValueError: If the magic number or the length is wrong.
    """
    with open(path, "rb") as file:
        content = file.read()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path} is a damaged gzip file: {error}") from error
    magic = struct.pack(">HBB", 0, 8, num_axes)  # 8: unsigned bytes
    header = 4 + 4 * num_axes
    if content[:4] != magic:
        raise ValueError(
            f"{path} is not an IDX file of bytes with {num_axes} axes: expected magic number {magic.hex()}, got "
            f"{content[:4].hex() or 'an empty file'}."
        )
    if len(content) < header:
        raise ValueError(f"{path} is truncated: expected a header of {header} bytes, got {len(content)}.")
    shape = struct.unpack(f">{num_axes}I", content[4:header])
    expected = header + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        raise ValueError(f"{path} should have {expected} bytes for shape {shape}, but has {len(content)}.")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
