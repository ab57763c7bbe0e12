"""What a reader acts on, beside the scores: tables of the final model.

- `splits`: what the final model says of the images of a split.
- `operating_points`: what thresholds at which sensitivity cost.
- `groups`: its scores by patient, or whatever groups are.
"""
