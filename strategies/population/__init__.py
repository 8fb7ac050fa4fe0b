"""Strategies that keep members rather than a parametrised search distribution."""
