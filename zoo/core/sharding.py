"""Splits populations over devices. Each device evaluates its own members and has a copy of all shared arrays.

Use it inside `with jax.set_mesh(population_mesh()):`, or by `zoo.run(..., mesh=...)`. Then `map_members` evaluates on
each device only the members of that device. A sum over the population adds the partial sums of the devices. So each
generation gathers the fitness once and reduces the update once. Every device computes all the rest itself.
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

# Words of JAX's errors about an array whose mesh has other axes, or other types of axes, than the mesh inside a shard.
_SIGNS_OF_CLOSURE = ("Context mesh", "Closing over inputs to shard_map")


def population_mesh(devices: Sequence[Any] | int | None = None) -> Mesh:
    """Returns a mesh of devices that populations are split over.

    `zoo.run`, `zoo.minimize` and `zoo.benchmark` take it as `mesh`. Your own jitted loop runs unchanged inside
    `with jax.set_mesh(mesh):`. The population size must be a multiple of the number of devices, or of twice that number
    if antithetic partners share seeds or factors. A fitness function must not close over arrays that were put on a
    mesh. Make such arrays a leaf of the problem, or an argument of the jitted function around it.

    If the mesh has devices of several processes (`jax.distributed.initialize`), all processes run the same program.

    Args:
        devices: Devices, or a number of devices. Defaults to all devices of all processes.

    Raises:
        ValueError: If there are fewer devices than that, or `devices` contains anything but devices.

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
            f"population_mesh expects devices, such as jax.devices(), or a number of devices, got {shown(devices)}. "
            "population_mesh() takes all devices."
        )
    return Mesh(np.asarray(devices).reshape(-1), (AXIS,), axis_types=(AxisType.Auto,))


def check_mesh(mesh: Any) -> Mesh:
    """Returns the mesh, with automatic axis types, if populations can be split over it.

    Raises:
        TypeError: If `mesh` is not a mesh with a population axis.
        ValueError: If the mesh has devices of some processes but not of all. The processes would wait for each other.
    """
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh must be a jax.sharding.Mesh, such as zoo.population_mesh(), got {mesh!r}.")
    if AXIS not in mesh.axis_names:
        raise TypeError(
            f"mesh must have an axis {AXIS!r}, along which populations are split, got axes {mesh.axis_names}. "
            "zoo.population_mesh() makes such a mesh."
        )
    processes = {device.process_index for device in mesh.devices.flat}
    if processes not in ({jax.process_index()}, set(range(jax.process_count()))):
        raise ValueError(
            f"mesh has devices of processes {sorted(processes)}, but this is process {jax.process_index()} of "
            f"{jax.process_count()}. Use devices of all processes, zoo.population_mesh(), or of this process only, "
            "zoo.population_mesh(jax.local_devices())."
        )
    # Explicit mesh axes would require sharding types on every array.
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Returns a pytree in the form that programs on a mesh take, with equal values on all devices.

    If several processes share the mesh, each passes the same NumPy arrays. Arrays on the mesh would not work, because
    a function on shards must not close over arrays that are tied to the mesh around it.
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
    """Returns a pytree with whole arrays in this process. Arrays that were split over processes become NumPy arrays.

    All processes must call it.
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
    """Returns `fn()`. If several processes share the mesh, only the first calls it and sends the result to the others.

    So only the first process needs the folder that `fn` reads. If `fn` raises, all processes raise the error.

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
    """Whether this process writes files and shows progress. Only one of the processes that share a mesh does."""
    return mesh is None or not mesh.is_multi_process or jax.process_index() == 0


def keep_replicated(tree: Any) -> Any:
    """Returns the pytree with the constraint that the compiler keeps its arrays replicated on all devices."""
    if num_shards() == 1:
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec()), tree)


def num_shards() -> int:
    """Returns the number of devices that the current mesh splits populations over, or one without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if AXIS not in mesh.axis_names or AXIS in mesh.manual_axes:  # inside a shard the axis is split already
        return 1
    return mesh.shape[AXIS]


def on_shards(fn: Callable[..., Any], axes: Sequence[int | None], out_axis: int | None) -> Callable[..., Any]:
    """Returns a function that runs `fn` on each device with that device's part of the arguments.

    Args:
        fn: A function of pytrees of arrays.
        axes: For each argument the axis that is split, or `None` for an argument that every device gets whole.
        out_axis: The axis along which the results are concatenated. With `None`, sums the results over the devices.
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
                "A function of members closes over an array that was put on a mesh. JAX cannot use it within a shard. "
                "Close over the original array (or np.asarray of it), make it an argument of the jitted function "
                "around it, or make it a leaf of the problem: `data` of zoo.from_function."
            ) from error

    return call


def take(members: Any, index: Any) -> Any:
    """Returns row `index` of stacked arrays, which may be split over the devices. `index` may be traced.

    For split arrays the compiler lets each device pick from its own rows and adds the results, so only one row is sent.
    """
    return jax.tree.map(lambda x: jnp.take(x, index, axis=0), members)


def check_divides(size: int, what: str) -> None:
    """Raises a `ValueError` if the devices cannot get equal numbers of members."""
    if size % num_shards():
        raise ValueError(
            f"{what} of {size} cannot be divided among {num_shards()} devices. Use a multiple of {num_shards()} (of "
            f"{2 * num_shards()} where antithetic partners share what is divided), or a mesh of fewer devices: "
            "zoo.population_mesh(n)."
        )
