"""The arrays that pass from module to module, named once: what they hold, their shape, type, range and order."""

import numpy as np
from numpy.typing import NDArray

#: float32 (N, D), finite: a row per image, in the order of its ids; backbones side by side.
Features = NDArray[np.float32]
#: A label that is not known, beside 0 and 1.
UNKNOWN = 255
#: uint8 (N, L), 0, 1 or `UNKNOWN`: the truth of each image and label; whatever counts a label counts its known rows.
Labels = NDArray[np.uint8]
#: uint8 (N, L), 0 or 1: what was predicted for each image and label.
Decisions = NDArray[np.uint8]
#: float32 (N, L), 0 to 1.
Probabilities = NDArray[np.float32]
#: float32 (N, L, K), 0 to 1: the probabilities that each of K models gives.
MemberProbabilities = NDArray[np.float32]
#: float64 (L,): a label is predicted from there on; infinite where nothing is.
Thresholds = NDArray[np.float64]
#: str (N,): the group, such as the patient, of each image; "" where none is known.
Groups = NDArray[np.str_]
#: int64 (n,), ascending: indices of rows.
RowIndices = NDArray[np.int64]


def count_values(labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Count the positives and the negatives of each label: int64 (L,) each; together the known rows."""
    return (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)


def find_varied(labels: Labels) -> np.ndarray:
    """Tell which labels have both values among their known rows: bool (L,)."""
    return np.minimum(*count_values(labels)) > 0
