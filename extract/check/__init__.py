"""Whether backbones are loaded and preprocessed as they should be.

- `run`: what `extract check` does.
- `photographs`: the images that it looks at, and what they show.
- `canary`: features that an image drawn by code must give.
- `plausibility`: whether a model of one's own gets its pixels in the scale that it was trained with.
"""
