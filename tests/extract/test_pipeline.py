"""extract.pipeline and extract.extraction: one decode for all, incremental, bounded, stopped at any time."""

import csv
import threading
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

import extract.pipeline
from extract.images.reading import Ranges, Reading
from extract.images.resizing import resize
from extract.images.views import draw_views
from features.common.errors import InputError
from features.common.files import digest
from features.store.cache import FeatureCache
from tests.extract.stand_ins import WIDTH, StandIns, backbone, features_of, run, write_images


@pytest.fixture
def data(tmp_path):
    write_images(tmp_path / "data" / "train", 10)
    write_images(tmp_path / "data" / "test", 3, seed=1)
    return tmp_path / "data"


def read(cache, *names, split="train"):
    return FeatureCache(cache).read(split, names or ("tiny",))


def test_features_are_those_of_the_pixels_in_the_order_of_the_data_set(tmp_path):
    images = write_images(tmp_path / "data" / "train", 10)
    run(tmp_path / "data", tmp_path / "cache")
    ids, features = read(tmp_path / "cache")
    assert ids == tuple(images)
    np.testing.assert_array_equal(features, [features_of(resize(image, 20), "tiny") for image in images.values()])


def test_every_file_is_read_and_decoded_once_and_resized_once_per_size(data, tmp_path, monkeypatch):
    calls = Counter()
    for name in ("decode", "draw_views"):
        original = getattr(extract.pipeline, name)

        def counted(*arguments, name=name, original=original):
            calls[name] += 1
            return original(*arguments)

        monkeypatch.setattr(extract.pipeline, name, counted)
    read_bytes = Path.read_bytes

    def counted_read(path):
        calls["read"] += path.suffix == ".png"
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", counted_read)
    backbones = backbone("a", 20), backbone("b", 20), backbone("c", 30)
    report = run(data, tmp_path / "cache", *backbones)
    assert calls == {"read": 13, "decode": 13, "draw_views": 26}
    assert (report.images, report.decoded, report.rows) == (13, 13, 39)
    run(data, tmp_path / "cache", *backbones)
    assert calls == {"read": 26, "decode": 13, "draw_views": 26}


def test_one_pass_fills_two_files_and_only_what_is_missing_is_written(data, tmp_path):
    run(data, tmp_path / "one")
    run(data, tmp_path / "cache")
    before = (tmp_path / "cache" / "train" / "tiny.h5").stat().st_ino
    both = backbone(features=("last", "mid"))
    compiled = StandIns()
    report = run(data, tmp_path / "cache", both, compiled=compiled)
    assert compiled.made["tiny"].batches == [4, 4, 2, 3]  # one pass a split
    assert (report.rows, report.backbones["tiny"].widths) == (26, (WIDTH, WIDTH))
    assert (tmp_path / "cache" / "train" / "tiny.h5").stat().st_ino == before
    assert FeatureCache(tmp_path / "cache").backbones("train") == ("tiny", "tiny.mid")
    ids, features = read(tmp_path / "cache", "tiny", "tiny.mid")
    np.testing.assert_array_equal(features[:, :WIDTH], read(tmp_path / "one")[1])
    pixels = [resize(cv2.imread(str(data / "train" / f"{i}.png"))[..., ::-1], 20) for i in ids]
    np.testing.assert_array_equal(features[:, WIDTH:], [features_of(image, "tiny.mid") for image in pixels])
    recipe = FeatureCache(tmp_path / "cache").open("train", "tiny.mid").recipe
    assert (recipe.backbone, recipe.pooling, recipe.layer) == ("tiny.mid", "avg,max,std", "a,b")
    assert run(data, tmp_path / "cache", both).rows == 0


def test_each_view_is_a_pass_of_its_own_and_the_plain_one_is_as_if_alone(data, tmp_path):
    run(data, tmp_path / "plain")
    reading = Reading(views=("identity", "random1", "random2"), ranges=str(Ranges()))
    report = run(data, tmp_path / "cache", reading=reading)
    assert (report.images, report.decoded, report.rows) == (13, 13, 13)
    plain, file = (FeatureCache(tmp_path / name).open("train", "tiny") for name in ("plain", "cache"))
    assert file.recipe.views == reading.views
    assert (file.rows, file.views, file.width) == (10, 3, WIDTH)
    np.testing.assert_array_equal(file.block(0)[:, 0], plain.block(0)[:, 0])
    pixels = cv2.imread(str(data / "train" / "a003.png"))[..., ::-1]
    expected = [features_of(view, "tiny") for view in draw_views(pixels, 20, reading, "a003")]
    np.testing.assert_array_equal(file.block(0)[file.row_of["a003"]], expected)
    assert run(data, tmp_path / "cache", reading=reading).rows == 0


def test_a_second_run_extracts_nothing_and_leaves_the_file_alone(data, tmp_path):
    run(data, tmp_path / "cache")
    before = (tmp_path / "cache" / "train" / "tiny.h5").stat()
    compiled = StandIns()
    report = run(data, tmp_path / "cache", compiled=compiled)
    assert report.rows == 0
    assert report.backbones["tiny"].kept == 13
    assert compiled.made == {}
    assert (tmp_path / "cache" / "train" / "tiny.h5").stat().st_ino == before.st_ino


def test_new_and_changed_images_are_extracted_and_the_others_kept(data, tmp_path):
    run(data, tmp_path / "cache")
    _, before = read(tmp_path / "cache")
    changed = np.full((40, 40, 3), 7, np.uint8)
    cv2.imwrite(str(data / "train" / "a004.png"), changed)
    cv2.imwrite(str(data / "train" / "a0005.png"), changed)  # sorts between a000 and a001
    report = run(data, tmp_path / "cache")
    assert report.rows == 2
    ids, after = read(tmp_path / "cache")
    assert ids == ("a000", "a0005", *(f"a{number:03d}" for number in range(1, 10)))
    np.testing.assert_array_equal(after[1], features_of(resize(changed, 20), "tiny"))
    np.testing.assert_array_equal(after[5], after[1])
    np.testing.assert_array_equal(np.delete(after, [1, 5], axis=0), np.delete(before, 4, axis=0))


def test_the_file_of_each_backbone_says_the_seconds_that_the_device_took(data, tmp_path):
    """The seconds of the files add up to those that both runs counted."""
    backbones = backbone("a", 20), backbone("b", 30)
    spent = Counter()
    for rows in (13, 2):
        for name, counted in run(data, tmp_path / "cache", *backbones).backbones.items():
            assert counted.images == rows
            spent[name] += counted.seconds
        write_images(data / "train", 12)  # two more
    for name in ("a", "b"):
        files = [FeatureCache(tmp_path / "cache").open(split, name) for split in ("train", "test")]
        assert [file.rows for file in files] == [12, 3]
        assert sum(file.rows * file.seconds_per_image for file in files) == pytest.approx(spent[name])
        assert spent[name] > 0


def test_a_run_that_only_assembles_says_what_computed_the_parts(data, tmp_path, monkeypatch):
    def full(*_):
        raise InputError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr("extract.extraction.assemble", full)
        with pytest.raises(InputError, match="the disk is full"):
            run(data, tmp_path / "cache")
    assert run(data, tmp_path / "cache").rows == 3  # of test, which was not reached
    file = FeatureCache(tmp_path / "cache").open("train", "tiny")
    assert (file.rows, file.device, file.engine) == (10, "numpy", "numpy")


def test_only_the_backbone_that_lacks_rows_runs(data, tmp_path):
    run(data, tmp_path / "cache", backbone("a"))
    compiled = StandIns()
    run(data, tmp_path / "cache", backbone("a"), backbone("b", 30), compiled=compiled)
    assert set(compiled.made) == {"b"}
    assert read(tmp_path / "cache", "a", "b")[1].shape == (10, 2 * WIDTH)


def test_another_fingerprint_is_another_extraction_and_said_aloud(data, tmp_path):
    run(data, tmp_path / "cache", backbone())
    said: list[str] = []
    report = run(data, tmp_path / "cache", backbone(digest="1" * 32), said=said)
    assert report.rows == 13
    assert "train/tiny.h5 was extracted differently (weights_digest 000" in said[0]
    assert FeatureCache(tmp_path / "cache").open("train", "tiny").recipe.weights_digest == "1" * 32


def test_a_removed_image_keeps_its_row_and_a_broken_one_loses_it(data, tmp_path):
    run(data, tmp_path / "cache")
    (data / "train" / "a001.png").unlink()
    (data / "train" / "a002.png").write_bytes(b"broken")
    report = run(data, tmp_path / "cache")
    assert [rejection.image_id for rejection in report.rejected] == ["a002"]
    ids, _ = read(tmp_path / "cache")
    assert ids == ("a000", *(f"a{number:03d}" for number in range(3, 10)), "a001")


def test_unreadable_images_are_listed_and_mended_ones_leave_the_list(data, tmp_path):
    good = (data / "train" / "a003.png").read_bytes()
    (data / "train" / "a003.png").write_bytes(good[:100])
    (data / "test" / "a001.png").write_bytes(b"")
    run(data, tmp_path / "cache")
    with (tmp_path / "cache" / "rejected.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["id", "path", "reason", "digest"]
    assert [row[:2] for row in rows[1:]] == [["a003", "train/a003.png"], ["a001", "test/a001.png"]]
    assert rows[1][3] == digest(good[:100]).hex()
    assert rows[2][2] == "the file is empty"
    assert "a003" not in read(tmp_path / "cache")[0]
    (data / "train" / "a003.png").write_bytes(good)
    (data / "test" / "a001.png").write_bytes(good)
    report = run(data, tmp_path / "cache")
    assert report.rows == 2
    assert not (tmp_path / "cache" / "rejected.csv").exists()


@pytest.mark.parametrize("fault", [MemoryError(), "opencv", "opencv c++"])
def test_an_image_that_memory_has_no_room_for_is_rejected_and_tried_again(data, tmp_path, monkeypatch, fault):
    decode, large = cv2.imdecode, (data / "train" / "a003.png").read_bytes()

    def imdecode(encoded, flags):
        if encoded.tobytes() != large:
            return decode(encoded, flags)
        if isinstance(fault, MemoryError):
            raise fault
        error = cv2.error("Failed to allocate 400 bytes" if fault == "opencv" else "std::bad_alloc")
        if fault == "opencv":
            error.code = -4
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(cv2, "imdecode", imdecode)
        report = run(data, tmp_path / "cache")
    assert [(of.path, "memory" in of.reason) for of in report.rejected] == [("train/a003.png", True)]
    report = run(data, tmp_path / "cache")
    assert (report.rows, report.rejected) == (1, [])


def test_a_split_without_one_readable_image_leaves_no_cache_file(tmp_path):
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "a.png").write_bytes(b"no image")
    report = run(tmp_path / "data", tmp_path / "cache")
    assert len(report.rejected) == 1
    assert not (tmp_path / "cache" / "train" / "tiny.h5").exists()


def test_facts_of_every_image_are_kept_and_mended_when_lost(data, tmp_path):
    run(data, tmp_path / "cache")
    table = tmp_path / "cache" / "train" / "images.csv"
    first = table.read_text()
    rows = list(csv.DictReader(first.splitlines()))
    assert [row["id"] for row in rows] == [f"a{number:03d}" for number in range(10)]
    image = cv2.imread(str(data / "train" / "a002.png"))
    assert {name: rows[2][name] for name in ("height", "width", "channels", "bit_depth")} == {
        "height": "40", "width": "40", "channels": "3", "bit_depth": "8",
    }  # fmt: skip
    assert float(rows[2]["mean"]) == pytest.approx(image.mean())
    assert float(rows[2]["std"]) == pytest.approx(image.std())
    table.unlink()
    assert run(data, tmp_path / "cache").rows == 0
    assert table.read_text() == first


def test_a_row_that_is_not_finite_stops_the_run_and_names_the_image(data, tmp_path):
    class Poisoned(StandIns):
        def __call__(self, backbone, sample):
            stand_in = super().__call__(backbone, sample)

            def poisoned(images):
                (features,) = stand_in(images)
                if len(stand_in.batches) == 2:
                    features[1, 3] = np.inf
                return (features,)

            poisoned.batch_size, poisoned.engine, poisoned.device = 4, "numpy", "numpy"
            return poisoned

    with pytest.raises(InputError, match=r"tiny gives features that are not finite for .*train/a005\.png"):
        run(data, tmp_path / "cache", compiled=Poisoned())
    assert not (tmp_path / "cache" / "train" / "tiny.h5").exists()
    compiled = StandIns()
    run(data, tmp_path / "cache", compiled=compiled)  # the first batch was kept
    assert sum(compiled.made["tiny"].batches) == 6 + 3


def test_float16_is_stored_as_asked_and_is_another_recipe(data, tmp_path):
    run(data, tmp_path / "cache", storage="float16", compiled=SmallFeatures())
    file = FeatureCache(tmp_path / "cache").open("train", "tiny")
    assert file.recipe.storage == "float16"
    assert (file.recipe.precision, file.recipe.storage) == ("float32", "float16")


class SmallFeatures(StandIns):
    """Features that float16 can hold."""

    def __call__(self, backbone, sample):
        stand_in = super().__call__(backbone, sample)

        def small(images):
            return tuple(features / 65536 for features in stand_in(images))

        small.batch_size, small.engine, small.device = 4, "numpy", "numpy"
        return small


def test_stopping_keeps_whole_batches_and_the_next_run_goes_on_from_there(data, tmp_path):
    stop = threading.Event()

    class Stopping(StandIns):
        def __call__(self, backbone, sample):
            stand_in = super().__call__(backbone, sample)

            def stopping(images):
                stop.set()
                return stand_in(images)

            stopping.batch_size, stopping.engine, stopping.device = 4, "numpy", "numpy"
            return stopping

    first = run(data, tmp_path / "cache", compiled=Stopping(), stop=stop)
    assert first.rows in (4, 8, 12)
    assert not (tmp_path / "cache" / "train" / "tiny.h5").exists()
    compiled = StandIns()
    second = run(data, tmp_path / "cache", compiled=compiled)
    assert second.rows == 13 - first.rows
    run(data, tmp_path / "undisturbed")
    for split in ("train", "test"):
        ids, features = read(tmp_path / "cache", split=split)
        expected_ids, expected = read(tmp_path / "undisturbed", split=split)
        assert ids == expected_ids
        np.testing.assert_array_equal(features, expected)


def test_a_batch_size_that_is_halved_meanwhile_loses_no_row(data, tmp_path):
    class Halving(StandIns):
        def __call__(self, backbone, sample):
            stand_in = super().__call__(backbone, sample)

            class Halved:
                batch_size, engine, device = 4, "numpy", "numpy"

                def __call__(self, images):
                    self.batch_size = 2
                    return stand_in(images)

            self.halved = getattr(self, "halved", Halved())
            return self.halved

    run(data, tmp_path / "cache", compiled=Halving())
    run(data, tmp_path / "plain")
    np.testing.assert_array_equal(read(tmp_path / "cache")[1], read(tmp_path / "plain")[1])


def test_rows_of_one_part_reach_the_disk_before_the_run_ends(data, tmp_path, monkeypatch):
    monkeypatch.setattr(extract.pipeline, "PART_ROWS", 4)
    sizes = []
    original = extract.pipeline.PartStore.add

    def add(store, rows):
        sizes.append(len(rows.image_ids))
        original(store, rows)

    monkeypatch.setattr(extract.pipeline.PartStore, "add", add)
    run(data, tmp_path / "cache")
    assert sizes == [4, 4, 2, 3]
    assert not (tmp_path / "cache" / "train" / "tiny.parts").exists()


def test_a_batch_size_that_falls_below_what_is_read_ahead_loses_no_row(tmp_path):
    write_images(tmp_path / "data" / "train", 300, side=20)

    report = run(tmp_path / "data", tmp_path / "cache", compiled=_HalvesAfterTheFirst())
    assert report.rows == 300
    assert len(read(tmp_path / "cache")[0]) == 300


class _HalvesAfterTheFirst(StandIns):
    """Begins with 128 images a batch and falls to 8 while the first is computed, as after running out of memory."""

    def __call__(self, backbone, sample):
        if backbone.name not in self.made:
            stand_in = super().__call__(backbone, sample)
            stand_in.batch_size = 128
            plain = type(stand_in).__call__

            class Halves(type(stand_in)):
                def __call__(self, images):
                    self.batch_size = 8
                    return plain(self, images)

            stand_in.__class__ = Halves
        return self.made[backbone.name]


def test_a_disk_that_gives_no_bytes_costs_no_row(data, tmp_path, monkeypatch):
    run(data, tmp_path / "cache")
    before = read(tmp_path / "cache")
    read_bytes = Path.read_bytes

    def failing(path):
        if path.name in ("a002.png", "a003.png"):
            raise OSError(5, "Input/output error")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    cv2.imwrite(str(data / "train" / "a009.png"), np.zeros((40, 40, 3), np.uint8))
    report = run(data, tmp_path / "cache")
    assert [(found.image_id, found.reason) for found in report.rejected][:2] == [
        ("a002", "the file cannot be read: Input/output error"),
        ("a003", "the file cannot be read: Input/output error"),
    ]
    _, features = FeatureCache(tmp_path / "cache").read("train", ["tiny"], before[0])
    np.testing.assert_array_equal(features[:9], before[1][:9])
    assert not np.array_equal(features[9], before[1][9])


def test_a_split_that_cannot_be_read_at_all_keeps_its_cache_file(data, tmp_path):
    run(data, tmp_path / "cache")
    before = read(tmp_path / "cache")
    for path in (data / "train").iterdir():
        path.write_bytes(b"broken")
    said: list[str] = []
    run(data, tmp_path / "cache", said=said)
    assert said == ["no image of train could be read: its cache files are left as they are."]
    np.testing.assert_array_equal(read(tmp_path / "cache")[1], before[1])


def test_rows_that_go_are_said_aloud(data, tmp_path):
    run(data, tmp_path / "cache")
    (data / "train" / "a001.png").write_bytes(b"broken")
    cv2.imwrite(str(data / "train" / "a002.png"), np.zeros((40, 40, 3), np.uint8))
    said: list[str] = []
    run(data, tmp_path / "cache", said=said)
    assert len(said) == 1
    assert "train/tiny.h5: 2 images changed (first: a001): 1 row replaced, 1 dropped" in said[0]
