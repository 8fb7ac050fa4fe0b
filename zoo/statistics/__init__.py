"""Statistics of scores and runtimes, as functions of arrays and frames."""
