"""One training loop, its optimiser and checkpoints that resume bit for bit."""
