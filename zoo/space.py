"""Distributions of settings, for the search spaces of `zoo.sweep`."""

from zoo.core.distributions import Choice, Distribution, Range, choice, integers, log_uniform, uniform

__all__ = ["Choice", "Distribution", "Range", "choice", "integers", "log_uniform", "uniform"]
