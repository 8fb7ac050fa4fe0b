"""Learning from labelled data: the fitness is a minibatch loss, and the score is the held-out accuracy."""
