"""Scores: metrics with intervals, the rules that choose, and what the data are worth.

Reading order:

- `metrics`: the tables of metrics and of rules for thresholds, and how the final model is chosen. To add a metric or a
  rule, add a row there.
- `resampling`: bootstrap draws of groups, rank metrics of all draws, intervals.
- `scoring`: every metric of every label, with its interval.
- `thresholds`: fit them, cross-fit the decisions, say what they cost.
- `gains`: what each backbone adds, and what a leak between folds would flatter.
- `label_errors`: labels that are probably wrong.
- `gallery`: the images worth looking at.
"""
