"""Strategies that wrap another one."""
