"""The strategies, one folder per family. `zoo.make_strategy` makes a strategy by its id."""
