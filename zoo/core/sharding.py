"""Populations split over devices: each evaluates members of its own, and what is shared stays on all of them.

Inside `with jax.set_mesh(population_mesh()):` - or in `zoo.run(..., mesh=...)`, which does that - `map_members`
evaluates on every device the members that are its own, and sums over a population are sums of what each device adds up:
fitness is gathered and the update reduced once in a generation. Everything else is computed on every device alike.
"""

import functools
import pickle
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from zoo.core.checks import shown
from zoo.core.keys import is_key

AXIS = "population"
"""The name of the mesh axis that populations are split over."""

T = TypeVar("T")

# What JAX says of arrays that lie on a mesh of other axes, or types of axes, than that within a shard.
_SIGNS_OF_CLOSURE = ("Context mesh", "Closing over inputs to shard_map")


def population_mesh(devices: Sequence[Any] | int | None = None) -> Mesh:
    """Returns a mesh of devices that populations are split over.

    `zoo.run`, `zoo.minimize` and `zoo.benchmark` take it as `mesh`. A loop of one's own runs, jitted and unchanged,
    inside `with jax.set_mesh(mesh):`. A population has to be a multiple of the number of devices; of twice that number
    where antithetic partners share seeds or factors. What the fitness closes over must not have been put on a mesh:
    data that was is a leaf of the problem, or an argument of the jitted function around.

    Where several processes make up the mesh (`jax.distributed.initialize`), all run the same program.

    Args:
        devices: Devices, or how many of them; default: all, those of other processes included.

    Raises:
        ValueError: If there are not so many, or they are no devices.

    >>> import jax, zoo
    >>> mesh = zoo.population_mesh(1)
    >>> result = zoo.run("open_es", "blackbox/sphere", num_generations=10, mesh=mesh)
    """
    if devices is None or (isinstance(devices, int) and not isinstance(devices, bool)):
        count, devices = devices, jax.devices()
        if count is not None:
            if not 1 <= count <= len(devices):
                raise ValueError(f"population_mesh got {count} devices to use, but there are {len(devices)}.")
            devices = devices[:count]
    devices = list(devices) if isinstance(devices, (Sequence, np.ndarray)) else [devices]
    if not devices or not all(isinstance(device, jax.Device) for device in devices):
        raise ValueError(
            f"population_mesh expects devices, such as those of jax.devices(), or how many of them, got "
            f"{shown(devices)}. population_mesh() takes all."
        )
    return Mesh(np.asarray(devices).reshape(-1), (AXIS,), axis_types=(AxisType.Auto,))


def check_mesh(mesh: Any) -> Mesh:
    """Returns a mesh that populations can be split over.

    Raises:
        TypeError: If it is none.
        ValueError: If it leaves some of the processes out, which would wait for the others.
    """
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh must be a jax.sharding.Mesh, such as zoo.population_mesh(), got {mesh!r}.")
    if AXIS not in mesh.axis_names:
        raise TypeError(
            f"mesh needs an axis {AXIS!r}, which populations are split over, got axes {mesh.axis_names}. "
            "zoo.population_mesh() makes one."
        )
    processes = {device.process_index for device in mesh.devices.flat}
    if processes not in ({jax.process_index()}, set(range(jax.process_count()))):
        raise ValueError(
            f"mesh has devices of processes {sorted(processes)}, but this is process {jax.process_index()} of "
            f"{jax.process_count()}. Use devices of all processes, zoo.population_mesh(), or of this one alone, "
            "zoo.population_mesh(jax.local_devices())."
        )
    # Of explicit axes the types of all arrays would have to speak.
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Returns a pytree that programs on a mesh take, the same on all its devices.

    Where several processes share the mesh, each brings the same, on the host. (Arrays on the mesh would be no better:
    what a function on shards closes over must not be tied to the mesh around it.)
    """
    everywhere = NamedSharding(mesh, PartitionSpec())

    def put(x: Any) -> Any:
        if not isinstance(x, jax.Array):
            return x
        if not mesh.is_multi_process:
            return jax.device_put(x, everywhere) if x.committed else x
        if not is_key(x):
            return np.asarray(x)
        words = jax.device_put(np.asarray(jax.random.key_data(x)), everywhere)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(x))

    return jax.tree.map(put, tree)


def gather(tree: Any) -> Any:
    """Returns a pytree whose arrays are whole in this process, as NumPy arrays where other processes had parts of them.

    Of several processes all have to call it.
    """

    def whole(x: Any) -> Any:
        if not isinstance(x, jax.Array) or x.is_fully_addressable:
            return x
        if is_key(x):
            return jax.random.wrap_key_data(whole(jax.random.key_data(x)), impl=jax.random.key_impl(x))
        if x.is_fully_replicated:
            return np.asarray(x)
        return np.asarray(multihost_utils.process_allgather(x, tiled=True))

    return jax.tree.map(whole, tree)


def from_first_process(mesh: Mesh | None, fn: Callable[[], T]) -> T:
    """Returns `fn()`; where several processes share the mesh, only the first calls it and tells the others.

    So only the first needs the folder that is read. What `fn` raises, all raise: none is left waiting.

    Args:
        mesh: The mesh, or `None`.
        fn: A function whose result can be pickled.
    """
    if mesh is None or not mesh.is_multi_process:
        return fn()
    message = np.zeros(0, np.uint8)
    if is_first_process(mesh):
        try:
            outcome = (fn(), None)
        except Exception as error:
            outcome = (None, error)
        message = np.frombuffer(pickle.dumps(outcome), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.asarray(message.size, np.int32)))
    message = multihost_utils.broadcast_one_to_all(np.resize(message, size))
    value, error = pickle.loads(np.asarray(message).tobytes())
    if error is not None:
        raise error
    return value


def is_first_process(mesh: Mesh | None) -> bool:
    """Whether this process is the one, of those that share the mesh, that writes files and shows progress."""
    return mesh is None or not mesh.is_multi_process or jax.process_index() == 0


def keep_replicated(tree: Any) -> Any:
    """Returns a pytree whose arrays the compiler has to leave on all devices."""
    if num_shards() == 1:
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec()), tree)


def num_shards() -> int:
    """Returns how many devices populations are split over here: those of the mesh in use, or one."""
    mesh = jax.sharding.get_abstract_mesh()
    if AXIS not in mesh.axis_names or AXIS in mesh.manual_axes:  # within a shard there is nothing more to split
        return 1
    return mesh.shape[AXIS]


def on_shards(fn: Callable[..., Any], axes: Sequence[int | None], out_axis: int | None) -> Callable[..., Any]:
    """Returns a function of which each device computes a part.

    Args:
        fn: A function of pytrees of arrays.
        axes: For each argument the axis that is split, or `None` for what all devices have.
        out_axis: The axis along which results are put together; `None`: they are summed over the devices.
    """

    def spec(axis: int | None) -> PartitionSpec:
        return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, AXIS)

    def summed(*args: Any) -> Any:
        return jax.lax.psum(fn(*args), AXIS)

    specs = tuple(spec(axis) for axis in axes)
    local = fn if out_axis is not None else summed
    sharded = jax.shard_map(local, in_specs=specs, out_specs=spec(out_axis), axis_names={AXIS}, check_vma=False)

    @functools.wraps(fn)
    def call(*args: Any) -> Any:
        for axis, arg in zip(axes, args, strict=True):
            for x in jax.tree.leaves(arg) if axis is not None else ():
                check_divides(x.shape[axis], "A population (or its rows of noise)")
        try:
            return sharded(*args)
        except (ValueError, NotImplementedError) as error:
            if not any(sign in str(error) for sign in _SIGNS_OF_CLOSURE):
                raise
            raise ValueError(
                "A function of members closes over an array that was put on a mesh, which JAX cannot use within a "
                "shard. Close over the array as it was before (or np.asarray of it), make it an argument of the "
                "jitted function around, or a leaf of a problem: `data` of zoo.from_function."
            ) from error

    return call


def take(members: Any, index: Any) -> Any:
    """Returns row `index`, which may be traced, of stacked arrays that may be split over the devices.

    (Of split ones the compiler makes each device pick from its own rows, and adds up: one row is sent, not all.)
    """
    return jax.tree.map(lambda x: jnp.take(x, index, axis=0), members)


def check_divides(size: int, what: str) -> None:
    """Raises a `ValueError` if members cannot be shared out evenly."""
    if size % num_shards():
        raise ValueError(
            f"{what} of {size} cannot be divided among {num_shards()} devices. Use a multiple of {num_shards()} (of "
            f"{2 * num_shards()} where antithetic partners share what is divided), or a mesh of fewer devices: "
            "zoo.population_mesh(n)."
        )
