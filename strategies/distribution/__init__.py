"""Strategies that adapt a search distribution: covariance matrix adaptation and natural evolution strategies."""
