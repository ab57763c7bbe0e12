"""What a reader acts on, beside the scores: tables of the final model.

- `splits`: what the final model says of the images of a split.
- `operating_points`: what thresholds at which sensitivity cost.
- `groups`: its scores by patient, or whatever groups are.
- `classes`: of exclusive classes, accuracy and the confusion matrix.
- `columns`: which subgroup each image is of.
- `subgroups`: its scores by columns of the data set, such as scanner and sex.
- `readings`: all of them.
"""
