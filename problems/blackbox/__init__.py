"""Black-box benchmark functions."""
