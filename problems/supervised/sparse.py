"""Sparse networks: each weight or block of weights has a score, and a mask keeps the highest scores of each layer.

The network is sparse from its first step. A mask is not a smooth function of its scores. So an evolution strategy
optimises the scores while the weights follow the gradient (`hybrid`), as in Lenc, Elsen, Schaul, Simonyan 2019, arXiv
1906.03139. The parametrisation of the masks is our own.
"""

import dataclasses
import io
import math
import numbers
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.problems.networks import Network

if TYPE_CHECKING:
    import os

    import pandas as pd

__all__ = ["SparseNetwork", "load_sparse"]


@dataclasses.dataclass(frozen=True)
class SparseNetwork:
    """A network that uses only a fraction of its weights. Problems can use it like any other network.

    Its parameters are `{"weights": weights of the network, "scores": {path: array}}`. Leaves of two or more dimensions
    are masked, each separately. The kept weights are multiplied by sqrt(number of blocks / kept blocks), so that
    activations keep their size.

    Attributes:
        network: The dense network.
        density: Fraction of the blocks that each layer keeps, in (0, 1]. Each layer keeps at least one block.
        block: Rows and columns of the blocks that share a score. They are the last two dimensions of a leaf, such as
            input and output channels of a convolution.
        dense: Regular expression. Leaves whose path contains it stay dense, for example `"Dense_2"`. With `None`, masks
            all leaves of two or more dimensions.

    Raises:
        ValueError: If a setting is out of range, or no leaf is left to mask.
    """

    network: Network
    density: float
    block: tuple[int, int] = (1, 1)
    dense: str | None = None

    def __post_init__(self) -> None:
        """Checks the settings."""
        is_number = isinstance(self.density, numbers.Real) and not isinstance(self.density, bool)
        if not is_number or not 0 < self.density <= 1:
            raise ValueError(f"SparseNetwork.density must be a fraction in (0, 1], got {self.density!r}.")
        object.__setattr__(self, "density", float(self.density))
        try:
            re.compile(self.dense or "")
        except (re.error, TypeError) as error:
            raise ValueError(
                f"SparseNetwork.dense must be a regular expression, got {self.dense!r}: {error}."
            ) from None
        block = (self.block, self.block) if isinstance(self.block, int) else self.block
        if (
            not isinstance(block, (tuple, list))
            or len(block) != 2
            or not all(isinstance(b, int) and b >= 1 for b in block)
        ):
            raise ValueError(f"SparseNetwork.block must be two positive whole numbers, got {self.block!r}.")
        object.__setattr__(self, "block", tuple(block))

    @property
    def suggestions(self) -> dict[str, Any]:
        """Settings of `hybrid` that work well: Adam for the weights, OpenAI-ES for the scores."""
        base = {"id": "open_es", "population_size": 8, "sigma": 0.3, "learning_rate": 0.03}
        return {"hybrid": {"es_leaves": "scores", "base": base, "learning_rate": 0.003}}

    def init(self, key: jax.Array, inputs: jax.Array) -> dict[str, Any]:
        """Returns the network's initial parameters and standard normal scores."""
        key_weights, key_scores = jax.random.split(key)
        weights = self.network.init(key_weights, inputs)
        scores = {
            path: jax.random.normal(jax.random.fold_in(key_scores, i), self._grid(x.shape), x.dtype)
            for i, (path, x) in enumerate(_leaves(weights).items())
            if x.ndim >= 2 and not (self.dense and re.search(self.dense, path))
        }
        if not scores:
            raise ValueError(
                "SparseNetwork expects a leaf of two or more dimensions that does not match "
                f"dense={self.dense!r}, got {', '.join(_leaves(weights))}."
            )
        return {"weights": weights, "scores": scores}

    def apply(self, params: dict[str, Any], inputs: jax.Array) -> jax.Array:
        """Returns the outputs of the masked network."""
        return self.network.apply(self.masked_weights(params), inputs)

    def masks(self, params: dict[str, Any]) -> dict[str, jax.Array]:
        """Returns the masks, booleans in the shapes of the weights, by path."""
        weights, scores = _leaves(params["weights"]), params["scores"]
        counts = [num_kept(score.size, self.density) for score in scores.values()]
        kept = zip(scores, top_masks([*scores.values()], counts), strict=True)
        return {path: self._spread(mask, weights[path].shape) for path, mask in kept}

    def masked_weights(self, params: dict[str, Any]) -> Any:
        """Returns parameters of the dense network: exact zeros for masked weights, and the kept weights scaled."""
        masks = self.masks(params)

        def mask(path: Any, x: jax.Array) -> jax.Array:
            kept = masks.get(_name(path))
            if kept is None:
                return x
            num_blocks = math.prod(self._grid(x.shape))
            scale = math.sqrt(num_blocks / num_kept(num_blocks, self.density))
            return jnp.where(kept, x * scale, 0)

        return jax.tree_util.tree_map_with_path(mask, params["weights"])

    def report(self, params: dict[str, Any]) -> "pd.DataFrame":
        """Returns the number of kept weights per layer, and a last row for all masked layers.

        The columns are `layer`, `kept`, `total` and `fraction`.
        """
        import pandas as pd

        rows = [(path, int(mask.sum()), mask.size) for path, mask in self.masks(params).items()]
        rows.append(("all", sum(row[1] for row in rows), sum(row[2] for row in rows)))
        table = pd.DataFrame(rows, columns=["layer", "kept", "total"])
        return table.assign(fraction=table.kept / table.total)

    def export(self, params: dict[str, Any], path: "str | os.PathLike[str]") -> None:
        """Saves the sparse model to an `.npz` file. `load_sparse` reads it back as parameters of the dense network.

        Masked leaves are stored as flat indices and values of the kept weights. The other leaves are stored whole.

        Args:
            params: Parameters, such as the mean of a run.
            path: The file.
        """
        masks = self.masks(params)
        arrays: dict[str, np.ndarray] = {}
        for name, x in _leaves(self.masked_weights(params)).items():
            if name in masks:
                indices = np.flatnonzero(masks[name])
                arrays |= {
                    f"indices:{name}": indices.astype(np.uint32 if x.size < 2**32 else np.uint64),
                    f"values:{name}": _storable(x).reshape(-1)[indices],
                    f"shape:{name}": np.asarray(x.shape),
                }
            else:
                arrays[f"dense:{name}"] = _storable(x)
        with pathlib.Path(path).open("wb") as file:
            np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]

    def _grid(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of a leaf's scores, one per whole or partial block."""
        rows, columns = self.block
        return (*shape[:-2], -(-shape[-2] // rows), -(-shape[-1] // columns))

    def _spread(self, kept: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Returns the mask of the weights, given the mask of the blocks."""
        rows, columns = self.block
        if rows > 1:
            kept = jnp.repeat(kept, rows, axis=-2)[..., : shape[-2], :]
        if columns > 1:
            kept = jnp.repeat(kept, columns, axis=-1)[..., : shape[-1]]
        return kept


def load_sparse(path: "str | os.PathLike[str]", params: Any) -> Any:
    """Returns parameters of the dense network from a file that `SparseNetwork.export` wrote.

    Args:
        path: The file.
        params: Parameters of the dense network. Only their structure, shapes and dtypes are used.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds other leaves or shapes, or is damaged.
    """
    try:
        return _load_sparse(path, params)
    except Exception as error:  # NumPy may raise any exception for bytes that are not in its format
        if isinstance(error, FileNotFoundError) or str(path) in str(error):
            raise
        raise ValueError(f"{path} is damaged, or is not a sparse network: {error or type(error).__name__}.") from error


def _load_sparse(path: "str | os.PathLike[str]", params: Any) -> Any:
    largest = sum(x.size * (x.dtype.itemsize + 8) + 2**16 for x in jax.tree.leaves(params))
    with np.load(path, allow_pickle=False) as file:
        if sum(entry.file_size for entry in file.zip.infolist()) > largest:
            raise ValueError(f"{path} holds more data than the network has.")
        for name in file.zip.namelist():
            _check_size(io.BytesIO(file.zip.read(name)))
        arrays = dict(file)
    names = {name.partition(":")[2] for name in arrays}
    if names != set(_leaves(params)):
        raise ValueError(f"{path} holds {', '.join(sorted(names))}, but the network has {', '.join(_leaves(params))}.")

    def restore(key_path: Any, x: Any) -> jax.Array:
        name = _name(key_path)
        dense = arrays.get(f"dense:{name}")
        shape = tuple(arrays[f"shape:{name}"].tolist()) if dense is None else dense.shape
        if shape != x.shape:
            raise ValueError(f"{path} holds {name} of shape {shape}, but the network's is {x.shape}.")
        if dense is None:
            values = arrays[f"values:{name}"]
            dense = np.zeros(shape, values.dtype)
            dense.reshape(-1)[arrays[f"indices:{name}"]] = values
        return jnp.asarray(dense, x.dtype)

    return jax.tree_util.tree_map_with_path(restore, params)


def _check_size(entry: io.BytesIO) -> None:
    """Raises a `ValueError` if an array's size differs from its header: NumPy would allocate the header's size."""
    np.lib.format.read_magic(entry)
    shape, _, dtype = np.lib.format.read_array_header_1_0(entry)
    if dtype.itemsize > 16 or math.prod(shape) * dtype.itemsize != len(entry.getbuffer()) - entry.tell():
        raise ValueError(f"the size of an array does not fit its shape {shape} and dtype {dtype}")


def num_kept(num_blocks: int, density: float) -> int:
    """Returns the number of blocks that a layer keeps: the nearest whole number, at least one."""
    return max(round(num_blocks * density), 1)


def top_masks(scores: Sequence[jax.Array], counts: Sequence[int | jax.Array]) -> list[jax.Array]:
    """Returns masks of the highest scores of each array, with exactly the given number of true entries.

    Among equal scores, the first ones are kept. NaN counts as the lowest score. Scores are compared in single
    precision. Bisection finds the thresholds of all arrays together in about twenty passes over the numbers. On CPU
    this takes less time than sorting, and the time does not grow with the counts.

    Args:
        scores: Arrays of any shapes.
        counts: Number of entries to keep in each array, at least one.
    """
    orders = [_order(x) for x in scores]
    goal = jnp.stack([jnp.asarray(count, jnp.int32) for count in counts])

    def bisect(num_kept_at: Callable[[jax.Array], jax.Array], low: jax.Array, high: jax.Array) -> jax.Array:
        """Returns a bound per array with the wanted count, or else the highest bound with a larger count."""

        def is_open(bracket: tuple[jax.Array, ...]) -> jax.Array:
            low, high, found = bracket
            return jnp.any((found != goal) & (_middle(low, high) != low))

        def halve(bracket: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            low, high, found = bracket
            middle = jnp.where(found == goal, low, _middle(low, high))
            there = num_kept_at(middle)
            enough = there >= goal
            return jnp.where(enough, middle, low), jnp.where(enough, high, middle), jnp.where(enough, there, found)

        return jax.lax.while_loop(is_open, halve, (low, high, num_kept_at(low)))[0]

    def above(bounds: jax.Array) -> jax.Array:
        return jnp.stack([jnp.sum(x >= bound, dtype=jnp.int32) for x, bound in zip(orders, bounds, strict=True)])

    lowest, highest = (jnp.stack([extreme(x) for x in orders]) for extreme in (jnp.min, jnp.max))
    thresholds = bisect(above, lowest, highest + 1)

    # If equal scores lie on the threshold, keeps those up to an index. Usually there are none, and this takes no pass.
    def kept_before(x: jax.Array, threshold: jax.Array, end: jax.Array) -> jax.Array:
        return (x > threshold) | ((x == threshold) & (jnp.arange(x.size, dtype=end.dtype) < end))

    def before(ends: jax.Array) -> jax.Array:
        rows = zip(orders, thresholds, -ends, strict=True)
        return jnp.stack([jnp.sum(kept_before(*row), dtype=jnp.int32) for row in rows])

    sizes = jnp.asarray([x.size for x in orders], jnp.int32)
    ends = -bisect(before, -sizes, jnp.zeros_like(sizes))
    rows = zip(scores, orders, thresholds, ends, strict=True)
    return [kept_before(order, threshold, end).reshape(x.shape) for x, order, threshold, end in rows]


def _order(scores: jax.Array) -> jax.Array:
    """Returns a flat array of whole numbers with the same order as the scores."""
    flat = jax.lax.stop_gradient(scores).astype(jnp.float32).reshape(-1)
    flat = jnp.where(jnp.isnan(flat), -jnp.inf, jnp.where(flat == 0, 0, flat))  # no negative zero
    bits = jax.lax.bitcast_convert_type(flat, jnp.int32)
    return jnp.where(bits < 0, bits ^ np.int32(2**31 - 1), bits)


def _middle(low: jax.Array, high: jax.Array) -> jax.Array:
    """Returns the middle of two whole numbers, rounded down, without overflow."""
    return (low & high) + ((low ^ high) >> 1)


def _storable(x: jax.Array) -> np.ndarray:
    """Returns a NumPy array. NumPy's files cannot store bfloat16, and single precision holds it exactly."""
    return np.asarray(x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _leaves(params: Any) -> dict[str, Any]:
    return {_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}
