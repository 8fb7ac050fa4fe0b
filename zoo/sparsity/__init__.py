"""Lottery tickets, pruning at initialisation, and the loss landscape around solutions."""
