"""Reading the cache: joined by id, in the order asked for, of one fingerprint, in little memory."""

import os
import time
import tracemalloc
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import features.store.cache_file
from features.common.errors import InputError
from features.common.files import digest_file
from features.common.keras_import import backend_name
from features.store.cache import FeatureCache, claim_default_cache, default_cache
from features.store.cache_file import CacheFile
from features.store.images_table import FactsTable, Rejection, SeenImage, Stamp, replace_rejections
from features.store.source import Source, write_source
from tests.features.store.caches import (
    ODD_IDS,
    RECIPE,
    digests_of,
    facts_of,
    matrix_of,
    part_store,
    rows_of,
    write_cache,
    write_rows,
)

IDS = tuple(f"image {number}" for number in range(23))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Two backbones, whose files hold the same images in different orders, and a test split."""
    root = tmp_path_factory.mktemp("cache")
    write_cache(root, IDS, backbone="net", width=3)
    write_cache(root, IDS[::-1], backbone="wide", width=5)
    write_cache(root, ODD_IDS, "test", "net", 3)
    return FeatureCache(root)


def message_of(cache: FeatureCache, *arguments: object) -> str:
    with pytest.raises(InputError) as caught:
        cache.read(*arguments)  # type: ignore[arg-type]
    return str(caught.value)


def test_what_is_there_is_listed(cache):
    assert cache.splits() == ("test", "train")
    assert cache.backbones("train") == ("net", "wide")
    assert cache.backbones("test") == ("net",)
    assert cache.backbones("none") == ()
    assert cache.rejected("train") == {}


def test_locks_parts_and_half_written_files_are_no_cache_files(cache, tmp_path):
    write_cache(tmp_path, IDS)
    for name in (".net.h5.tmp", "net.h5.lock", "images.csv"):
        (tmp_path / "train" / name).touch()
    (tmp_path / "train" / "net.parts").mkdir()
    assert FeatureCache(tmp_path).backbones("train") == ("net",)
    assert FeatureCache(tmp_path).splits() == ("train",)


def test_a_file_says_what_it_is(cache):
    file = cache.open("train", "wide")
    assert file.path == cache.root / "train" / "wide.h5"
    assert file.recipe == replace(RECIPE, backbone="wide")
    assert file.fingerprint == file.recipe.fingerprint
    assert (file.rows, file.views, file.width, file.recipe.storage) == (23, 1, 5, "float32")
    assert (file.keras_version, file.keras_backend, file.device) == (version("keras"), backend_name(), "CPU")
    assert file.time.endswith("+00:00")


def test_all_rows_come_in_the_order_of_the_file(cache):
    ids, matrix = cache.read("test", ["net"])
    assert ids == ODD_IDS
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, matrix_of(digests_of(ODD_IDS).values()))


def test_backbones_of_different_orders_are_joined_by_id(cache):
    ids, matrix = cache.read("train", ["wide", "net"])
    assert ids == IDS[::-1]
    digests = digests_of(ids).values()
    np.testing.assert_array_equal(matrix, np.hstack([matrix_of(digests, 5), matrix_of(digests, 3)]))


@settings(deadline=None)
@given(wanted=st.lists(st.sampled_from(IDS)), backbones=st.lists(st.sampled_from(["net", "wide"]), min_size=1))
def test_any_ids_in_any_order_equal_the_model(cache, wanted, backbones):
    ids, matrix = cache.read("train", backbones, wanted)
    width = {"net": 3, "wide": 5}
    model = [
        np.concatenate([matrix_of([digest], width[name])[0] for name in backbones])
        for digest in (digests_of([image_id])[image_id] for image_id in wanted)
    ]
    assert ids == tuple(wanted)
    assert matrix.shape == (len(wanted), sum(width[name] for name in backbones))
    np.testing.assert_array_equal(matrix, np.array(model, np.float32).reshape(matrix.shape))


def test_only_the_first_view_is_read(tmp_path):
    rows = rows_of(digests_of(IDS), views=3)
    write_rows(tmp_path, rows, recipe=replace(RECIPE, views=("identity", "flip", "turn")))
    np.testing.assert_array_equal(FeatureCache(tmp_path).read("train", ["net"])[1], rows.features[:, 0])


def test_float16_is_kept_as_such_and_read_as_float32(tmp_path):
    rows = rows_of(digests_of(IDS), dtype="float16")
    write_rows(tmp_path, rows, recipe=replace(RECIPE, storage="float16"))
    cache = FeatureCache(tmp_path)
    assert cache.open("train", "net").recipe.storage == "float16"
    matrix = cache.read("train", ["net"], IDS[::2])[1]
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, rows.features[::2, 0].astype(np.float32))


def test_the_index_holds_ids_and_digests_in_order(cache):
    assert list(cache.open("test", "net").index.items()) == list(digests_of(ODD_IDS).items())


def test_memory_is_the_result_and_a_few_chunks(tmp_path, monkeypatch):
    ids = [f"i{number}" for number in range(4000)]
    rows = replace(rows_of(digests_of(ids)), features=np.ones((4000, 1, 2048), np.float32))  # 32 MB
    write_rows(tmp_path, rows)
    cache = FeatureCache(tmp_path)
    monkeypatch.setattr(features.store.cache_file, "THREADS", 2)
    tracemalloc.start()
    try:
        cache.read("train", ["net"], ids[::400])
        few = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        matrix = cache.read("train", ["net"])[1]
        everything = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert few < 7e6  # 4,000 ids, and for each thread two chunks and the flags of one
    assert everything < matrix.nbytes + 7e6


def test_a_missing_cache_says_what_to_run(tmp_path):
    with pytest.raises(InputError) as caught:
        FeatureCache(tmp_path / "none")
    assert str(caught.value) == (
        f"{tmp_path}/none is not there: no features have been extracted. "
        f"Run: scripts/extract.sh DATA --cache {tmp_path}/none"
    )


def test_a_missing_backbone_is_named_with_those_that_are_there(cache):
    assert message_of(cache, "train", ["other"]) == (
        f"{cache.root}/train/other.h5 is not there (cached for train: net, wide). "
        f"Run: scripts/extract.sh DATA --backbones other --cache {cache.root}"
    )


def test_a_split_that_is_missing_is_named_with_those_that_are_there(cache):
    said = message_of(cache, "tset", ["net"])
    assert said.startswith(f"{cache.root}/tset/net.h5 is not there (splits: {', '.join(cache.splits())}). ")


def test_missing_rows_are_counted(cache):
    assert message_of(cache, "train", ["net"], [IDS[0], "a17", ODD_IDS[0]]) == (
        f"{cache.root}/train/net.h5: 2 of 3 images are missing (first: a17). Run: scripts/extract.sh DATA "
        f"--backbones net --weights imagenet --features last --precision float32 --dtype float32 --views 1 "
        f"--range 0,65535 --fit squash --orientation stored --cache {cache.root}"
    )


def test_the_wanted_backbones_are_extracted_where_there_is_no_cache(tmp_path):
    with pytest.raises(InputError) as caught:
        FeatureCache(tmp_path / "none", tmp_path / "my data", ("net", "wide"))
    command = f"scripts/extract.sh '{tmp_path}/my data' --backbones net,wide --cache {tmp_path}/none"
    assert str(caught.value).endswith(command)


def test_a_cache_of_another_data_set_is_named_with_the_command_for_the_cache_of_this_one(tmp_path):
    data = tmp_path / "my data"
    for backbone in ("net", "wide"):
        path = write_cache(tmp_path, ("p1", "p2", "p3", "p4"), backbone=backbone)
        write_source(path, Source(tmp_path / "demo", {"id_column": "name"}, replace(RECIPE, backbone=backbone)))
    message = message_of(FeatureCache(tmp_path, data), "train", ["net", "wide"], ["a", "b"])
    assert message.startswith(
        f"{tmp_path}/train/net.h5 holds none of the 2 images of {data} (first: a, b), but 4 others (first: p1, p2, p3 "
        f"and 1 more). Name the cache of {data} with --cache; or extract it: scripts/extract.sh '{data}' --backbones "
        "net,wide --weights imagenet"
    )
    assert "--cache" not in message.partition("or extract it: ")[2]
    assert "id-column" not in message
    # Where some are there, it is the cache of this data set, wherever that lay before.
    message = message_of(FeatureCache(tmp_path, data), "train", ["net", "wide"], ["a", "p1"])
    assert f"1 of 2 images are missing (first: a). Run: scripts/extract.sh '{data}' --backbones net,wide" in message
    assert message.endswith(f"--cache {tmp_path}")


def two_sets(tmp_path) -> tuple[Path, Path, Path]:
    """Two data sets with the same ids, and the cache of the first."""
    first, second, root = (tmp_path / name for name in ("first", "second", "cache"))
    for folder in (first, second):
        folder.mkdir()
        for name in "ab":
            (folder / f"{name}.png").write_bytes(f"{folder.name} {name}".encode())
    write_rows(root, rows_of({name: digest_file(first / f"{name}.png") for name in "ab"}))
    write_source(root / "train" / "net.h5", Source(first, {}, RECIPE))
    return first, second, root


def refusals(root: Path, data: Path, folder: Path) -> list[str]:
    """What is said of images that changed, of rows and of a backbone that are missing."""
    cache = FeatureCache(root, data)
    with pytest.raises(InputError) as caught:
        cache.refuse_changed("train", ["net"], ["a", "b"], [folder / "a.png", folder / "b.png"])
    wanted = (("train", "net"), ("train", "wide"), ("test", "net"))
    return [str(caught.value), *(message_of(cache, split, [name], ["a", "c"]) for split, name in wanted)]


def test_a_cache_of_another_data_set_with_the_same_ids_is_never_overwritten_by_a_command_printed(tmp_path, monkeypatch):
    monkeypatch.setattr("features.store.cache.__file__", str(tmp_path / "features" / "store" / "cache.py"))
    first, second, root = two_sets(tmp_path)
    found = refusals(root, second, second)
    why = ("2 images of train changed since", "1 of 2 images are missing", "wide.h5 is not there", "test/net.h5 is not")
    for message, what in zip(found, why, strict=True):
        assert what in message
        said, _, command = message.partition(" or extract it: ")
        assert said.endswith(
            f": these features are of {first}, not of {second}. Name the cache of {second} with --cache;"
        )
        assert command.startswith(f"scripts/extract.sh {second}")
        assert "--cache" not in command
    # Even where the cache lies at the default place of the data set that was named.
    own = tmp_path / "features" / "cache" / "second"
    own.parent.mkdir(parents=True)
    root.rename(own)
    assert {message.rpartition(" ")[2] for message in refusals(own, second, second)} == {"CACHE"}


@pytest.mark.parametrize("how", ["moved", "linked", "a folder of it", "no longer there", "not known"])
def test_a_data_set_at_another_path_keeps_its_cache(tmp_path, how):
    first, second, root = two_sets(tmp_path)
    data, folder = second, second
    if how == "moved":
        first.rename(tmp_path / "elsewhere")
    elif how == "linked":
        data = tmp_path / "link"
        data.symlink_to(first)
    elif how == "a folder of it":
        write_source(root / "train" / "net.h5", Source(second / "train", {}, RECIPE))
        (second / "train").mkdir()
    elif how == "not known":
        (root / "train" / "net.source.json").unlink()
    else:
        data = tmp_path / "gone"
    for message in refusals(root, data, folder):
        assert "these features are of" not in message
        assert message.endswith(f"--cache {root}")


def test_no_backbone_is_an_error(cache):
    assert message_of(cache, "train", []) == f"no backbone was named to read from {cache.root}. Name at least one."


@pytest.mark.parametrize(
    ("order", "says"), [(("all", "few"), "1 of 3 images are missing"), (("few", "all"), "has 3 images")]
)
def test_without_ids_all_backbones_must_have_the_same_images(tmp_path, order, says):
    write_cache(tmp_path, "abc", backbone="all")
    write_cache(tmp_path, "ab", backbone="few")
    assert says in message_of(FeatureCache(tmp_path), "train", order)
    assert FeatureCache(tmp_path).read("train", order, ["b"])[1].shape == (1, 6)


def test_fingerprints_that_differ_between_splits_never_meet(tmp_path):
    write_cache(tmp_path, "ab", "train")
    other = replace(RECIPE, precision="mixed")
    write_rows(tmp_path, rows_of(digests_of("cd")), "test", other)
    for split in ("train", "test"):
        message = message_of(FeatureCache(tmp_path), split, ["net"])
        assert "were extracted differently (precision " in message
        assert f"{tmp_path}/train/net.h5" in message
        assert f"{tmp_path}/test/net.h5" in message
        assert RECIPE.fingerprint[:8] in message
        assert other.fingerprint[:8] in message
        assert "scripts/extract.sh DATA --backbones net --weights imagenet --features last --precision " in message
        assert message.endswith(f"--cache {tmp_path}")


def test_splits_that_differ_are_made_as_train_is_by_the_command_printed(tmp_path):
    """Each from its own images: of a data set, or of a folder that became a split; all backbones wanted at once."""
    data, folder = tmp_path / "data", tmp_path / "folder"
    sources = {"train": (data, {}), "test": (data, {}), "extra": (folder, {"split": "extra"})}
    for split, (root, options) in sources.items():
        for name in ("net", "wide"):
            views = ("identity",) if split == "train" else ("identity", "hflip")
            recipe = replace(RECIPE, backbone=name, views=views)
            write_rows(tmp_path, rows_of(digests_of("ab"), len(views)), split, recipe)
            write_source(tmp_path / split / f"{name}.h5", Source(root, options, recipe))
    as_train = "--backbones net,wide --weights imagenet --features last --precision float32 --dtype float32 --views 1"
    for cache in (FeatureCache(tmp_path), FeatureCache(tmp_path, data)):
        for split in sources:
            message = message_of(cache, split, ["net", "wide"])
            command, second = message.partition(" Run with one set of options for both: ")[2].split(" && ")
            assert command.startswith(f"scripts/extract.sh {folder} --split extra {as_train} ")
            assert second.startswith(f"scripts/extract.sh {data} {as_train} ")


def test_weights_of_another_place_but_the_same_bytes_do_meet(tmp_path):
    write_cache(tmp_path, "ab", "train")
    write_rows(tmp_path, rows_of(digests_of("cd")), "test", replace(RECIPE, weights="/elsewhere.h5"))
    assert FeatureCache(tmp_path).read("test", ["net"])[0] == ("c", "d")


def test_a_file_that_is_replaced_meanwhile_gives_the_rows_of_one_of_the_two(tmp_path, monkeypatch):
    """An extraction may end at any moment; ids and rows must come from the same file."""
    write_cache(tmp_path, ["a", "b", "c"])
    before = FeatureCache(tmp_path).read("train", ["net"], ["a", "b", "c"])[1]
    original = CacheFile.open

    def replaced_meanwhile(path):
        file = original(path)
        monkeypatch.undo()
        write_cache(tmp_path, ["0", "a", "b", "c"])
        return file

    monkeypatch.setattr(CacheFile, "open", replaced_meanwhile)
    cache = FeatureCache(tmp_path)
    for _ in range(2):
        ids, read = cache.read("train", ["net"])
        assert ids == ("a", "b", "c")
        np.testing.assert_array_equal(read, before)
    assert FeatureCache(tmp_path).open("train", "net").rows == 4


def test_a_file_is_opened_once(tmp_path, monkeypatch):
    write_cache(tmp_path, "abc")
    cache = FeatureCache(tmp_path)
    file = cache.open("train", "net")
    monkeypatch.setattr(CacheFile, "open", lambda path: pytest.fail(f"{path} was opened twice"))
    cache.read("train", ["net"])
    assert cache.open("train", "net") is file


def test_files_of_other_rows_other_orders_and_other_chunks_are_joined_by_id(tmp_path):
    """Two have the same ids in the same order, which are decoded once; the third has them reversed, and one more."""
    ids = [f"image {number}" for number in range(900)]
    widths = {"narrow": 5, "wide": 700, "wider": 1500}
    write_cache(tmp_path, ids, backbone="narrow", width=5)
    write_cache(tmp_path, ids, backbone="wide", width=700)
    write_cache(tmp_path, [*reversed(ids), "more"], backbone="wider", width=1500)
    wanted = [ids[index] for index in np.random.default_rng(0).permutation(900)[:600]]
    for backbones in (["narrow", "wide", "wider"], ["wider", "narrow", "wide"]):
        read_ids, read = FeatureCache(tmp_path).read("train", backbones, wanted)
        assert read_ids == tuple(wanted)
        expected = [matrix_of(digests_of(wanted).values(), widths[backbone]) for backbone in backbones]
        np.testing.assert_array_equal(read, np.hstack(expected))
    with pytest.raises(InputError, match=r"wider\.h5 has 901 images, but .*narrow\.h5 has 900\. Run: "):
        FeatureCache(tmp_path).read("train", ["narrow", "wide", "wider"])


def test_of_several_files_the_damaged_one_is_named(tmp_path):
    for backbone in ("first", "second", "third"):
        write_cache(tmp_path, "abcdef", backbone=backbone, width=64)
    path = FeatureCache(tmp_path).path("train", "second")
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(matrix_of(digests_of("d").values(), 64).tobytes()) + 9] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(InputError) as caught:
        FeatureCache(tmp_path).read("train", ["first", "second", "third"])
    assert str(caught.value).startswith(f"{path} is damaged (")
    assert str(caught.value).endswith(f"Run: .venv/bin/python -m features verify {tmp_path}")
    assert str(caught.value).count(".h5") == 1


def test_what_waits_in_parts_is_named(tmp_path):
    assert FeatureCache(tmp_path).unfinished() == ()
    part_store(tmp_path, "test").add(rows_of(digests_of(["a"])))
    assert FeatureCache(tmp_path).unfinished() == ("test/net",)


@pytest.fixture
def images(tmp_path):
    """Two images and the cache of their features."""
    paths = [tmp_path / f"{name}.png" for name in "ab"]
    for path in paths:
        path.write_bytes(f"image {path.stem}".encode())
        os.utime(path, ns=(10**18, 10**18 + 1))
    write_rows(tmp_path / "cache", rows_of({path.stem: digest_file(path) for path in paths}))
    seen = {path.stem: SeenImage(digest_file(path), Stamp.of(path), facts_of(path.stem)) for path in paths}
    FactsTable.of_split(tmp_path / "cache", "train").add(seen, "ab")
    return tmp_path / "cache", paths


def test_an_owner_that_is_no_text_is_another_owner(tmp_path, monkeypatch):
    monkeypatch.setattr("features.store.cache.__file__", str(tmp_path / "features" / "store" / "cache.py"))
    cache = claim_default_cache(tmp_path / "mine")
    (cache / "dataset.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="holds the features of \ufffd\ufffd, not of"):
        default_cache(tmp_path / "mine")


def refuse_changed(images) -> list[Path]:
    """Compare the images with their features; return the files that were read for it."""
    root, paths = images
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("features.store.cache.digest_file", read := Mock(wraps=digest_file))
        FeatureCache(root).refuse_changed("train", ["net"], ["a", "b"], paths)
    return sorted(call.args[0] for call in read.call_args_list)


def test_images_of_the_same_size_and_time_are_not_read_again(images):
    assert refuse_changed(images) == []


@pytest.mark.parametrize("moment", [10**18, 10**18 + 2, 2 * 10**18])
def test_an_image_of_another_time_passes_if_its_bytes_are_the_same_and_is_refused_if_not(images, moment):
    root, paths = images
    os.utime(paths[1], ns=(moment, moment))
    assert refuse_changed(images) == [paths[1]]
    paths[1].write_bytes(b"image c")
    os.utime(paths[1], ns=(moment, moment))  # older than before too, as rsync -a and unzip do
    with pytest.raises(InputError) as caught:
        refuse_changed(images)
    assert str(caught.value) == (
        f"1 image of train changed since {root}/train/net.h5 was extracted (first: b). Run: scripts/extract.sh "
        f"DATA --backbones net --weights imagenet --features last --precision float32 --dtype float32 --views 1 "
        f"--range 0,65535 --fit squash --orientation stored --cache {root}"
    )


def test_images_swapped_for_others_of_the_same_size_and_time_are_refused(images):
    """As `cp -p`, rsync -a, unzip and tar write them: with the size and the time that the other one has."""
    _, paths = images
    time.sleep(0.02)  # a tick of the clock by which the system stamps
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, reversed(contents), strict=True):
        path.write_bytes(content)
        os.utime(path, ns=(10**18, 10**18 + 1))
    with pytest.raises(InputError, match=r"2 images of train changed since .* \(first: a\)"):
        refuse_changed(images)


def test_a_file_that_was_touched_is_read_once_more_and_not_again(images):
    _, paths = images
    os.utime(paths[0], ns=(10**18, 10**18 + 2))
    assert refuse_changed(images) == [paths[0]]
    assert refuse_changed(images) == []


def test_a_rejected_image_that_was_repaired_is_refused_with_the_command_that_reads_it(images):
    root, paths = images
    rejection = Rejection("b", "train/b.png", "cut off", digest_file(paths[1]).hex())
    replace_rejections(root, ["train"], [rejection])
    assert refuse_changed(images) == []
    paths[1].write_bytes(b"whole")
    with pytest.raises(InputError) as caught:
        refuse_changed(images)
    assert str(caught.value) == (
        "1 image of train that could not be read changed since (first: b). Run: scripts/extract.sh "
        f"DATA --backbones net --weights imagenet --features last --precision float32 --dtype float32 --views 1 "
        f"--range 0,65535 --fit squash --orientation stored --cache {root}"
    )


def test_an_image_of_another_size_is_refused(images):
    _, paths = images
    paths[0].write_bytes(b"a longer image")
    os.utime(paths[0], ns=(10**18, 10**18 + 1))
    with pytest.raises(InputError, match=r"1 image of train changed since .* \(first: a\)"):
        refuse_changed(images)


def test_images_that_changed_are_extracted_again_by_all_backbones_wanted(images):
    root, paths = images
    write_cache(root, ("a", "b"), backbone="wide")
    paths[0].write_bytes(b"a longer image")
    with pytest.raises(InputError, match=r"1 image of train changed .* --backbones net,wide "):
        FeatureCache(root).refuse_changed("train", ["net", "wide"], ["a", "b"], paths)


def test_an_image_that_another_backbone_saw_later_is_refused(images):
    """images.csv then knows the new bytes, but the file holds features of the old ones."""
    root, paths = images
    paths[0].write_bytes(b"another image")
    seen = {"a": SeenImage(digest_file(paths[0]), Stamp.of(paths[0]), facts_of("a"))}
    FactsTable.of_split(root, "train").add(seen, "ab")
    with pytest.raises(InputError, match=r"1 image of train changed since .* \(first: a\)"):
        refuse_changed(images)


def test_without_images_csv_all_images_are_read(images):
    root, paths = images
    (root / "train" / "images.csv").unlink()
    assert refuse_changed(images) == paths
    paths[1].write_bytes(b"image c")
    with pytest.raises(InputError, match="changed since"):
        refuse_changed(images)


def test_an_image_that_vanished_is_named(images):
    _, paths = images
    paths[1].unlink()
    with pytest.raises(InputError, match=r"b\.png cannot be read: No such file or directory\."):
        refuse_changed(images)


def test_the_default_cache_is_named_after_the_data(tmp_path):
    assert default_cache(tmp_path / "ich" / "..") == default_cache(tmp_path)
    assert default_cache(tmp_path / "ich").parts[-3:] == ("features", "cache", "ich")


def test_two_data_sets_of_one_name_do_not_share_a_default_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("features.store.cache.__file__", str(tmp_path / "repo" / "features" / "store" / "cache.py"))
    ours, theirs = tmp_path / "x" / "data", tmp_path / "y" / "data"
    cache = claim_default_cache(ours)
    assert cache == tmp_path / "repo" / "features" / "cache" / "data"
    assert default_cache(ours) == cache
    with pytest.raises(InputError, match=f"{cache} holds the features of {ours}, not of {theirs}. Name another folder"):
        default_cache(theirs)
    (cache / "dataset.txt").unlink()
    assert claim_default_cache(theirs) == cache
