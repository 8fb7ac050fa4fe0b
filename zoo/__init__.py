"""A zoo of evolution strategies in JAX.

Three things to do with it:

- `benchmark` any strategies on any problems with a single call;
- swap strategies in an ask/tell loop that never changes (`make_strategy`, `make_problem`, `run`);
- add a problem by writing a function of one solution (`from_function`, `Problem`, `UnrolledProblem`).
"""

from typing import TYPE_CHECKING, Any

from zoo.dataclass import leaf, number, static
from zoo.population import map_members
from zoo.problem import FunctionProblem, Problem, from_function
from zoo.registry import (
    list_problems,
    list_strategies,
    make_problem,
    make_strategy,
    register_problem,
    register_strategy,
)
from zoo.run import RunResult, minimize, run
from zoo.strategy import Evaluation, Groups, Strategy
from zoo.unrolled import UnrolledProblem

if TYPE_CHECKING:
    from zoo.benchmarking import benchmark
    from zoo.results import Results, load_run

__version__ = "0.1.0"

__all__ = [
    "Evaluation",
    "FunctionProblem",
    "Groups",
    "Problem",
    "Results",
    "RunResult",
    "Strategy",
    "UnrolledProblem",
    "benchmark",
    "from_function",
    "leaf",
    "list_problems",
    "list_strategies",
    "load_run",
    "make_problem",
    "make_strategy",
    "map_members",
    "minimize",
    "number",
    "register_problem",
    "register_strategy",
    "run",
    "static",
]

# What needs pandas and scipy is imported when it is first used, so that `import zoo` stays cheap.
_LAZY = {"Results": "zoo.results", "benchmark": "zoo.benchmarking", "load_run": "zoo.results"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
