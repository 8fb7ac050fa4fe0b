"""Checkpoints through orbax: written to a temporary folder and renamed, so that a kill leaves the previous one."""

import logging
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from zoo.core.keys import is_key
from zoo.core.sharding import from_first_process, gather
from zoo.loop.identity import Identity


class Checkpointer:
    """Saves and restores the progress of one run, the newest two checkpoints kept.

    Args:
        folder: Where the checkpoints go; created if missing.
        identity: What tells the run from others.
        accept_versions: Whether to go on from what another version of the zoo or of JAX saved.
        mesh: The mesh that the run is on. Of several processes that share it, which all make the same calls, the first
            writes and reads for all.

    Raises:
        ValueError: If the folder is a file, or holds the checkpoint of another run.
    """

    def __init__(
        self,
        folder: str | pathlib.Path,
        identity: Identity,
        mesh: Mesh | None = None,
        *,
        accept_versions: bool = False,
    ):
        self.folder = pathlib.Path(folder).resolve()
        self.identity = identity
        self._accept_versions = accept_versions
        self._mesh = mesh
        self._manager: Any = None
        from_first_process(mesh, self._open)

    def _open(self) -> None:
        ocp = _orbax()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ValueError(f"Checkpoints need a folder, but {self.folder} is a file.") from error
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, enable_async_checkpointing=False, create=False, multiprocessing_options=_this_process()
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, step: int, carry: Any, record: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
        """Saves the device state, the record so far and JSON-able facts about the run."""
        carry = gather(_pack(carry))
        if self._manager is None:
            return
        args = _orbax().args
        items = args.Composite(
            carry=args.StandardSave(jax.tree.map(np.asarray, carry)),
            record=args.StandardSave(record),
            meta=args.JsonSave({"identity": self.identity.facts(), **meta}),
        )
        self._manager.save(step, args=items, force=True)

    def restore(self, carry: Any) -> tuple[Any, dict[str, np.ndarray], dict[str, Any]] | None:
        """Returns the newest checkpoint, or None; `carry` gives structure, dtypes and placement."""
        packed = _pack(carry)
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), packed)
        restored = from_first_process(self._mesh, lambda: self._restore(abstract))
        if restored is None:
            return None

        def place(x: np.ndarray, old: jax.Array) -> jax.Array:
            # Where nothing is split an array is left free to be anywhere: the program was compiled for such.
            return jnp.asarray(x) if self._mesh is None else jax.device_put(x, old.sharding)

        stored, record, meta = restored
        return _unpack(jax.tree.map(place, stored, packed), carry), record, meta

    def _restore(self, carry: Any) -> tuple[Any, dict[str, np.ndarray], dict[str, Any]] | None:
        """Returns what is stored, in NumPy arrays."""
        ocp = _orbax()
        step = self._manager.latest_step()
        if step is None:
            return None
        meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
        complaint = f"The checkpoint in {self.folder} is of another run"
        self.identity.check(meta.get("identity"), complaint, accept_versions=self._accept_versions)
        args = ocp.args.Composite(carry=ocp.args.StandardRestore(carry), record=ocp.args.StandardRestore())
        restored = self._manager.restore(step, args=args)
        record = {name: np.asarray(value) for name, value in restored.record.items()}
        return jax.tree.map(np.asarray, restored.carry), record, meta

    def close(self) -> None:
        """Releases what orbax holds."""
        if self._manager is not None:
            self._manager.close()


def save_tree(folder: str | pathlib.Path, tree: Any) -> None:
    """Saves a pytree of arrays to a folder, replacing what is there."""
    with _orbax().StandardCheckpointer(multiprocessing_options=_this_process()) as checkpointer:
        tree = jax.tree.map(np.asarray, _pack(tree))
        checkpointer.save(pathlib.Path(folder).resolve(), {"tree": tree}, force=True)


def load_tree(folder: str | pathlib.Path) -> Any:
    """Loads what `save_tree` saved: dicts and lists of NumPy arrays.

    Raises:
        FileNotFoundError: If there is nothing at this place.
    """
    path = pathlib.Path(folder).resolve()
    if not path.is_dir():
        raise FileNotFoundError(f"No saved solution at {path}.")
    with _orbax().StandardCheckpointer(multiprocessing_options=_this_process()) as checkpointer:
        return jax.tree.map(np.asarray, checkpointer.restore(path)["tree"])


def _pack(tree: Any) -> Any:
    """Replaces random keys by their data, which is what can be stored."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def _unpack(tree: Any, like: Any) -> Any:
    return jax.tree.map(
        lambda x, old: jax.random.wrap_key_data(x, impl=jax.random.key_impl(old)) if is_key(old) else x,
        tree,
        like,
    )


def _this_process() -> Any:
    """Returns the options with which orbax waits for no other process."""
    process = jax.process_index()
    return _orbax().options.MultiprocessingOptions(primary_host=process, active_processes={process})


def _orbax() -> Any:
    # Imported when needed, so that `import zoo` stays cheap. Orbax reports every save, and warns of each restore
    # without a target structure, which is meant here.
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)
    return ocp
