"""pycma, the reference implementation of CMA-ES (Hansen et al., doi:10.5281/zenodo.2559634), unchanged.

pycma runs on the host, in `jax.pure_callback`. It has to be a function of its arguments, so that it can be jitted,
batched over seeds, and stored in a checkpoint. So its object is pickled into the state after every call. It draws from
NumPy's global generator, which is seeded from the JAX key for the call and put back afterwards. This costs a few
milliseconds per generation, so compare it by evaluations, not by seconds.
"""

import contextlib
import functools
import pickle
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core import (
    Evaluation,
    Population,
    Solution,
    Strategy,
    Surrogate,
    distributions,
    in_single,
    num_dims,
    number,
    spread_over,
    static,
)
from zoo.core.checks import as_pairs
from zoo.core.promotion import ravel
from zoo.core.spread import is_one_number
from zoo.host.callback import from_numpy
from zoo.strategies.adapters.peers import finite_in_order, import_peer

_HISTORY = 100  # generations; with pycma's own limit, 20 000 would be pickled in each
_generator_lock = threading.Lock()  # callbacks of several programs may run at once


class PyCMAState(NamedTuple):
    """State of `PyCMA`."""

    mean: Solution
    std: Solution
    pickled: jax.Array  # [capacity] bytes of pycma's object and its last samples, then zeros


class PyCMA(Strategy):
    """pycma's CMA-ES on the host (extra `peers`).

    Attributes:
        sigma: Initial step size, in the units of the solution, above 0: one number, or a pytree in the structure of the
            solution (numbers, lists, or arrays that broadcast to its leaves). Several numbers become pycma's
            `CMA_stds`.
        options: pycma's options, a mapping or pairs, for example `{"CMA_diagonal": True}`. pycma never stops by itself
            here, so options of termination have no effect. Bounds belong to the `bounded` wrapper.
    """

    sigma: Any = number(default=0.3, above=0, per_parameter=True, search=distributions.times(0.1, 10))
    options: Any = static(default=())

    def __post_init__(self) -> None:
        """Checks the settings."""
        object.__setattr__(self, "options", as_pairs(self.options, "PyCMA.options"))
        super().__post_init__()
        reserved = {
            "popsize": "population_size",
            "seed": "the key",
            "randn": "the key",
            "bounds": "the bounded wrapper",
        }
        for name, _ in self.options:
            if name in reserved:
                raise ValueError(f"PyCMA.options must not have {name!r}: use {reserved[name]} instead.")
        if self.population_size is not None and self.population_size < 3:
            raise ValueError(f"PyCMA.population_size must be at least 3, got {self.population_size}.")

    def mean(self, state: PyCMAState) -> Solution:
        """Returns the mean of the search distribution."""
        return state.mean

    def std(self, state: PyCMAState) -> Solution:
        """Returns pycma's standard deviation per parameter."""
        return state.std

    def _init(self, key: jax.Array, solution: Solution) -> PyCMAState:
        size, options = self._num_members(solution), self.options
        capacity = _capacity(num_dims(solution), size, options)

        def start(flat: np.ndarray, sigma: np.ndarray) -> Any:
            es = _start(flat, sigma, size, options)
            return es.mean, es.stds, _pack(es, None, capacity)

        flat, unravel = ravel(solution)
        vector = jax.ShapeDtypeStruct(flat.shape, jnp.result_type(float))
        result = vector, vector, jax.ShapeDtypeStruct((capacity,), np.uint8)
        _, std, pickled = from_numpy(start, result=result)(flat, self._spread(solution))
        return PyCMAState(solution, unravel(std.astype(flat.dtype)), pickled)

    def _spread(self, solution: Solution) -> jax.Array:
        """Returns the initial step size, [], or one for each parameter, `[d]`."""
        if is_one_number(self.sigma):
            return jnp.asarray(self.sigma, float)
        return ravel(spread_over(self.sigma, in_single(solution), "PyCMA.sigma"))[0].astype(float)

    def _ask(self, key: jax.Array, state: PyCMAState, surrogate: Surrogate | None) -> tuple[Population, PyCMAState]:
        flat, unravel = ravel(state.mean)
        size, capacity = self._num_members(state.mean), state.pickled.size

        def ask(pickled: np.ndarray, seed: np.ndarray) -> Any:
            es, _ = pickle.loads(pickled.tobytes())
            with _seeded(int(seed)):
                samples = np.asarray(es.ask())
            return samples, _pack(es, samples, capacity)

        result = jax.ShapeDtypeStruct((size, flat.size), jnp.result_type(float)), state.pickled
        samples, pickled = from_numpy(ask, result=result)(state.pickled, jax.random.bits(key, dtype=jnp.uint32))
        return jax.vmap(unravel)(samples.astype(flat.dtype)), state._replace(pickled=pickled)

    def _tell(self, state: PyCMAState, population: Population, evaluation: Evaluation) -> PyCMAState:
        flat, unravel = ravel(state.mean)
        capacity = state.pickled.size

        def tell(pickled: np.ndarray, told: np.ndarray, fitness: np.ndarray, is_empty: np.ndarray) -> Any:
            es, samples = pickle.loads(pickled.tobytes())
            if not is_empty:  # a generation in which nothing could be evaluated is skipped
                # A member in a lower precision is no longer pycma's sample, and pycma would clip its step.
                kept = np.all(samples.astype(told.dtype) == told, axis=1)
                es.tell(list(np.where(kept[:, None], samples, told)), list(fitness))
                del es.fit.histbest[_HISTORY:], es.fit.histmedian[_HISTORY:]  # which only termination uses
            return es.mean, es.stds, _pack(es, None, capacity)

        told = jax.vmap(lambda x: ravel(x)[0])(population)
        vector = jax.ShapeDtypeStruct(flat.shape, jnp.result_type(float))
        result = vector, vector, state.pickled
        fitness, is_empty = finite_in_order(evaluation.fitness), jnp.all(evaluation.fitness == jnp.inf)
        mean, std, pickled = from_numpy(tell, result=result)(state.pickled, told, fitness, is_empty)
        return PyCMAState(unravel(mean.astype(flat.dtype)), unravel(std.astype(flat.dtype)), pickled)


def _start(flat: np.ndarray, sigma: np.ndarray, size: int, options: tuple[tuple[str, Any], ...]) -> Any:
    cma = import_peer("cma", "pycma")
    step_size = float(np.exp(np.mean(np.log(sigma))) if np.ndim(sigma) else sigma)
    if np.ndim(sigma):
        options = (("CMA_stds", sigma.astype(float) / step_size), *options)
    # A seed of NaN leaves the generator alone. The other options keep pycma from printing and from writing files.
    quiet = {"popsize": size, "seed": np.nan, "randn": _randn, "verbose": -9, "verb_log": 0, "verb_disp": 0}
    return cma.CMAEvolutionStrategy(flat.astype(float), step_size, {**quiet, **dict(options)})


def _randn(*shape: int) -> np.ndarray:
    """Calls `np.random.randn`, which pickle would store with a copy of its generator, from which pycma would draw."""
    return np.random.randn(*shape)  # noqa: NPY002


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds NumPy's global generator, from which pycma draws, and restores it afterwards."""
    with _generator_lock:
        before = np.random.get_state()  # noqa: NPY002
        try:
            np.random.seed(seed)  # noqa: NPY002
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002


@functools.lru_cache(maxsize=64)
def _capacity(num_dims: int, size: int, options: tuple[tuple[str, Any], ...]) -> int:
    """Returns how many bytes the state reserves: twice the size after the first `ask`, plus 64 KiB."""
    es = _start(np.zeros(num_dims), np.ones(num_dims), size, options)
    with _seeded(0):
        samples = np.asarray(es.ask())
    return 2 * len(pickle.dumps((es, samples))) + 2**16


def _pack(es: Any, samples: np.ndarray | None, capacity: int) -> np.ndarray:
    """Returns the pickled object as an array of `capacity` bytes, which `pickle.loads` reads.

    Raises:
        ValueError: If the object takes more bytes.
    """
    data = pickle.dumps((es, samples))
    if len(data) > capacity:
        raise ValueError(
            f"pycma's object has grown to {len(data)} bytes, but its state was made for {capacity}. Leave out options "
            "that keep histories or archives."
        )
    return np.pad(np.frombuffer(data, np.uint8), (0, capacity - len(data)))
