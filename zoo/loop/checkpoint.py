"""Checkpoints: one file each. The newest two are kept, so that one is left if the other is damaged."""

import os
import pathlib
import warnings
from collections.abc import Callable
from typing import Any, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from zoo.core.keys import is_key
from zoo.core.sharding import from_first_process, gather, is_first_process
from zoo.loop.archive import archive, load_archive
from zoo.loop.files import DamagedError, checked, damage_of, named_once, remove, write_file
from zoo.loop.identity import Identity
from zoo.loop.lock import FolderLock

T = TypeVar("T")

_KEPT = 2
_PREFIX = "checkpoint_"  # other files may be the user's


class Checkpointer:
    """Saves and restores the progress of one run, in a `with` block. Keeps the newest two checkpoints.

    Args:
        folder: Where the checkpoints go. It is created if it is missing, and locked in the block.
        identity: The identity of the run.
        accept_versions: Whether to accept a checkpoint from another version of the zoo or of JAX.
        mesh: The mesh of the run. If several processes share it, all make the same calls, and the first process writes
            and reads for all.
    """

    def __init__(
        self,
        folder: str | pathlib.Path,
        identity: Identity,
        mesh: Mesh | None = None,
        *,
        accept_versions: bool = False,
    ):
        self.folder = pathlib.Path(folder).absolute()
        self.identity = identity
        self._accept_versions = accept_versions
        self._mesh = mesh
        self._lock = FolderLock(self.folder, "run(checkpoint=...)", mesh)
        self.is_empty = True
        """Whether the folder had no checkpoint at the start of the block."""

    def __enter__(self) -> Self:
        """Opens and locks the folder.

        Raises:
            ValueError: If the folder is a file, another process uses it, or it cannot be written and has no
                checkpoints.
        """
        self._lock.__enter__()
        try:
            self.is_empty = not from_first_process(self._mesh, lambda: _checkpoints(self.folder))
            if self.is_empty:
                self.check_writable()
        except BaseException:
            self._lock.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.__exit__()

    def check_writable(self) -> None:
        """Raises a `ValueError` if the folder cannot be written."""
        self._lock.check_writable()

    def save(self, step: int, carry: Any, record: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
        """Saves the device state, the record so far and JSON-able facts about the run."""
        carry = gather(_pack(carry))
        if not is_first_process(self._mesh):
            return
        tree = {"carry": jax.tree.leaves(carry), "record": record}
        write_file(_path(self.folder, step), archive(tree, {"identity": self.identity.facts(), **meta}))
        steps = _checkpoints(self.folder)
        for other in steps:
            # A later checkpoint was damaged, or the run would have gone on from it.
            if other > step or other in steps[: steps.index(step) + 1 - _KEPT]:
                remove(_path(self.folder, other))

    def restore(
        self, carry: Any, read: Callable[[dict[str, np.ndarray], dict[str, Any]], T]
    ) -> tuple[Any, T, dict[str, Any]] | None:
        """Returns the device state, the record and the facts of the newest intact checkpoint, or None.

        Args:
            carry: A device state with the structure, the dtypes and the placement to restore.
            read: Reads the record, given the record and the facts. If it raises, the checkpoint counts as damaged.

        Raises:
            ValueError: If the checkpoint belongs to another run.
        """
        packed = _pack(carry)
        like = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in jax.tree.leaves(packed)]
        restored = from_first_process(self._mesh, lambda: self._restore(like, read))
        if restored is None:
            return None

        def place(x: np.ndarray, old: jax.Array) -> jax.Array:
            # Without a mesh, arrays stay uncommitted to a device, because the program was compiled for such arrays.
            return jnp.asarray(x) if self._mesh is None else jax.device_put(x, old.sharding)

        leaves, record, meta = restored
        stored = jax.tree.unflatten(jax.tree.structure(packed), leaves)
        return _unpack(jax.tree.map(place, stored, packed), carry), record, meta

    def _restore(self, like: list[Any], read: Callable[..., T]) -> tuple[list[np.ndarray], T, dict[str, Any]] | None:
        """Returns the content of the newest intact checkpoint as NumPy arrays, or None. Warns of damaged ones."""
        damaged, found = [], None
        for step in reversed(_checkpoints(self.folder)):
            try:
                found = self._load(_path(self.folder, step), like, read)
                break
            except DamagedError as error:
                damaged.append(error)
        if damaged:
            way_out = "the run goes on from the one before" if found is not None else "the run starts anew"
            warnings.warn(f"{named_once(damaged)} So {way_out}.", stacklevel=2)
        return found

    def _load(
        self, path: pathlib.Path, like: list[Any], read: Callable[..., T]
    ) -> tuple[list[np.ndarray], T, dict[str, Any]]:
        tree, meta = load_archive(path)
        complaint = f"The checkpoint in {self.folder} is of another run"
        with damage_of(path):
            leaves, record, identity = checked({**tree, **meta}, carry=list, record=dict, identity=dict)
            expected = [(x.shape, x.dtype) for x in like]
            is_alike = [(np.shape(x), np.asarray(x).dtype) for x in leaves] == expected
        self.identity.check(identity, complaint, accept_versions=self._accept_versions)
        if not is_alike:
            raise ValueError(
                f"{complaint}: its arrays have other shapes or dtypes. Choose another folder, or delete this one to "
                "start anew."
            )
        with damage_of(path):
            return leaves, read(record, meta), meta


def drop_checkpoints(folder: pathlib.Path, *, after: int) -> None:
    """Removes the checkpoints of later generations than `after`."""
    for step in _checkpoints(folder):
        if step > after:
            remove(_path(folder, step))


def _checkpoints(folder: pathlib.Path) -> list[int]:
    """Returns the generations of the checkpoints in a folder, in increasing order."""
    names = (path.stem.removeprefix(_PREFIX) for path in folder.glob(f"{_PREFIX}*.npz"))
    numbers = [int(name) for name in names if name.isdecimal()]
    return sorted(step for step in numbers if os.path.lexists(_path(folder, step)))


def _path(folder: pathlib.Path, step: int) -> pathlib.Path:
    return folder / f"{_PREFIX}{step:08d}.npz"


def _pack(tree: Any) -> Any:
    """Replaces random keys by their data, because keys cannot be stored."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def _unpack(tree: Any, like: Any) -> Any:
    return jax.tree.map(
        lambda x, old: jax.random.wrap_key_data(x, impl=jax.random.key_impl(old)) if is_key(old) else x,
        tree,
        like,
    )
