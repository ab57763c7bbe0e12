"""Folds of rows, the same in both stages."""
