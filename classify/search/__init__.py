"""Search for good heads with Optuna."""
