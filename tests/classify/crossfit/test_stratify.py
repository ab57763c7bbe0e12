"""Stratification gives the folds of the package iterative-stratification, which drew them before."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

from classify.crossfit.stratify import stratify


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    units=st.integers(5, 80),
    width=st.integers(2, 9),
    count=st.integers(2, 5),
    share=st.sampled_from([0.05, 0.3, 0.8]),
)
def test_folds_are_those_of_the_package(seed, units, width, count, share):
    traits = np.random.default_rng(seed).random((units, width)) < share
    splitter = MultilabelStratifiedKFold(n_splits=count, shuffle=True, random_state=seed)
    folds = stratify(traits, count, seed)
    for fold, (_, held_out) in enumerate(splitter.split(traits, traits)):
        np.testing.assert_array_equal(np.flatnonzero(folds == fold), held_out)
