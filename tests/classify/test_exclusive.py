"""Exclusive classes: what counts as such, and what a run of them does."""

from dataclasses import replace

import numpy as np
import pytest

from classify.inputs import Inputs, SplitInputs
from classify.models.heads import PRESETS
from classify.settings import Settings, check_settings, choose_exclusive
from features.common.arrays import UNKNOWN
from features.common.errors import InputError


def make_classes(classes, labelled_test=None, seed: int = 0) -> Inputs:
    """Images of as many classes as there are numbers; test has classes of its own."""
    rng = np.random.default_rng(seed)
    count = int(max(classes)) + 1

    def split(own, name) -> tuple[SplitInputs, np.ndarray]:
        y = np.eye(count, dtype=np.uint8)[np.asarray(own)]
        features = (y @ rng.normal(size=(count, 8)) * 0.8 + rng.normal(size=(len(y), 8))).astype(np.float32)
        ids = tuple(f"{name}{row}" for row in range(len(y)))
        return SplitInputs(ids, np.ones(len(y), bool), features, y, None, {}), y

    train, y = split(classes, "i")
    test = None if labelled_test is None else split(labelled_test, "t")[0]
    return Inputs(tuple(f"class{index}" for index in range(count)), {"alpha": slice(0, 8)}, train, y, test)


def change(inputs: Inputs, row: int, cells) -> Inputs:
    labels = inputs.train_labels.copy()
    labels[row] = cells
    return replace(inputs, train_labels=labels)


ONE_EACH = make_classes([0, 1, 2, 1, 0], [2, 1])
NOT_SO = {
    "i2 has no label": change(ONE_EACH, 2, [0, 0, 0]),
    "i3 has class0 and class2": change(ONE_EACH, 3, [1, 0, 1]),
    "i1 has a label that is not known": change(ONE_EACH, 1, [0, 1, UNKNOWN]),
    "i4 has a label that is not known": change(ONE_EACH, 4, [0, UNKNOWN, 0]),
}


def test_images_with_one_label_each_are_of_exclusive_classes():
    said = "classes: each labelled image has exactly one of 3 labels, so they are exclusive"
    for choice in ("auto", "yes"):
        exclusive, line = choose_exclusive(choice, ONE_EACH)
        assert exclusive
        assert line.startswith(said)
    assert choose_exclusive("no", ONE_EACH) == (False, "")
    unlabelled = replace(ONE_EACH, test=replace(ONE_EACH.test, labels=None))
    assert choose_exclusive("auto", unlabelled)[0]


@pytest.mark.parametrize("what", NOT_SO)
def test_an_image_with_none_or_several_is_named_where_it_must_not_be(what):
    assert choose_exclusive("auto", NOT_SO[what]) == (False, "")
    with pytest.raises(InputError, match=f"--exclusive yes: train image {what}"):
        choose_exclusive("yes", NOT_SO[what])


def test_labels_of_test_that_are_not_so_are_said():
    other = replace(ONE_EACH.test, labels=np.array([[0, 0, 1], [1, 1, 0]], np.uint8))
    exclusive, line = choose_exclusive("auto", replace(ONE_EACH, test=other))
    assert not exclusive
    assert "test image t1 has class0 and class1" in line


def test_one_label_alone_is_no_class():
    alone = make_classes([0, 0, 0])
    assert choose_exclusive("auto", alone) == (False, "")
    with pytest.raises(InputError, match="there is one label alone, class0"):
        choose_exclusive("yes", alone)


def test_softmax_is_refused_where_classes_are_not_exclusive():
    heads = {"mine": replace(PRESETS["linear"], output="softmax")}
    with pytest.raises(InputError, match="--preset: the output of mine is softmax"):
        check_settings(Settings(heads=heads), ONE_EACH)


def test_a_head_without_an_output_follows_the_data():
    spec = PRESETS["linear-l2"]
    assert [spec.for_classes(exclusive).output for exclusive in (True, False)] == ["softmax", "sigmoid"]
    sigmoid = replace(spec, output="sigmoid")
    assert sigmoid.for_classes(True) is sigmoid
