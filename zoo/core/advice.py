"""What to do instead of giving bounds to a function or a strategy that takes none."""

BOUNDS_NAMES = ("bounds", "bound", "lower", "upper", "lower_bound", "upper_bound", "lower_bounds", "upper_bounds")
"""Names under which users of other libraries give bounds."""


def bounds_advice(base: str) -> str:
    """Returns a sentence that says how a strategy, given by its id, is kept within bounds."""
    return (
        "The wrapper `bounded` keeps a strategy within bounds: "
        f'{{"id": "bounded", "base": "{base}", "lower": -5.0, "upper": 5.0}}.'
    )
