"""Clips in, scores out: what a saved model says of clips that it has never seen, how sure it is, and what it read."""
