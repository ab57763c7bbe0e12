"""Models of other models' probabilities: ensembles and calibrations.

Reading order:

- `ensembles`: the tables of ensembles and calibrations. To add one, add a row there and its class to `estimators`.
- `estimators`: how each of them learns and predicts.
- `crossfit`: each is cross-fitted, so that none learns from a label that it predicts; the same ones are found again.
"""
