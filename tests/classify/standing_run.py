"""`python -m tests.classify.standing_run N ...`: stage 2's command, that comes to a stand after N fits of `logistic`.

So a test can stop it at a known place, however fast or slow the machine is.
"""

import itertools
import sys
import threading

import numpy as np

from classify.__main__ import app
from classify.models.estimators import OneVsRest

if __name__ == "__main__":
    allowed = int(sys.argv.pop(1))
    fit, number = OneVsRest.fit, itertools.count(1)

    def stand(self: OneVsRest, X: np.ndarray, y: np.ndarray) -> OneVsRest:
        if next(number) > allowed:
            threading.Event().wait(1200)  # a test that never stops it fails in the end
        return fit(self, X, y)

    OneVsRest.fit = stand  # type: ignore[method-assign]
    app()
