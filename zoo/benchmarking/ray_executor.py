"""Computes the pairs of a benchmark as Ray tasks: on the cores of this machine, or on the machines of a cluster.

Pairs are sent as bytes that `zoo.host.pickling` makes, since Ray's pickler would lose the leaves of problems that a
script defines. They come back as NumPy arrays and are saved by this process, since the worker may have other devices
and another file system.
"""

import contextlib
import dataclasses
import itertools
import os
import pickle
import warnings
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import jax

from zoo.benchmarking.pair import Pair, PairTask
from zoo.host import pickling
from zoo.loop.progress import progress_bar

_CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # Ray's name for whether other machines may join
_MAX_RETRIES = 2  # of a pair whose worker died
# Settings that change numbers must be the same in the workers. The platform may differ.
_JAX_SETTINGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
)


class RayExecutor:
    """Computes pairs on the workers of Ray.

    If the worker of a pair dies, another one computes the pair again, up to `max_retries` times. After that the pair
    has failed.

    Args:
        options: Options of the Ray tasks. They take precedence over the defaults, one core and two retries.
        max_calls: Number of pairs after which a worker process is replaced, so that compiled programs do not fill its
            memory.

    Raises:
        ValueError: If Ray does not know an option.
        ModuleNotFoundError: If Ray is not installed.
    """

    def __init__(self, options: Mapping[str, Any], *, max_calls: int):
        self._ray = ray = _import_ray()
        self._options = {"num_cpus": 1, "max_retries": _MAX_RETRIES, **options}
        if not options.get("num_gpus"):  # with a GPU, Ray ends a worker after each task, to free the GPU's memory
            self._options.setdefault("max_calls", max_calls)
        self._options["runtime_env"] = _runtime_env(self._options)
        self._remote = ray.remote(**self._options)(_compute)

    def __call__(self, tasks: Mapping[int, PairTask], progress: bool) -> Generator[tuple[int, Pair]]:
        """Yields each pair with its number as soon as it is finished. On the way out, cancels unfinished pairs.

        Args:
            tasks: The pairs to compute, by number.
            progress: Whether to show a bar of finished pairs.
        """
        ray = self._ray
        problems: dict[int, Any] = {}  # by identity; a problem may hold a dataset, so that all its pairs share one copy
        waiting: dict[Any, int] = {}
        with _cluster(ray), progress_bar("pairs" if progress else None, len(tasks), is_count=True) as show:
            count = itertools.count(1)
            _warn_if_infeasible(ray, self._options)
            try:
                for number, task in tasks.items():
                    try:
                        waiting[self._submit(task, problems)] = number
                    except Exception as error:  # the pair cannot be pickled
                        show(next(count), _status(task))
                        yield number, task.failed(error)
                while waiting:
                    (done,), _ = ray.wait(list(waiting), num_returns=1)
                    number = waiting.pop(done)
                    task = tasks[number]
                    try:
                        pair = pickle.loads(ray.get(done))
                    except Exception as error:
                        pair = task.failed(_explain(ray, error, self._options["max_retries"]))
                    show(next(count), _status(task))
                    yield number, pair
            finally:
                for outstanding in waiting:
                    ray.cancel(outstanding, force=True)

    def _submit(self, task: PairTask, problems: dict[int, Any]) -> Any:
        if id(task.problem) not in problems:
            problems[id(task.problem)] = self._ray.put(pickling.dumps(task.problem))
        rest = pickling.dumps(dataclasses.replace(task, problem=None))
        return self._remote.remote(rest, problems[id(task.problem)], task.num_leaves)


def _status(task: PairTask) -> str:
    return f"finished {task.strategy_label} on {task.problem_label}"


def _compute(task: bytes, problem: bytes, num_leaves: int) -> bytes:
    """Computes a pair, in a worker."""
    made: PairTask = dataclasses.replace(pickle.loads(task), problem=pickle.loads(problem))
    if made.num_leaves != num_leaves:
        raise TypeError(
            f"The strategy and the problem were sent with {num_leaves} leaves and arrived with {made.num_leaves}. One "
            "of them contains a pytree whose class is defined in a script or a function. Define the class in a module "
            "that the workers can import."
        )
    return pickling.dumps(made.compute())


def _import_ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "benchmark(executor='ray') needs Ray: pip install es-zoo[ray]. Or use executor='local', which computes one "
            "pair after the other in this process."
        ) from error
    return ray


@contextlib.contextmanager
def _cluster(ray: Any) -> Iterator[None]:
    """Uses the cluster that this process is connected to. Otherwise connects to one, or starts one on this machine."""
    if ray.is_initialized():
        yield
        return
    with warnings.catch_warnings():  # Ray forks only to start other programs, which is safe with JAX's threads
        warnings.filterwarnings("ignore", message=r"os\.fork", category=RuntimeWarning)
        if os.environ.get("RAY_ADDRESS"):
            ray.init(log_to_driver=False)
        else:
            _start(ray)
    try:
        yield
    finally:
        ray.shutdown()


def _start(ray: Any) -> None:
    """Starts a cluster of this machine alone. Other machines cannot reach its ports.

    On Linux, Ray lets other machines join and listens to all of them. Anybody who reaches its ports may run code here.
    If Ray is told that there are no clusters, as on other systems, it listens to this machine only.
    """
    if _CLUSTERS in os.environ:  # the user has decided
        ray.init(address="local", log_to_driver=False, include_dashboard=False)
        return
    constants = ray._private.ray_constants
    before, constants.ENABLE_RAY_CLUSTER = constants.ENABLE_RAY_CLUSTER, False  # Ray read the variable at its import
    os.environ[_CLUSTERS] = "0"  # for the processes that Ray starts
    try:
        ray.init(address="local", log_to_driver=False, include_dashboard=False)
    finally:
        constants.ENABLE_RAY_CLUSTER = before
        del os.environ[_CLUSTERS]
    addresses = {node["NodeManagerAddress"] for node in ray.nodes()}
    if addresses != {"127.0.0.1"}:
        warnings.warn(f"Ray listens to other machines, at {', '.join(addresses)}.", stacklevel=2)


def _runtime_env(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the environment of the workers. Ray keeps a separate pool of workers for each environment."""
    # XLA does not know how many cores Ray assigns. Each worker would start one thread per core of the machine.
    variables = {"PJRT_NPROC": str(max(1, int(options["num_cpus"] or 0)))}
    for name in _JAX_SETTINGS:
        value = getattr(jax.config, name)
        if value is not None:
            variables[name.upper()] = str(value)
    if not any(options.get(name) for name in ("num_gpus", "resources", "accelerator_type")):
        variables["JAX_PLATFORMS"] = "cpu"  # Ray does not hide GPUs that were not asked for
    given = dict(options.get("runtime_env") or {})
    return {**given, "env_vars": {**variables, **given.get("env_vars", {})}}


def _warn_if_infeasible(ray: Any, options: Mapping[str, Any]) -> None:
    wanted = {"CPU": options["num_cpus"], "GPU": options.get("num_gpus"), **(options.get("resources") or {})}
    wanted = {name: amount for name, amount in wanted.items() if amount}
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(has.get(name, 0) >= amount for name, amount in wanted.items()) for has in machines):
        warnings.warn(
            f"No machine of the Ray cluster has what ray_options ask for, {wanted}. The pairs wait for such a machine.",
            stacklevel=2,
        )


def _explain(ray: Any, error: Any, max_retries: int) -> Exception:
    """Returns the error to record for a pair that did not come back."""
    kinds = ray.exceptions
    lost = (kinds.WorkerCrashedError, kinds.NodeDiedError, kinds.OutOfMemoryError, kinds.ObjectLostError)
    if isinstance(error, kinds.RayTaskError):  # raised by `_compute`
        explained = error.cause
    elif isinstance(error, lost):
        explained = RuntimeError(
            f"The worker that computed this pair died ({type(error).__name__}; max_retries={max_retries}): it crashed, "
            "was killed for its memory, or its machine was lost. With the same `out`, only failed and missing pairs "
            "are computed again."
        )
    else:
        return error
    explained.__cause__ = error  # its text has the worker's traceback
    return explained
