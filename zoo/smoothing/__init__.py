"""`zoo.smooth`: an ES gradient for one block of a program."""
