"""Search for good heads with Optuna.

Reading order:

- `command`: what `python -m classify search` does.
- `search`: the heads that may be proposed; ask for batches of them, train each at once, score it out-of-fold.
- `study`: finished trials on disk.
"""
