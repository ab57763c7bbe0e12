"""Compile the steps of the bank, and keep them: `python -m classify.bank`, which scripts/setup.sh calls."""

import numpy as np

from classify.bank.train import HeadSplit, train_bank
from classify.models.heads import HeadSpec

if __name__ == "__main__":
    y = np.array([[0], [1], [0], [1]], np.uint8)
    train_bank([HeadSpec(epochs=1)], np.zeros((4, 2), np.float32), y, HeadSplit(np.arange(2), np.arange(2, 4)))
