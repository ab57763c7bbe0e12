"""Train many heads at once on one matrix of features."""
