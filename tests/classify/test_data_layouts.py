"""One data set in the shapes that people have it in gives one result; images are set aside and stay what they are."""

import shutil

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from classify.__main__ import app
from classify.inputs import read_inputs
from classify.validation import hold_out
from features.common.errors import InputError
from features.dataset.dataset import read_dataset
from features.store.cache import FeatureCache
from features.store.run_labels import read_run_labels
from tests.classify.toy import write_cache_file

CLASSES = ("epidural", "healthy", "subarachnoid")


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """The features of 90 images to learn from and 30 to test on, each in the folder of its class."""
    root = tmp_path_factory.mktemp("layouts")
    rng = np.random.default_rng(0)
    ids = {}
    for split, count in (("train", 90), ("test", 30)):
        classes = np.arange(count) % 3
        ids[split] = sorted(f"{CLASSES[own]}/{split}{number:03d}" for number, own in enumerate(classes))
        signal = np.array([[own == one.partition("/")[0] for own in CLASSES] for one in ids[split]], float)
        noise = rng.normal(size=(count, 8))
        write_cache_file(root / "cache" / split / "net.h5", ids[split], signal @ np.eye(3, 8) * 2 + noise)
    return root / "cache", ids


def in_folders(data, ids, column):
    """Write the images of each split; and of each a table where `column` gives one from the classes of its images."""
    for split, image_ids in ids.items():
        folder = data / {"train": "Training", "test": "Testing"}[split]
        for image_id in image_ids:
            path = folder / f"{image_id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        if column is not None:
            classes = pd.Series([image_id.partition("/")[0] for image_id in image_ids])
            table = pd.DataFrame({"image": [f"{image_id}.png" for image_id in image_ids]})
            pd.concat([table, column(classes)], axis=1).to_csv(data / f"{split}.csv", index=False)
    return data


LAYOUTS = {
    "a folder for each class": None,
    "0 and 1": lambda classes: pd.get_dummies(classes).astype(int),
    "words": lambda classes: pd.get_dummies(classes),
    "one column of classes": lambda classes: classes.rename("diagnosis"),
    "lists": lambda classes: classes.map(lambda one: f"['{one}']").rename("labels"),
    "bars": lambda classes: classes.map(lambda one: f"{one}|").rename("findings"),
}


def test_all_layouts_give_the_same_predictions(cached, tmp_path):
    cache, ids = cached
    written = {}
    for number, (name, column) in enumerate(LAYOUTS.items()):
        data, out = in_folders(tmp_path / str(number), ids, column), tmp_path / f"run{number}"
        words = ["run", str(data), "--cache", str(cache), "--out", str(out), "--preset", "none", "--fits-gb", "0"]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        files = ("predictions_probability.csv", "predictions_binary.csv", "metrics.csv", "oof_probability.csv")
        written[name] = [(out / file).read_bytes() for file in files]
    for name, files in written.items():
        assert files == written["0 and 1"], name


def test_images_set_aside_are_tested_on_and_keep_their_group(cached, tmp_path):
    cache, ids = cached
    data = in_folders(tmp_path / "data", {"train": ids["train"]}, lambda classes: classes.rename("class"))
    table = pd.read_csv(data / "train.csv")
    table["patient"] = [f"p{number // 3}" for number in range(len(table))]
    table.to_csv(data / "train.csv", index=False)
    inputs = read_inputs(read_dataset(data), FeatureCache(cache), None)
    held, said = hold_out(inputs, 0.3, 0)
    assert held.test is not None
    assert said == "test: 27 of 90 training images set aside (--holdout 0.3; 9 of 30 groups)"
    assert {*held.train.groups} & {*held.test.groups} == set()
    assert sorted(held.train.image_ids + held.test.image_ids) == ids["train"]
    assert held.test.labels.sum(axis=0).tolist() == [9, 9, 9]
    for part in (held.train, held.test):
        rows = [inputs.train.image_ids.index(image_id) for image_id in part.image_ids]
        np.testing.assert_array_equal(part.features, inputs.train.features[rows])
        np.testing.assert_array_equal(part.labels, inputs.train_labels[rows])
    assert hold_out(inputs, 0.3, 0)[0].test.image_ids == held.test.image_ids
    out = tmp_path / "run"
    words = ["run", str(data), "--cache", str(cache), "--out", str(out), "--preset", "none", "--fits-gb", "0"]
    result = CliRunner().invoke(app, [*words, "--holdout", "0.3"])
    assert result.exit_code == 0, result.output
    assert f"understood: {said}" in result.output
    labels = read_run_labels(out / "labels.csv")
    assert labels["test"].image_ids == held.test.image_ids
    assert {*labels["test"].stored} == {"train"}
    assert pd.read_csv(out / "predictions_probability.csv")["ID"].tolist() == list(held.test.image_ids)


def test_a_share_that_groups_do_not_give_is_said_and_so_is_a_label_that_is_not_in_it(cached, tmp_path):
    cache, ids = cached
    data = in_folders(tmp_path / "data", {"train": ids["train"]}, lambda classes: classes.rename("class"))
    table = pd.read_csv(data / "train.csv")
    of_class = table.groupby("class").cumcount()
    sizes = {"a": of_class < 12, "b": of_class < 21, "c": of_class < 30}  # 36, 27 and 27 images
    table["patient"] = np.select([own.to_numpy() for own in sizes.values()], [*sizes], "c")
    table.to_csv(data / "train.csv", index=False)
    inputs = read_inputs(read_dataset(data), FeatureCache(cache), None)
    held, said = hold_out(inputs, 0.2, 0)
    assert len(held.test.image_ids) == 27
    assert said == (
        "test: 27 of 90 training images set aside (--holdout 0.2; 1 of 3 groups): that is 30.0%, as groups stay whole "
        "and both sides should have images with and without each label"
    )
    assert hold_out(inputs, 0.31, 0)[1].endswith("groups)")  # within a tenth
    table.loc[table["class"] == "epidural", "patient"] = "d"
    table.to_csv(data / "train.csv", index=False)
    inputs = read_inputs(read_dataset(data), FeatureCache(cache), None)
    held, said = hold_out(inputs, 0.2, 0)
    assert said.endswith("; without a positive of epidural")
    assert held.train_labels.sum(axis=0)[0] == 30
    table["patient"] = np.where(table["class"] == "epidural", "d", "e")
    table.to_csv(data / "train.csv", index=False)
    with pytest.raises(InputError, match=r"leaves only one value of .* to learn from"):
        hold_out(read_inputs(read_dataset(data), FeatureCache(cache), None), 0.2, 0)


def test_a_share_that_rows_do_not_give_is_said_with_its_reason(cached, tmp_path):
    cache, ids = cached
    data = in_folders(tmp_path / "data", {"train": ids["train"]}, lambda classes: classes.rename("class"))
    inputs = read_inputs(read_dataset(data), FeatureCache(cache), None)
    said = hold_out(inputs, 0.01, 0)[1]  # one image would be nearer, but there are three classes
    assert said == (
        "test: 3 of 90 training images set aside (--holdout 0.01): that is 3.3%, as both sides should have images with "
        "and without each label"
    )
    few = inputs.select(np.concatenate([np.flatnonzero(column)[:8] for column in inputs.train_labels.T]))
    said = hold_out(few, 0.145, 0)[1]
    assert said == "test: 3 of 24 training images set aside (--holdout 0.145): that is 12.5%, the nearest there is"


def test_test_images_without_labels_stay_beside_those_set_aside(cached, tmp_path):
    cache, ids = cached
    data = in_folders(tmp_path / "data", ids, lambda classes: classes.rename("class"))
    (data / "test.csv").unlink()
    inputs = read_inputs(read_dataset(data), FeatureCache(cache), None)
    held, _ = hold_out(inputs, 0.2, 1)
    assert held.test.image_ids[:30] == tuple(ids["test"])
    assert (held.test.labels[:30] == 255).all()
    assert (held.test.labels[30:] != 255).all()
    assert held.test.stored.tolist() == ["test"] * 30 + ["train"] * 18
    for share in (0, 1, -0.5, 2):
        with pytest.raises(InputError, match="is not a share"):
            hold_out(inputs, share, 0)
    (data / "test.csv").write_text("image,class\n" + "".join(f"{i}.png,healthy\n" for i in ids["test"]))
    with pytest.raises(InputError, match="there are labelled test images already"):
        hold_out(read_inputs(read_dataset(data), FeatureCache(cache), None), 0.2, 0)


def test_test_images_whose_features_are_kept_with_those_of_train_are_predicted(cached, tmp_path):
    cache, ids = cached
    data = in_folders(tmp_path / "data", {"train": ids["train"]}, lambda classes: classes.rename("class"))
    table = pd.read_csv(data / "train.csv")
    table["split"] = ["test" if number % 6 == 0 else "train" for number in range(len(table))]
    (data / "train.csv").unlink()
    (data / "Training").rename(data / "images")
    table.to_csv(data / "labels.csv", index=False)
    alone = tmp_path / "cache"
    shutil.copytree(cache / "train", alone / "train")
    inputs = read_inputs(read_dataset(data), FeatureCache(alone), None)
    assert inputs.test is not None
    assert inputs.test.image_ids == tuple(ids["train"][::6])
    np.testing.assert_array_equal(
        inputs.test.features, FeatureCache(cache).read("train", ["net"], ids["train"][::6])[1]
    )
