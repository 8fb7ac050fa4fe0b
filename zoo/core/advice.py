"""Advice for users who give bounds to a function or a strategy that does not take bounds."""

BOUNDS_NAMES = ("bounds", "bound", "lower", "upper", "lower_bound", "upper_bound", "lower_bounds", "upper_bounds")
"""Names of the arguments for bounds in other libraries."""


def bounds_advice(base: str) -> str:
    """Returns a sentence that says how to keep a strategy, given by its id, within bounds."""
    return (
        "The wrapper `bounded` keeps a strategy within bounds: "
        f'{{"id": "bounded", "base": "{base}", "lower": -5.0, "upper": 5.0}}.'
    )
