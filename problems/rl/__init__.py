"""Reinforcement learning: unrolled problems whose step is an environment step."""
