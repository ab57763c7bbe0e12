"""The bank: many heads trained at once on one matrix of features.

Reading order:

- `train`: epoch by epoch, until every head has stopped early.
- `stack`: heads of one architecture side by side: their weights, an epoch, their validation.
- `layout`: what they are made of, and where each weight is.
- `loops`: a step of a stack, and its first layers; `hidden`: the layers behind, and the loss; `softmax`: that of
  exclusive classes. All are `compiled`.
- `dropout`: what dropout is decided by.
- `auc`: the ROC-AUC of many heads at once.
"""
