"""A strategy and a problem from outside of the zoo."""
