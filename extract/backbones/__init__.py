"""The frozen backbones: their table, their weights, and how one is built.

- `table`: one row per backbone. To add one of keras.applications, add a row here; everything else reads the table.
- `weights`: which file a backbone runs with, and its digest.
- `build`: the Keras model with its weights, of the table or a user's own.
- `folding`: batch norms within the convolutions before them.
- `efficientnet_lite`, `resnext`: those that keras.applications does not have; `tensors/` reads their weights.
"""
