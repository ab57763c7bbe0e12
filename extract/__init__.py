"""Stage 1: images become pooled features. It knows Keras and OpenCV; it never sees a label.

- `__main__`, `options`: the commands and their options.
- `run`: what `extract run` does; `choices` finds what is extracted, and how; `extraction` brings a cache up to date,
  `pipeline` runs one split.
- `images/`: bytes to pixels.
- `backbones/`: the frozen networks; to add one, add a row to `backbones/table.py`.
- `runtime`: a backbone as a fast function on this device.
- `check/`: whether backbones are loaded and preprocessed as they should be.
- `report`: progress and figures.
- `forecast`: what an extraction will take.
- `pictures/`: what `extract heat` and `extract thumbnails` do.

In Python: `extract_features`; see docs/api.md.
"""

from typing import TYPE_CHECKING

from features.common.lazy import load_lazily

if TYPE_CHECKING:
    from extract.run import extract_features

__all__ = ["extract_features"]
__getattr__ = load_lazily(__name__, {"extract_features": "extract.run"})
