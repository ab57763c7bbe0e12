"""Cross-fitting: every probability of a training image comes from a model that never saw its fold.

Reading order:

- `folds`: split the training rows, whole groups together, stratified over all labels.
- `plan`: the fits that a run makes, and what a fit and a model predict.
- `models`: fit baselines and heads by the plan, each fit by itself.
- `tasks`: a cluster of Ray that makes fits in place of threads.
- `store`: finished fits beside the cache, for the next run and for one that was stopped.
"""
