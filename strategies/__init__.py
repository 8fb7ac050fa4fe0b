"""The strategies, a folder per family; `zoo.make_strategy` makes them by id."""
