"""One run: the compiled loop, what drives it, and what a run leaves behind."""
