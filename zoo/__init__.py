"""A zoo of evolution strategies in JAX.

Three things to do with it:

- `benchmark` any strategies on any problems with a single call;
- swap strategies in an ask/tell loop that never changes (`make_strategy`, `make_problem`, `run`);
- add a problem by writing a function of one solution (`from_function`, `Problem`, `UnrolledProblem`).
"""

from typing import TYPE_CHECKING, Any

from zoo.callback import from_numpy
from zoo.dataclass import leaf, number, static
from zoo.host import PythonProblem, from_python
from zoo.population import map_members, materialize
from zoo.problem import FunctionProblem, Problem, from_function
from zoo.prune_at_init import prune_at_init
from zoo.registry import (
    list_problems,
    list_strategies,
    make_problem,
    make_strategy,
    register_problem,
    register_strategy,
)
from zoo.run import RunResult, minimize, run
from zoo.sharding import population_mesh
from zoo.smooth import smooth
from zoo.strategy import Evaluation, Groups, Strategy
from zoo.tickets import Ticket, Tickets, load_ticket, load_tickets
from zoo.unrolled import UnrolledProblem

if TYPE_CHECKING:
    from zoo.benchmarking import benchmark
    from zoo.diagnostics import EstimatorStatistics, estimator_statistics
    from zoo.ladder import lottery_tickets
    from zoo.landscape import barrier, flatness, interpolate
    from zoo.plot import plot_estimators
    from zoo.plot_tickets import plot_flatness, plot_interpolation, plot_ladder, plot_layers
    from zoo.results import Results, load_run

__version__ = "0.1.0"

__all__ = [
    "EstimatorStatistics",
    "Evaluation",
    "FunctionProblem",
    "Groups",
    "Problem",
    "PythonProblem",
    "Results",
    "RunResult",
    "Strategy",
    "Ticket",
    "Tickets",
    "UnrolledProblem",
    "barrier",
    "benchmark",
    "estimator_statistics",
    "flatness",
    "from_function",
    "from_numpy",
    "from_python",
    "interpolate",
    "leaf",
    "list_problems",
    "list_strategies",
    "load_run",
    "load_ticket",
    "load_tickets",
    "lottery_tickets",
    "make_problem",
    "make_strategy",
    "map_members",
    "materialize",
    "minimize",
    "number",
    "plot_estimators",
    "plot_flatness",
    "plot_interpolation",
    "plot_ladder",
    "plot_layers",
    "population_mesh",
    "prune_at_init",
    "register_problem",
    "register_strategy",
    "run",
    "smooth",
    "static",
]

# What needs pandas and scipy is imported when it is first used, so that `import zoo` stays cheap.
_LAZY = {
    "EstimatorStatistics": "zoo.diagnostics",
    "Results": "zoo.results",
    "barrier": "zoo.landscape",
    "benchmark": "zoo.benchmarking",
    "estimator_statistics": "zoo.diagnostics",
    "flatness": "zoo.landscape",
    "interpolate": "zoo.landscape",
    "load_run": "zoo.results",
    "lottery_tickets": "zoo.ladder",
    "plot_estimators": "zoo.plot",
    "plot_flatness": "zoo.plot_tickets",
    "plot_interpolation": "zoo.plot_tickets",
    "plot_ladder": "zoo.plot_tickets",
    "plot_layers": "zoo.plot_tickets",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
