"""Populations divided into antithetic pairs, or into other groups of members that share a perturbation."""

from zoo.core import Strategy


def why_all(share: int) -> str:
    """Returns `Strategy.needs_all_members` for a strategy that gives each perturbation to `share` members."""
    return (
        f"it compares the {share} members of each perturbation, so it needs all of them; give a member that could not "
        "be evaluated the fitness NaN"
    )


def check_divides(strategy: Strategy, share: int) -> None:
    """Raises a `ValueError` if the population does not divide into groups of `share` members."""
    size = strategy.population_size
    if size is not None and size % share:
        members = "antithetic pairs" if share == 2 else f"{share} members with each perturbation"
        multiple = "even" if share == 2 else f"a multiple of {share}"
        raise ValueError(
            f"{type(strategy).__name__} samples {members}, so population_size must be {multiple}, got {size}. "
            f"Use {size + -size % share}."
        )
