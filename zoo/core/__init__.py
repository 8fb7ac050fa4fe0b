"""The names that an author of a strategy or a problem imports. This package imports nothing from the rest of the zoo.

The names in `__all__` are public. All other names in these modules are for the zoo itself.
"""

from zoo.core.evaluation import Evaluation, Groups
from zoo.core.grouping import group_keys
from zoo.core.leaves import as_patterns, find_leaves, leaf_name
from zoo.core.masks import (
    Mask,
    apply_mask,
    full_mask,
    keep_best,
    kept_fraction,
    num_prunable,
    num_surviving,
    prunable_leaves,
)
from zoo.core.noise import clip_std, normal_like, uniform_like, weighted_sum
from zoo.core.population import (
    ImplicitPopulation,
    Population,
    map_members,
    materialize,
    population_size,
    repeat_solution,
    take_member,
)
from zoo.core.problem import FunctionProblem, Problem, Statistics, from_function
from zoo.core.sensitivity import Inner, Sensitivity
from zoo.core.settings import PytreeDataclass, leaf, number, static
from zoo.core.sharding import population_mesh
from zoo.core.solution import Solution, check_solution, num_dims
from zoo.core.spread import spread_over, step_size_and_units
from zoo.core.strategy import State, Strategy
from zoo.core.structure import fit_structure
from zoo.core.surrogate import Surrogate, SurrogateGradient, gradient_of_members
from zoo.core.unrolled import UnrolledProblem
from zoo.core.vectors import at_least_float32, in_single, scale_down, unit

__all__ = [
    "Evaluation",
    "FunctionProblem",
    "Groups",
    "ImplicitPopulation",
    "Inner",
    "Mask",
    "Population",
    "Problem",
    "PytreeDataclass",
    "Sensitivity",
    "Solution",
    "State",
    "Statistics",
    "Strategy",
    "Surrogate",
    "SurrogateGradient",
    "UnrolledProblem",
    "apply_mask",
    "as_patterns",
    "at_least_float32",
    "check_solution",
    "clip_std",
    "find_leaves",
    "fit_structure",
    "from_function",
    "full_mask",
    "gradient_of_members",
    "group_keys",
    "in_single",
    "keep_best",
    "kept_fraction",
    "leaf",
    "leaf_name",
    "map_members",
    "materialize",
    "normal_like",
    "num_dims",
    "num_prunable",
    "num_surviving",
    "number",
    "population_mesh",
    "population_size",
    "prunable_leaves",
    "repeat_solution",
    "scale_down",
    "spread_over",
    "static",
    "step_size_and_units",
    "take_member",
    "uniform_like",
    "unit",
    "weighted_sum",
]
