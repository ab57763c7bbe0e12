"""Rows by which images can be compared: not those of fine-tuned backbones, of which each fold has its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from features.__main__ import app
from features.audit.comparable import choose_comparable
from features.common.errors import InputError
from features.store.cache import FeatureCache
from tests.features.dataset.written import make
from tests.features.store.caches import RECIPE, digests_of, rows_of, write_cache, write_rows

TRAIN, TEST = [f"t{number:03d}" for number in range(70)], [f"e{number:03d}" for number in range(40)]


def write_tuned(cache: Path, name: str = "net.tuned") -> None:
    """Write rows of a fine-tuned backbone, of which the training images are seen by several."""
    for split, ids in (("train", TRAIN), ("test", TEST)):
        write_rows(cache, rows_of(digests_of(ids)), split, replace(RECIPE, backbone=name, tuned="ab" * 16))


@pytest.fixture
def cache(tmp_path) -> Path:
    """A frozen backbone of both splits, and a fine-tuned one."""
    for split, ids in (("train", TRAIN), ("test", TEST)):
        write_cache(tmp_path / "cache", ids, split)
    write_tuned(tmp_path / "cache")
    return tmp_path / "cache"


def call(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


def test_fine_tuned_rows_are_left_out_where_there_are_training_images_and_that_is_said(cache):
    files = FeatureCache(cache)
    names, left_out = choose_comparable(files, ["train", "test"])
    assert names == ("net",)
    assert left_out.startswith("left out: net.tuned, as each fold")
    assert choose_comparable(files, ["test"]) == (("net", "net.tuned"), "")
    assert choose_comparable(files, ["test"], "net.tuned") == (("net.tuned",), "")
    assert choose_comparable(files, ["train"], "net") == (("net",), "")


def test_fine_tuned_rows_that_are_asked_for_or_alone_are_refused_and_the_frozen_ones_named(cache, tmp_path):
    with pytest.raises(InputError, match=r"by net\.tuned, as .* Name others: --backbones net$"):
        choose_comparable(FeatureCache(cache), ["train", "test"], "net,net.tuned")
    write_tuned(tmp_path / "alone", "net.tuned")
    write_tuned(tmp_path / "alone", "net.tuned.mid")
    for wanted in (None, "net.tuned.mid"):
        with pytest.raises(InputError, match=r"extract\.sh .* --backbones net --cache"):
            choose_comparable(FeatureCache(tmp_path / "alone"), ["train"], wanted)


def test_map_similar_and_audit_say_so_and_leave_them_out(cache, tmp_path):
    note = "left out: net.tuned, as each fold of the training images is seen by a fine-tuned backbone of its own"
    code, said = call("similar", cache, "--id", "t003")
    assert (code, f"understood: {note}" in said, "features of net image" in said) == (0, True, True), said
    code, said = call("map", cache, "--out", tmp_path, "--most", "20")
    assert (code, f"understood: {note}" in said, ") by net " in said) == (0, True, True), said
    code, said = call("similar", cache, "--id", "t003", "--backbones", "net.tuned")
    assert (code, "images cannot be compared by net.tuned" in said) == (2, True), said
    make(tmp_path / "data", train=" ".join(f"{i}.png" for i in TRAIN), test=" ".join(f"{i}.png" for i in TEST))
    pd.DataFrame({"ID": TRAIN, "bleed": np.arange(len(TRAIN)) % 2}).to_csv(tmp_path / "data" / "train.csv", index=False)
    code, said = call("audit", cache, "--data", tmp_path / "data")
    assert (code, note in said, "by net " in said) == (0, True, True), said
