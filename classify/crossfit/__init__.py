"""Cross-fit models: folds, what is fitted on which rows, and finished fits kept on disk."""
