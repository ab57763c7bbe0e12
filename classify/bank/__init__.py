"""The bank: many heads trained at once on one matrix of features, as fast as matrix products allow.

Reading order:

- `train`: epoch by epoch, until every head has stopped early.
- `stack`: heads of one architecture side by side: their weights, and the optimiser's steps.
- `network`: the layers of a stack, forward and backward, and dropout masks.
- `auc`: the ROC-AUC of many heads at once.
"""
