"""Checkpoints through orbax: written to a temporary folder and renamed, so that a kill leaves the previous one."""

import logging
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.describe import is_key


class Checkpointer:
    """Saves and restores the progress of one run, the newest two checkpoints kept.

    Args:
        folder: Where the checkpoints go; created if missing.
        identity: What tells the run from others.

    Raises:
        ValueError: If the folder is a file, or holds the checkpoint of another run.
    """

    def __init__(self, folder: str | pathlib.Path, identity: str):
        ocp = _orbax()
        self.folder = pathlib.Path(folder).resolve()
        self.identity = identity
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ValueError(f"Checkpoints need a folder, but {self.folder} is a file.") from error
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, step: int, carry: Any, record: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
        """Saves the device state, the record so far and JSON-able facts about the run."""
        args = _orbax().args
        items = args.Composite(
            carry=args.StandardSave(_pack(carry)),
            record=args.StandardSave(record),
            meta=args.JsonSave({"identity": self.identity, **meta}),
        )
        self._manager.save(step, args=items, force=True)

    def restore(self, carry: Any) -> tuple[Any, dict[str, np.ndarray], dict[str, Any]] | None:
        """Returns the newest checkpoint, or None; `carry` gives structure, dtypes and placement."""
        ocp = _orbax()
        step = self._manager.latest_step()
        if step is None:
            return None
        meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
        if meta["identity"] != self.identity:
            raise ValueError(
                f"The checkpoint in {self.folder} is of another run (other settings, key or initial solution). "
                "Choose another folder, or delete this one to start anew."
            )
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _pack(carry))
        args = ocp.args.Composite(carry=ocp.args.StandardRestore(abstract), record=ocp.args.StandardRestore())
        restored = self._manager.restore(step, args=args)
        record = {name: np.asarray(value) for name, value in restored.record.items()}
        # By way of the host: orbax pins its arrays to a device, for which everything would be compiled anew.
        return _unpack(jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), restored.carry), carry), record, meta

    def close(self) -> None:
        """Releases what orbax holds."""
        self._manager.close()


def save_tree(folder: str | pathlib.Path, tree: Any) -> None:
    """Saves a pytree of arrays to a folder, replacing what is there."""
    with _orbax().StandardCheckpointer() as checkpointer:
        checkpointer.save(pathlib.Path(folder).resolve(), {"tree": _pack(tree)}, force=True)


def load_tree(folder: str | pathlib.Path) -> Any:
    """Loads what `save_tree` saved: dicts and lists of NumPy arrays.

    Raises:
        FileNotFoundError: If there is nothing at this place.
    """
    path = pathlib.Path(folder).resolve()
    if not path.is_dir():
        raise FileNotFoundError(f"No saved solution at {path}.")
    with _orbax().StandardCheckpointer() as checkpointer:
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


def _orbax() -> Any:
    # Imported when needed, so that `import zoo` stays cheap. Orbax reports every save, and warns of each restore
    # without a target structure, which is meant here.
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)
    return ocp
