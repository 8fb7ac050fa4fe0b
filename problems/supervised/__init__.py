"""Learning from labelled data: a minibatch loss to train on, held-out accuracy to score."""
