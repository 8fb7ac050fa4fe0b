"""The problem suite; `zoo.make_problem` makes them by id."""
