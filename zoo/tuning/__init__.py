"""Searches for settings: sweeps, and what they found."""
