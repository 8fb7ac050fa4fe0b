"""Lottery tickets, pruning, and the landscape around solutions."""
