"""Strategies that estimate a gradient of the smoothed fitness and descend it with any optax optimizer."""
