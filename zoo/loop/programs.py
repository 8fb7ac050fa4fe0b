"""How the functions of a run are compiled: on a CPU that takes longer than running them."""

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jaxlib.version
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr

_LOOP = {
    # By default independent operations run at once, each of them on fewer threads, and the short loops inside a
    # generation take up to half as long again.
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    # Takes a fifth (inner training: three quarters) less time to compile than the default, 3. The loops measured run no
    # slower.
    "xla_backend_optimization_level": 2,
}

# Compiles in a third of the time, and runs slower the larger its arrays are.
_ONCE: dict[str, int | bool] = {"xla_backend_optimization_level": 0}
if jaxlib.version.__version_info__ < (0, 11):  # from where on there is no other way to emit code
    _ONCE["xla_cpu_use_fusion_emitters"] = False

_SMALL = 4096
"""Numbers in an array from which on a program is worth optimising."""


class Program:
    """A jitted function with the compiler's options that suit a CPU; on other devices it has none.

    Options that the environment variable `XLA_FLAGS` sets are left as they are. Within another trace the function is
    inlined.

    Args:
        fn: The function.
        repeats: Whether it is the loop of a run. Otherwise it is called a few times in a run, and is compiled without
            optimisation unless it computes large arrays.
        **settings: Those of `jax.jit`.
    """

    def __init__(self, fn: Callable[..., Any], *, repeats: bool, **settings: Any):
        functools.update_wrapper(self, fn)
        self.fn = fn
        self._repeats = repeats
        self._plain = jax.jit(fn, **settings)
        self._loop, self._once = (
            jax.jit(fn, compiler_options=options, **settings) if options else self._plain
            for options in map(_unless_set, (_LOOP, _ONCE))
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the compiled function."""
        if any(isinstance(x, Tracer) for x in jax.tree.leaves((args, kwargs))):
            return self.fn(*args, **kwargs)
        return self.choose(*args, **kwargs)(*args, **kwargs)

    def choose(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the jitted function for such arguments: what is called often need not look at them every time."""
        if jax.default_backend() != "cpu":
            return self._plain
        if self._repeats:
            return self._loop
        # What is traced here is not traced again when it is compiled.
        traced: Any = self._plain.trace(*args, **kwargs)
        return self._once if _largest_array(traced.jaxpr) <= _SMALL else self._loop

    def compile(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the compiled function for such arguments; it is called without those that are static."""
        return self.choose(*args, **kwargs).lower(*args, **kwargs).compile()

    @property
    def num_programs(self) -> int:
        """How many programs are compiled at present."""
        return sum(jitted._cache_size() for jitted in self._variants)

    def forget(self) -> None:
        """Drops the compiled programs."""
        for jitted in self._variants:
            jitted.clear_cache()

    @property
    def _variants(self) -> list[Any]:
        return list({id(jitted): jitted for jitted in (self._plain, self._loop, self._once)}.values())


def _unless_set(options: dict[str, Any]) -> dict[str, Any]:
    flags = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in options.items() if name not in flags}


def _largest_array(jaxpr: Any) -> int:
    """Returns how many numbers the largest array that a program computes has."""
    jaxpr = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    sizes = (getattr(x.aval, "size", 0) for equation in jaxpr.eqns for x in equation.outvars)
    inner = (_largest_array(x) for equation in jaxpr.eqns for x in jaxprs_in(tuple(equation.params.values())))
    return max((0, *sizes, *inner))


def jaxprs_in(parameters: Any) -> Iterator[Any]:
    """Yields the programs among the parameters of an operation."""
    for parameter in parameters:
        if isinstance(parameter, ClosedJaxpr | Jaxpr):
            yield parameter
        elif isinstance(parameter, tuple | list):
            yield from jaxprs_in(parameter)
