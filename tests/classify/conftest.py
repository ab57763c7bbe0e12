"""What the tests of stage 2 share."""

from dataclasses import replace
from functools import partial

import pytest

from classify.models.baselines import BASELINES


@pytest.fixture
def few_trees(monkeypatch):
    """Forest and boosting of 20 trees, by the same code: at full size they take most of the time of all baselines."""

    def smaller(make, **size):
        return make().set_params(**size)

    for name, size in (("forest", "n_estimators"), ("boosting", "max_iter")):
        row = BASELINES[name]
        monkeypatch.setitem(BASELINES, name, replace(row, classifier=partial(smaller, row.classifier, **{size: 20})))
