"""Strategies that wrap another strategy."""
