"""Stage 2: features become predictions. Never opens an image or a backbone.

In Python: `train`, `Run` and `trust`; see docs/api.md.
"""

from typing import TYPE_CHECKING

from features.common.lazy import load_lazily

if TYPE_CHECKING:
    from classify.models.files import trust
    from classify.notebook import Run, train

__all__ = ["Run", "train", "trust"]
__getattr__ = load_lazily(
    __name__, {"Run": "classify.notebook", "train": "classify.notebook", "trust": "classify.models.files"}
)
