"""A zoo of evolution strategies in JAX.

Three things to do with it:

- `benchmark` any strategies on any problems with a single call, and `sweep` their settings;
- swap strategies in an ask/tell loop that never changes (`make_strategy`, `make_problem`, `run`);
- add a problem by writing a function of one solution (`from_function`, `Problem`, `UnrolledProblem`).
"""

from typing import TYPE_CHECKING, Any

import zoo.callbacks as callbacks  # noqa: F401 - `zoo.callbacks.TensorBoard` without a further import
import zoo.space as space  # noqa: F401 - `zoo.space.uniform` without a further import
from zoo._version import __version__ as __version__
from zoo.core.evaluation import Evaluation, Groups
from zoo.core.population import map_members, materialize
from zoo.core.problem import FunctionProblem, Problem, from_function
from zoo.core.settings import leaf, number, static
from zoo.core.sharding import population_mesh
from zoo.core.strategy import Strategy
from zoo.core.unrolled import UnrolledProblem
from zoo.host.callback import from_numpy
from zoo.host.problem import PythonProblem, from_python
from zoo.loop.callbacks import Callback
from zoo.loop.converged import Converged
from zoo.loop.load_run import load_run
from zoo.loop.optimizer import Optimizer
from zoo.loop.progress import Progress
from zoo.loop.result import RunResult
from zoo.loop.run import minimize, run
from zoo.registry import (
    describe,
    list_problems,
    list_strategies,
    make_problem,
    make_strategy,
    register_problem,
    register_strategy,
)
from zoo.smoothing.smooth import smooth
from zoo.sparsity.at_init import prune_at_init
from zoo.sparsity.tickets import Ticket, Tickets, load_ticket, load_tickets

if TYPE_CHECKING:
    from zoo.benchmarking.benchmark import benchmark
    from zoo.benchmarking.comparison import Comparison
    from zoo.benchmarking.estimators import EstimatorStatistics, estimator_statistics
    from zoo.benchmarking.results import Results
    from zoo.figures.estimators import plot_estimators
    from zoo.loop.cache import use_compilation_cache
    from zoo.sparsity.ladder import lottery_tickets
    from zoo.sparsity.landscape import barrier, flatness, interpolate
    from zoo.sparsity.plot import plot_flatness, plot_interpolation, plot_ladder, plot_layers
    from zoo.tuning.result import Sweep
    from zoo.tuning.sweep import sweep

__all__ = [
    "Callback",
    "Comparison",
    "Converged",
    "EstimatorStatistics",
    "Evaluation",
    "FunctionProblem",
    "Groups",
    "Optimizer",
    "Problem",
    "Progress",
    "PythonProblem",
    "Results",
    "RunResult",
    "Strategy",
    "Sweep",
    "Ticket",
    "Tickets",
    "UnrolledProblem",
    "barrier",
    "benchmark",
    "describe",
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
    "sweep",
    "use_compilation_cache",
]

# These names need pandas and scipy. They are imported at their first use, so that `import zoo` stays fast.
_LAZY = {
    "Comparison": "zoo.benchmarking.comparison",
    "EstimatorStatistics": "zoo.benchmarking.estimators",
    "Results": "zoo.benchmarking.results",
    "Sweep": "zoo.tuning.result",
    "barrier": "zoo.sparsity.landscape",
    "benchmark": "zoo.benchmarking.benchmark",
    "estimator_statistics": "zoo.benchmarking.estimators",
    "flatness": "zoo.sparsity.landscape",
    "interpolate": "zoo.sparsity.landscape",
    "lottery_tickets": "zoo.sparsity.ladder",
    "plot_estimators": "zoo.figures.estimators",
    "plot_flatness": "zoo.sparsity.plot",
    "plot_interpolation": "zoo.sparsity.plot",
    "plot_ladder": "zoo.sparsity.plot",
    "plot_layers": "zoo.sparsity.plot",
    "sweep": "zoo.tuning.sweep",
    "use_compilation_cache": "zoo.loop.cache",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
