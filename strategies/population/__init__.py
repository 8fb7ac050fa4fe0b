"""Strategies that keep members, in place of a search distribution with parameters."""
