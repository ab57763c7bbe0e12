"""`python -m classify cam` with what it cannot show: one message each, and nothing of before is lost."""

import errno
import json
import os

import h5py
import numpy as np
import pandas as pd
import pytest

from classify.cam.files import renewing
from features.common.errors import InputError
from features.store.maps import maps_path
from features.store.recipe import Recipe
from tests.classify.cam.cam_runs import cam, change, change_maps, edit_out_of_fold, make_small_run
from tests.classify.toy import LABELS, reseal


@pytest.fixture
def own(tmp_path):
    """What a test may spoil."""
    return make_small_run(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (lambda toy, out: (out / "run.json").unlink(), (), "holds no finished run"),
        (
            lambda toy, out: maps_path(toy.cache, "train", "beta").unlink(),
            (),
            "holds no maps that logistic/all could be",
        ),
        (lambda toy, out: None, ("--model", "huge"), "has no model 'huge'"),
        (lambda toy, out: None, ("--cache", "/no/such"), "/no/such is not there"),
        (lambda toy, out: (out / "cam").mkdir(), (), "holds no heat maps of Headbank (cam.json is missing)"),
        (lambda toy, out: (out / "oof_probability.csv").unlink(), (), "oof_probability.csv cannot be read"),
        (
            lambda toy, out: change(out / "oof_probability.csv", ",0,", ",zero,"),
            (),
            "oof_probability.csv cannot be read",
        ),
        (
            lambda toy, out: edit_out_of_fold(out, lambda table: table[table["ID"] != toy.train_ids[1]]),
            (),
            "oof_probability.csv has no row of logistic/all for 1 of 3 training images (first: ",
        ),
        (
            lambda toy, out: edit_out_of_fold(
                out, lambda table: pd.concat([table, table[table["model"] == "logistic/all"][:1]])
            ),
            (),
            "oof_probability.csv cannot be read (it has several rows of logistic/all for",
        ),
        (
            lambda toy, out: edit_out_of_fold(out, lambda table: table.assign(fold="-1")),
            (),
            "oof_probability.csv cannot be read (a fold of logistic/all is below 0)",
        ),
        (
            lambda toy, out: edit_out_of_fold(out, lambda table: table.assign(fold="0.5")),
            (),
            "oof_probability.csv cannot be read (",
        ),
        (
            lambda toy, out: edit_out_of_fold(out, lambda table: table.assign(fold="9" * 30)),
            (),
            "oof_probability.csv cannot be read (",
        ),
        (
            lambda toy, out: edit_out_of_fold(out, lambda table: table.assign(**{LABELS[0]: "1.5"})),
            (),
            "oof_probability.csv cannot be read (a value of logistic/all is no probability)",
        ),
        (lambda toy, out: (out / "labels.csv").unlink(), (), "labels.csv cannot be read"),
        (lambda toy, out: change(out / "labels.csv", "split,", "part,"), (), "labels.csv cannot be read"),
        (lambda toy, out: (out / "thresholds.csv").unlink(), (), "thresholds.csv is missing"),
        (lambda toy, out: (out / "gallery.csv").unlink(), (), "gallery.csv cannot be read"),
        (lambda toy, out: change(out / "gallery.csv", "split,", "part,"), (), "gallery.csv cannot be read"),
        (lambda toy, out: toy.cache.rename(toy.cache.with_name("away")), (), "is not there as seen from"),
        (lambda toy, out: maps_path(toy.cache, "train", "beta").write_bytes(b"x"), (), "beta.maps.h5 is damaged"),
        (
            lambda toy, out: (toy.cache / "train" / "beta.h5").unlink(),
            (),
            "train/beta.h5 is not there (cached for train: alpha). Run: scripts/extract.sh DATA --backbones beta",
        ),
        (
            lambda toy, out: change_maps(toy, "beta", lambda maps: maps[..., :7]),
            (),
            "beta.maps.h5: its maps have 7 channels, but the features 20. Remove the file and run",
        ),
        (
            lambda toy, out: change_maps(toy, "beta", lambda maps: maps * np.float16(np.nan)),
            (),
            "is not finite. Remove the file and run",
        ),
        (lambda toy, out: (out / "cam").symlink_to(toy.cache), (), "cam is a link, which a folder of heat maps would"),
    ],
)
def test_what_cannot_be_shown_is_one_message(spoil, options, message, own):
    toy, out = own
    spoil(toy, out)
    code, said = cam(out, *options)
    assert (code, message in said) == (2, True), said
    assert not (out / "cam" / "cam.json").exists()


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.ENOSPC, "Make room on its disk."), (errno.EROFS, "See to it that its folder can be")]
)
def test_what_the_disk_refuses_is_said_with_what_helps(number, remedy, own):
    _, out = own
    assert cam(out)[0] == 0
    with pytest.raises(InputError, match=f"cam cannot be written \\({os.strerror(number)}\\). {remedy}"), renewing(out):
        raise OSError(number, os.strerror(number))
    assert (out / "cam" / "cam.json").exists()


def test_features_of_another_fingerprint_are_refused(own):
    toy, out = own
    with h5py.File(toy.cache / "train" / "beta.h5", "a") as file:
        other = Recipe("beta", "random", "1" * 32, "none", 32)
        file.attrs.update(other.attributes() | {"fingerprint": other.fingerprint})
    code, said = cam(out)
    assert (code, "train/beta.h5 was extracted otherwise than what" in said) == (2, True), said


def test_maps_of_another_fingerprint_are_refused(own):
    toy, out = own
    path = maps_path(toy.cache, "train", "beta")
    record = json.loads((out / "run.json").read_text())
    record["backbones"]["beta"]["recipe"]["input_size"] = 64
    reseal(out, backbones=record["backbones"])
    code, said = cam(out)
    assert (code, f"{path} was extracted otherwise than what" in said) == (2, True), said
    assert "input_size 64 -> 32" in said
