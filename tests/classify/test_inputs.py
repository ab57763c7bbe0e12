"""Images meet their features by id; what lacks is an error or is listed, never dropped."""

from dataclasses import replace

import numpy as np
import pytest

from classify.inputs import Inputs, choose_features, describe_views, read_inputs, warn_shared_groups
from features.common.arrays import UNKNOWN
from features.common.errors import InputError
from features.dataset.dataset import read_dataset
from features.options import DatasetOptions
from features.store.cache import FeatureCache
from tests.classify.toy import LABELS, Toy, make_toy, reject, write_cache_file, write_split


@pytest.fixture
def toy(tmp_path) -> Toy:
    return make_toy(tmp_path, patients=6)


def read(toy: Toy, backbones=None) -> Inputs:
    return read_inputs(read_dataset(toy.data), FeatureCache(toy.cache), backbones)


def rewrite(toy: Toy, split: str, backbone: str, order) -> None:
    """Write a cache file again with its rows in another order, or only some of them."""
    ids, features = FeatureCache(toy.cache).read(split, [backbone])
    write_cache_file(toy.cache / split / f"{backbone}.h5", [ids[row] for row in order(ids)], features[order(ids)])


def test_rows_are_joined_by_id_whatever_the_order_of_the_cache(toy):
    first = read(toy)
    rewrite(toy, "train", "alpha", lambda ids: np.argsort(ids))
    rewrite(toy, "test", "beta", lambda ids: np.argsort(ids)[::-1])
    again = read(toy)
    assert first.train.image_ids == tuple(toy.train_ids)
    assert first.test.image_ids == tuple(toy.test_ids)
    np.testing.assert_array_equal(first.train.features, again.train.features)
    np.testing.assert_array_equal(first.test.features, again.test.features)
    np.testing.assert_array_equal(first.train_labels, toy.train_labels)
    row = FeatureCache(toy.cache).read("train", ["beta"], [toy.train_ids[3]])[1]
    np.testing.assert_array_equal(first.train.features[3:4, first.columns["beta"]], row)


def test_backbones_stand_side_by_side_in_the_order_asked_for(toy):
    assert read(toy).columns == {"alpha": slice(0, 12), "beta": slice(12, 32)}
    swapped = read(toy, ("beta", "alpha"))
    assert swapped.columns == {"beta": slice(0, 20), "alpha": slice(20, 32)}
    np.testing.assert_array_equal(swapped.train.features[:, 20:], read(toy).train.features[:, :12])


def test_rejected_images_are_left_out_with_their_labels_and_groups_and_listed(toy):
    reject(toy, f"train/{toy.train_ids[2]}.png", f"test/{toy.test_ids[0]}.png")
    whole, inputs = np.delete(np.arange(30), 2), read(toy)
    assert inputs.train.rejected_ids == (toy.train_ids[2],)
    assert inputs.train.used_ids == tuple(toy.train_ids[row] for row in whole)
    np.testing.assert_array_equal(inputs.train_labels, toy.train_labels[whole])
    np.testing.assert_array_equal(inputs.train.groups, [f"p{row // 5}" for row in whole])
    assert inputs.train.features.shape == (29, 32)
    assert inputs.test.rejected_ids == (toy.test_ids[0],)
    assert inputs.test.image_ids == tuple(toy.test_ids)


def test_a_rejection_in_one_split_leaves_the_same_id_in_the_other(tmp_path):
    ids = [f"a{row}" for row in range(8)]
    labels = {"bleed": np.tile([0, 1], 4)}
    toy = Toy(tmp_path / "toy", tmp_path / "cache", ids, ids, np.empty(0), np.empty(0))
    write_split(toy.data, "train", ids, labels)
    write_split(toy.data, "test", ids, {})
    for split in ("train", "test"):
        write_cache_file(toy.cache / split / "alpha.h5", ids, np.eye(8, 4))
    reject(toy, "test/a0.png")
    inputs = read(toy)
    assert inputs.train.rejected_ids == ()
    assert inputs.test.rejected_ids == ("a0",)


def test_an_image_that_lacks_features_and_was_not_rejected_is_an_input_error(toy):
    rewrite(toy, "test", "alpha", lambda ids: np.arange(len(ids))[2:])
    with pytest.raises(InputError, match=r"alpha\.h5: 2 of 30 images are missing \(first: s\d{4}\)\. Run: .*extract"):
        read(toy)


def test_a_split_of_rejected_images_only_is_an_input_error(toy):
    reject(toy, *(f"test/{image_id}.png" for image_id in toy.test_ids))
    with pytest.raises(InputError, match=r"rejected\.csv lists every image of the split test \(30\)"):
        read(toy)


def test_a_backbone_that_is_not_cached_is_an_input_error(toy):
    with pytest.raises(InputError, match=r"gamma\.h5 is not there \(cached for train: alpha, beta\)"):
        read(toy, ("gamma",))


def test_a_backbone_that_only_train_has_is_an_input_error(toy):
    (toy.cache / "test" / "beta.h5").unlink()
    with pytest.raises(InputError, match=r"test/beta\.h5 is not there"):
        read(toy)


def test_features_of_another_recipe_in_the_test_split_are_an_input_error(toy):
    ids, features = FeatureCache(toy.cache).read("test", ["alpha"])
    write_cache_file(toy.cache / "test" / "alpha.h5", ids, features, weights_digest="other")
    with pytest.raises(InputError, match="extracted differently"):
        read(toy)


def test_an_empty_cache_is_an_input_error(toy, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no features of the split train. Run: .*extract"):
        read_inputs(read_dataset(toy.data), FeatureCache(tmp_path / "empty"), None)


@pytest.mark.parametrize("value", [0, 1])
def test_a_label_with_one_value_is_an_input_error_that_names_the_others(tmp_path, value):
    labels = {"same": np.full(10, value), "mixed": np.tile([0, 1], 5)}
    write_split(tmp_path / "toy", "train", [f"a{row}" for row in range(10)], labels)
    write_cache_file(tmp_path / "cache" / "train" / "alpha.h5", [f"a{row}" for row in range(10)], np.zeros((10, 2)))
    dataset = read_dataset(tmp_path / "toy", DatasetOptions(labels="same,mixed"))
    with pytest.raises(InputError, match=rf"same is positive in {10 * value} of 10 images .* --labels mixed"):
        read_inputs(dataset, FeatureCache(tmp_path / "cache"), None)


def test_several_labels_with_one_value_are_all_named(tmp_path):
    ids = [f"a{row}" for row in range(10)]
    labels = {"never": np.zeros(10, int), "mixed": np.tile([0, 1], 5), "always": np.ones(10, int)}
    write_split(tmp_path / "toy", "train", ids, labels)
    write_cache_file(tmp_path / "cache" / "train" / "alpha.h5", ids, np.eye(10))
    dataset = read_dataset(tmp_path / "toy", DatasetOptions(labels="never,mixed,always"))
    with pytest.raises(
        InputError,
        match=r"never is positive in 0, always is positive in 10 of 10 images with .* Leave them out: --labels mixed$",
    ):
        read_inputs(dataset, FeatureCache(tmp_path / "cache"), None)


def test_a_label_called_like_a_column_of_the_run_is_an_input_error(tmp_path):
    ids = ["a", "b"]
    write_split(tmp_path / "toy", "train", ids, {"fold": np.array([0, 1])})
    write_cache_file(tmp_path / "cache" / "train" / "alpha.h5", ids, np.zeros((2, 2)))
    with pytest.raises(InputError, match="a label cannot be called fold"):
        read_inputs(
            read_dataset(tmp_path / "toy", DatasetOptions(labels="fold")), FeatureCache(tmp_path / "cache"), None
        )


def test_a_data_set_without_train_is_an_input_error(tmp_path):
    write_split(tmp_path / "toy", "test", ["a"], {})
    write_cache_file(tmp_path / "cache" / "train" / "alpha.h5", ["a"], np.zeros((1, 2)))
    with pytest.raises(InputError, match="has no images to learn from"):
        read_inputs(read_dataset(tmp_path / "toy"), FeatureCache(tmp_path / "cache"), None)


def test_label_names_are_the_data_sets(toy):
    assert read(toy).label_names == LABELS


def test_images_that_changed_since_they_were_extracted_are_refused(toy):
    (toy.data / "train" / f"{toy.train_ids[0]}.png").write_bytes(b"another")
    with pytest.raises(InputError, match=f"changed since .*alpha.h5 .*first: {toy.train_ids[0]}"):
        read(toy)


def test_without_train_csv_the_message_says_so(toy):
    (toy.data / "train.csv").unlink()
    with pytest.raises(InputError, match=r"no label is known for the training images"):
        read(toy)


def test_groups_on_both_sides_are_named():
    train, test = np.array(["a", "b", "", "c"]), np.array(["", "c", "b", "b", "d"])
    told = "2 groups are in train and in test, so that the figures of test are too good: b, c."
    assert warn_shared_groups(train, test) == [told]
    many = np.array([f"g{number:02d}" for number in range(12)])
    assert warn_shared_groups(many, many)[0].endswith("g08, g09 and 2 more.")
    assert (
        warn_shared_groups(train, test[:1]) == warn_shared_groups(train, None) == warn_shared_groups(None, test) == []
    )


def test_a_label_of_one_known_value_is_an_input_error_that_counts_the_known(toy):
    dataset = read_dataset(toy.data)
    train = dataset.splits["train"]
    labels = train.labels.copy()
    labels[labels[:, 0] == 0, 0] = UNKNOWN
    count = (labels[:, 0] == 1).sum()
    masked = replace(dataset, splits={"train": replace(train, labels=labels)})
    with pytest.raises(InputError, match=rf"{LABELS[0]} is positive in {count} of {count} known of 30 images with "):
        read_inputs(masked, FeatureCache(toy.cache), None)


def test_of_several_views_the_mean_is_read_or_the_first_and_it_is_said(toy):
    views = {}
    for split, ids in (("train", toy.train_ids), ("test", toy.test_ids)):
        views[split] = np.random.default_rng(len(ids)).normal(size=(len(ids), 3, 4)).astype(np.float32)
        write_cache_file(toy.cache / split / "alpha.h5", ids, views[split])
    inputs = read(toy)
    own = inputs.columns["alpha"]
    np.testing.assert_allclose(inputs.train.features[:, own], views["train"].mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(inputs.test.features[:, own], views["test"].mean(axis=1), atol=1e-6)
    first = read_inputs(read_dataset(toy.data), FeatureCache(toy.cache), None, "none")
    np.testing.assert_array_equal(first.train.features[:, own], views["train"][:, 0])
    np.testing.assert_array_equal(first.train.features[:, 4:], inputs.train.features[:, 4:])
    assert describe_views(inputs.recipes, "mean") == "views: mean of 3 of alpha; 1 of beta"
    drawn = describe_views(inputs.recipes, "mean", augment=True)
    assert drawn == "views: mean of 3 of alpha; 1 of beta; heads learn from all"
    assert describe_views(inputs.recipes, "none") == "views: first of 3 of alpha; 1 of beta"
    assert describe_views({"beta": inputs.recipes["beta"]}, "mean") == ""


@pytest.fixture
def mid(toy) -> FeatureCache:
    """The toy's cache, with mid-level features of alpha, and both kinds of gamma at two input sizes."""
    for row in ("alpha.mid", "gamma", "gamma.mid", "gamma.384", "gamma.384.mid"):
        for split, ids in (("train", toy.train_ids), ("test", toy.test_ids)):
            write_cache_file(toy.cache / split / f"{row}.h5", ids, np.eye(len(ids), 6))
    return FeatureCache(toy.cache)


def test_mid_level_features_are_taken_where_there_are_any_and_it_is_said(mid):
    names, said = choose_features(mid, None, None, ())
    assert names == ("alpha.mid", "beta", "gamma.mid", "gamma.384.mid")
    assert said == (
        "features: mid of alpha, gamma, gamma.384; last of beta (--features last takes averages of the last maps)"
    )


def test_the_challenge_learns_from_the_last_averages_and_it_is_said(mid):
    names, said = choose_features(mid, ("gamma", "alpha"), None, ("challenge",))
    assert names == ("gamma", "gamma.384", "alpha")
    assert said == (
        "features: last of gamma, gamma.384, alpha, as challenge learns from those "
        "(--features mid takes mid-level features)"
    )


@pytest.mark.parametrize(
    ("backbones", "kinds", "expected"),
    [
        (("gamma", "alpha"), ("mid",), ("gamma.mid", "gamma.384.mid", "alpha.mid")),
        (("alpha",), ("last", "mid"), ("alpha", "alpha.mid")),
        (("alpha.mid", "gamma.native"), ("mid",), ("alpha.mid", "gamma.mid")),
        (("alpha.mid", "gamma.last"), None, ("alpha.mid", "gamma")),
        (("alpha.mid", "alpha"), None, ("alpha.mid",)),
        (("gamma",), None, ("gamma.mid", "gamma.384.mid")),
        (("gamma.native",), None, ("gamma.mid",)),
        (("gamma.384",), ("last",), ("gamma.384",)),
        (("gamma.384.last",), None, ("gamma.384",)),
        (("gamma.native.mid", "alpha.native.last"), None, ("gamma.mid", "alpha")),
        (("delta",), None, ("delta",)),
    ],
)
def test_kinds_of_features_and_single_rows_can_be_asked_for(mid, backbones, kinds, expected):
    assert choose_features(mid, backbones, kinds, ())[0] == expected


def test_a_backbone_that_is_named_twice_is_said_once(mid):
    names, said = choose_features(mid, ("alpha", "alpha.mid", "alpha.native"), None, ())
    assert names == ("alpha.mid",)
    assert said == "features: mid of alpha (--features last takes averages of the last maps)"


@pytest.mark.parametrize(("name", "kind", "asked"), [("alpha.mid", "mid", "last"), ("gamma.384.last", "last", "mid")])
def test_a_row_named_in_full_and_another_kind_of_features_contradict_each_other(mid, name, kind, asked):
    with pytest.raises(InputError, match=f"--backbones {name} names {kind} features, not those of --features {asked}"):
        choose_features(mid, ("alpha", name), (asked,), ())


def test_what_was_asked_for_is_not_said(mid):
    assert choose_features(mid, None, ("last",), ())[1] == ""
    assert choose_features(mid, ("beta",), None, ())[1] == ""
    mixed = choose_features(mid, ("alpha.mid", "beta", "gamma.native"), None, ())[1]
    assert mixed == "features: last of beta; mid of gamma (--features last takes averages of the last maps)"


def test_kinds_that_are_mixed_for_want_of_others_are_said(mid):
    for name in ("alpha", "gamma", "gamma.384", "gamma.384.mid"):
        (mid.root / "train" / f"{name}.h5").unlink()
    names, said = choose_features(mid, None, None, ())
    assert names == ("alpha.mid", "beta", "gamma.mid")
    assert said == "features: mid of alpha, gamma; last of beta"


def test_a_kind_of_features_that_is_missing_is_an_input_error(mid):
    with pytest.raises(
        InputError,
        match=r"no mid features of beta\. Leave --features out; or name the others: --backbones "
        r"alpha\.native,gamma\.native,gamma\.384; or run: .*--backbones beta .*--features mid ",
    ):
        choose_features(mid, None, ("mid",), ())


def without(cache: FeatureCache, *rows: str) -> FeatureCache:
    """The same cache without some of its rows."""
    for row in rows:
        (cache.root / "train" / f"{row}.h5").unlink()
    return FeatureCache(cache.root)


def test_of_kinds_that_several_backbones_do_not_have_the_remedies_work(mid, toy):
    """An .onnx file gives the last features alone, and of `gamma.384` mid-level features alone are cached."""
    write_cache_file(toy.cache / "train" / "own.h5", toy.train_ids, np.eye(30, 6), weights="own.onnx")
    mixed = without(mid, "alpha", "alpha.mid", "gamma.384", "beta")
    with pytest.raises(InputError) as caught:
        choose_features(mixed, None, ("last",), ())
    assert str(caught.value).startswith(
        f"--features last: {toy.cache} holds no last features of gamma.384. Leave --features out; or name the others: "
        "--backbones gamma.native,own.native; or run: scripts/extract.sh DATA --backbones gamma --weights random "
        "--features last --sizes 384 "
    )
    assert choose_features(mixed, ("gamma.native", "own.native"), ("last",), ())[0] == ("gamma", "own")
    with pytest.raises(InputError) as caught:
        choose_features(mixed, None, ("mid",), ())
    assert str(caught.value) == (
        f"--features mid: {toy.cache} holds no mid features of own. Leave --features out; or name the others: "
        "--backbones gamma.native,gamma.384"
    )
    assert choose_features(mixed, ("gamma.native", "gamma.384"), ("mid",), ())[0] == ("gamma.mid", "gamma.384.mid")
    assert choose_features(mixed, None, None, ())[0] == ("gamma.mid", "gamma.384.mid", "own")
    with pytest.raises(InputError, match=r"no last features of gamma\.384 and mid features of own\. Leave"):
        choose_features(mixed, None, ("last", "mid"), ())
    with pytest.raises(InputError, match=r"--backbones own\.native,gamma\.last; or run"):
        choose_features(mixed, ("own", "gamma.384", "gamma.last", "gamma.384.last"), ("last",), ())


@pytest.mark.parametrize("name", ["own.mid", "own.384"])
def test_no_command_extracts_what_a_model_of_ones_own_may_not_give(toy, name):
    write_cache_file(toy.cache / "train" / "own.h5", toy.train_ids, np.eye(30, 6), weights="own.onnx")
    with pytest.raises(InputError) as caught:
        read(toy, (name,))
    assert str(caught.value) == (
        f"{toy.cache / 'train' / name}.h5 is not there (cached for train: alpha, beta, own); its model may not give "
        "these features. Name others."
    )


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("delta.native", "delta"),
        ("delta.last", "delta"),
        ("delta.native.mid", "delta.mid"),
        ("delta.9.last", "delta.9"),
    ],
)
def test_a_message_names_no_file_that_cannot_exist(mid, toy, name, row):
    names, _ = choose_features(mid, (name,), None, ())
    with pytest.raises(InputError, match=rf"train/{row}\.h5 is not there .* --backbones delta( |$)"):
        read(toy, names)


def test_a_damaged_file_of_features_that_are_not_wanted_stops_nothing(mid, toy):
    (toy.cache / "train" / "alpha.mid.h5").write_bytes(b"damaged")
    names, _ = choose_features(mid, None, ("last",), ())
    assert names == ("alpha", "beta", "gamma", "gamma.384")
    assert read_inputs(read_dataset(toy.data), mid, names).columns.keys() == {*names}
    names, _ = choose_features(mid, None, None, ())
    with pytest.raises(InputError, match=r"alpha\.mid\.h5 is damaged"):
        read_inputs(read_dataset(toy.data), mid, names)


def test_an_empty_cache_leaves_the_message_to_the_reader(tmp_path):
    assert choose_features(FeatureCache(tmp_path), None, None, ()) == (None, "")
