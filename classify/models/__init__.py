"""Models of pooled features: what they are, what they learnt, how they are saved and explained.

Reading order:

- `baselines`: the table of baselines. To add one, add a row there.
- `estimators`: the estimators that baselines are made of.
- `heads`: what a head is, and the table of presets. To add one, add a row there.
- `trained_head`: a head's weights and curves, and the Keras model that gives the same.
- `files`: fitted models as files, and back.
"""
