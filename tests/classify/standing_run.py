"""`python -m tests.classify.standing_run N ...`: stage 2's command, that comes to a stand in fit N + 1.

Counted are the fits of `PenalisedLogistic`, of which it begins no more, and the banks of heads, of which it trains one
more for an epoch. So a test can stop it at a known place, however fast or slow the machine is.
"""

import itertools
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from classify.__main__ import app
from classify.bank import train as bank
from classify.models.linear import PenalisedLogistic
from classify.models.trained_head import TrainedHead


def stand(_: int = 0) -> None:
    """Wait for a signal; a test that never sends it fails in the end."""
    threading.Event().wait(1200)


if __name__ == "__main__":
    allowed = int(sys.argv.pop(1))
    fit, number = PenalisedLogistic.fit, itertools.count(1)
    train_bank: Callable[..., list[TrainedHead]] = bank.train_bank

    def fit_or_stand(self: Any, X: Any, y: np.ndarray, groups: np.ndarray | None = None) -> PenalisedLogistic:
        if next(number) > allowed:
            stand()
        return fit(self, X, y, groups)

    def train_or_stand(*arguments: Any, **options: Any) -> list[TrainedHead]:
        return train_bank(*arguments, *([stand] if next(number) > allowed else []), **options)

    PenalisedLogistic.fit = fit_or_stand  # type: ignore[method-assign]
    bank.train_bank = train_or_stand
    app()
