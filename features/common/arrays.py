"""The arrays that pass from module to module, named once: what they hold, their shape, type, range and order."""

import numpy as np
from numpy.typing import NDArray

#: float32 (N, D), finite: a row per image, in the order of its ids; backbones side by side.
Features = NDArray[np.float32]
#: uint8 (N, L), 0 or 1: the truth of each image and label.
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
