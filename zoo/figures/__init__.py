"""Figures, as functions of arrays and frames."""
