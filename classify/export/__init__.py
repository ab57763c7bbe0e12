"""What leaves the house: the final model of a run as a graph of Keras, and what is written beside it.

- `graph`: from features to probabilities and decisions.
- `prune`: a cheaper model that is as good.
- `card`: the model card.

What makes the features, and files of it all, is in `scripts/export.py`, which may know both stages.
"""
