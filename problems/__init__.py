"""The problem suite. `zoo.make_problem` makes a problem by its id."""
