"""Search for good heads with Optuna.

Reading order:

- `command`: what `python -m classify search` does.
- `search`: ask for batches of heads, train each batch at once, score it out-of-fold.
- `space`: the heads that may be proposed.
- `study`: finished trials on disk.
"""
