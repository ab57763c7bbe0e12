"""The contract between the two stages: the data set on disk, and the feature cache in HDF5.

In Python: `open_dataset`, `read_features`, `FeatureCache`, and `InputError`, which all commands raise; see docs/api.md.
"""

from typing import TYPE_CHECKING

from features.common.lazy import load_lazily

if TYPE_CHECKING:
    from features.common.errors import InputError
    from features.notebook import open_dataset, read_features
    from features.store.cache import FeatureCache

__all__ = ["FeatureCache", "InputError", "open_dataset", "read_features"]
__getattr__ = load_lazily(
    __name__,
    {
        "FeatureCache": "features.store.cache",
        "InputError": "features.common.errors",
        "open_dataset": "features.notebook",
        "read_features": "features.notebook",
    },
)
