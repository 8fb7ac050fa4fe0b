"""Unrolled problems: chaotic dynamics, recurrences, and the training of inner models."""
