"""The bank: many heads trained at once on one matrix of features, as fast as matrix products allow.

Reading order:

- `train`: epoch by epoch, until every head has stopped early.
- `stack`: heads of one architecture side by side, and their weights.
- `network`: the layers of a stack, forward and backward, and dropout masks.
- `epoch`: one epoch of many stacks as one compiled graph.
- `auc`: the ROC-AUC of many heads at once.
"""
