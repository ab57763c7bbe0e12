"""`python -m extract convert`: PNG of scans that are read as the scans were, and nothing of their headers."""

import errno
import gzip
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from extract.images.decoding import decode
from extract.options import ConvertOptions
from extract.scans import convert as module
from extract.scans.convert import SCAN_GROUPS, convert
from extract.scans.levels import show
from extract.scans.windows import parse_windows
from features.common.errors import InputError
from features.dataset.dataset import read_dataset
from features.options import DatasetOptions, Missing
from tests.extract.scans.written import SECRETS, STUDY, dataset, file_bytes, slice_of_hu


def write(root: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write files: scans of the patient that a text names, tables, or bytes as they are."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif "csv" in name:
            path.write_text(content)
        else:
            path.write_bytes(file_bytes(dataset(slice_of_hu(), PatientID=SECRETS["PatientID"] + content)))
    return root


@pytest.mark.parametrize("window", ["brain", "brain,subdural,bone"])
def test_scans_become_png_of_the_same_ids_without_their_headers(tmp_path, capsys, window):
    cut = file_bytes(dataset(slice_of_hu()))[:-9]
    table = "ID,bleed\nsub/a,1\nb,0\nc,1\nd,0\n"
    files = {"train.csv": table, "train/sub/a.dcm": "P1", "train/b.dcm": cut, "train/c": "P2", "train/d.ima": "P2"}
    data, out = write(tmp_path / "data", files), tmp_path / "out"
    assert convert(ConvertOptions(data=data, out=out, window=window)) == 3
    said = capsys.readouterr().out
    assert "3 images as PNG" in said
    assert "1 image could not be read: b: its pixels are cut off" in said
    assert (out / "train.csv").read_bytes() == (data / "train.csv").read_bytes()
    written = cv2.imread(str(out / "train" / "sub" / "a.png"), cv2.IMREAD_UNCHANGED)
    expected = show(parse_windows(window), slice_of_hu())
    np.testing.assert_array_equal(written if expected.ndim == 2 else written[..., ::-1], expected)
    everything = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert not any(secret.encode() in everything or secret in said for secret in (*SECRETS.values(), STUDY))
    options = DatasetOptions(groups=out / SCAN_GROUPS, missing=Missing.SKIP)
    train = read_dataset(out, options).splits["train"]
    groups = dict(zip(train.image_ids, train.groups, strict=True))
    assert groups["c"] == groups["d"] != groups["sub/a"]
    with pytest.raises(InputError, match="exists and is not an empty folder"):
        convert(ConvertOptions(data=data, out=out, window=window))


TABLE = "ID,bleed,patient\na,1,p\nb,0,q\n"
LAYOUTS = {
    "splits": {"train.csv": TABLE, "train/a.dcm": "", "train/b.dcm": "", "test/x/c.dcm": ""},
    "wrapped": {"in/train.csv": TABLE, "in/train/a.dcm": "", "in/train/b.dcm": "", "in/test/a.dcm": ""},
    "wrapped images": {"labels.csv": TABLE, "images/a.dcm": "", "images/b": ""},
    "val is test": {"train.csv": TABLE, "train/a.dcm": "", "train/b.dcm": "", "val/a.dcm": "", "val.csv": "ID\na\n"},
    "val is train": {
        **{"train.csv": TABLE, "train/a.dcm": "", "train/b.dcm": "", "test/a.dcm": ""},
        **{"valid.csv": "ID,bleed,patient\na,0,r\n", "valid/a.dcm": ""},
    },
    "split column": {
        "all.csv": "file,bleed,patient,split\nt/a.dcm,1,p,train\nt/b.dcm,0,q,train\nu/a.dcm,1,r,val\n",
        **{"t/a.dcm": "", "t/b.dcm": "", "u/a.dcm": ""},
    },
    "classes": {"Training/cat/1.dcm": "", "Training/dog/1.dcm": "", "Testing/dog/1.dcm": ""},
    "classes alone": {"cat/1.dcm": "", "dog/1.dcm": "", "dog/2.dcm": ""},
    "frames": {"train.csv": "ID,bleed\na#0001,1\na#0002,0\n", "train/a.dcm": b"frames"},
}


@pytest.mark.parametrize("files", LAYOUTS.values(), ids=LAYOUTS)
def test_what_is_written_is_read_as_the_scans_are(tmp_path, files):
    pair = np.tile(slice_of_hu(), (2, 1))
    made = dataset(slice_of_hu(), NumberOfFrames=2)
    made.PixelData = pair.tobytes()
    data = write(
        tmp_path / "data", {name: file_bytes(made) if text == b"frames" else text for name, text in files.items()}
    )
    assert convert(ConvertOptions(data=data, out=tmp_path / "out", window="brain")) == 0
    assert_same(tmp_path / "out", data, DatasetOptions())


@pytest.mark.parametrize("name", ["data/train_labels.csv", "elsewhere/test.csv"])
def test_a_table_that_is_named_comes_along_alone(tmp_path, name, capsys):
    other = "ID,bleed,patient\na,0,z\nb,0,z\n"
    data = write(tmp_path / "data", {"train.csv": other, "other.csv": other, "train/a.dcm": "", "train/b.dcm": ""})
    write(tmp_path, {name: TABLE})
    options = DatasetOptions(table=tmp_path / name)
    assert convert(ConvertOptions(data=data, out=tmp_path / "out", window="brain", table=options.table)) == 0
    assert "the table of all images" in capsys.readouterr().out
    assert_same(tmp_path / "out", data, options)


def assert_same(out: Path, data: Path, options: DatasetOptions) -> None:
    """Whether a folder is read, without options, as a data set is with them."""
    found, expected = read_dataset(out), read_dataset(data, options)
    assert found.label_names == expected.label_names
    assert list(found.splits) == list(expected.splits)
    for split, of_data in zip(found.splits.values(), expected.splits.values(), strict=True):
        assert split.image_ids == of_data.image_ids
        for own, other in (
            (split.labels, of_data.labels),
            (split.groups, of_data.groups),
            (split.stored, of_data.stored),
        ):
            np.testing.assert_equal(own, other)


def test_where_no_image_can_be_read_the_tables_are_there_and_it_is_said(tmp_path, capsys):
    cut = file_bytes(dataset(slice_of_hu()))[:-9]
    data = write(tmp_path / "data", {"train.csv": "ID,bleed\na,1\n", "train/a.dcm": cut})
    assert convert(ConvertOptions(data=data, out=tmp_path / "out", window="brain")) == 3
    assert "0 images as PNG" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["train.csv"]


def test_groups_that_ids_cannot_name_are_said_to_be_lost(tmp_path, capsys):
    files = {"train.csv": "ID,bleed\na,1\nb,0\n", "train/a.dcm": "P1", "train/b.dcm": "P2", "test/a.dcm": "P3"}
    data = write(tmp_path / "data", files)
    assert convert(ConvertOptions(data=data, out=tmp_path / "out", window="brain")) == 0
    assert "the patients of the scans are lost" in capsys.readouterr().out
    assert not (tmp_path / "out" / SCAN_GROUPS).exists()


def test_where_no_image_is_left_it_is_said(tmp_path):
    data = write(tmp_path / "data", {"train.csv": "ID,bleed\nq,1\nr,0\n", "train/a.dcm": "", "train/b.dcm": ""})
    options = ConvertOptions(
        data=data, out=tmp_path / "out", window="brain", id_column="ID", missing="skip", unlabelled="ignore"
    )
    with pytest.raises(InputError, match="the tables name none of the images"):
        convert(options)
    assert not options.out.exists()


def test_out_lies_neither_within_data_nor_around_it(tmp_path):
    data = write(tmp_path / "around" / "data", {"train/a.dcm": ""})
    (tmp_path / "link").symlink_to(data, target_is_directory=True)
    for out in (data / "png", data / "train" / "x" / "png", tmp_path / "link" / "png"):
        with pytest.raises(InputError, match=r"and would become a part of it. Name a folder beside it"):
            convert(ConvertOptions(data=data, out=out, window="brain"))
        assert not out.exists()
    with pytest.raises(InputError, match="is not an empty folder"):
        convert(ConvertOptions(data=data, out=tmp_path / "around", window="brain"))


def test_the_groups_of_scans_do_not_take_the_place_of_a_table(tmp_path, capsys):
    own = "ID,group\na,doc1\nb,doc1\nc,doc2\n"
    files = {"labels.csv": "ID,bleed\na,1\nb,0\nc,0\n", "groups.csv": own, "groups_2.csv": own, "c.dcm": "P2"}
    data, out = write(tmp_path / "data", {**files, "a.dcm": "P1", "b.dcm": "P2"}), tmp_path / "out"
    assert convert(ConvertOptions(data=data, out=out, window="brain")) == 0
    assert (out / "groups.csv").read_text() == (out / "groups_2.csv").read_text() == own
    assert (out / "groups_3.csv").read_text() == "ID,group\na,1\nb,2\nc,2\n"
    assert f"{out}/groups_3.csv does (groups.csv is a table of DATA)" in capsys.readouterr().out.replace("\n", " ")
    assert_same(out, data, DatasetOptions())


@pytest.mark.parametrize(
    ("name", "copy"), [("names.txt", "labels.csv"), ("names", "labels.csv.gz"), ("t", "labels.xlsx")]
)
def test_a_named_table_gets_the_ending_of_its_content(tmp_path, name, copy):
    data = write(tmp_path / "data", {"train/a.dcm": "", "train/b.dcm": ""})
    table = tmp_path / name
    if copy.endswith(".xlsx"):
        pd.DataFrame({"ID": ["a", "b"], "bleed": [1, 0]}).to_excel(tmp_path / "t.xlsx", index=False)
        (tmp_path / "t.xlsx").rename(table)
    else:
        table.write_bytes(gzip.compress(TABLE.encode()) if copy.endswith(".gz") else TABLE.encode())
    assert convert(ConvertOptions(data=data, out=tmp_path / "out", window="brain", table=table)) == 0
    assert (tmp_path / "out" / copy).read_bytes() == table.read_bytes()
    assert_same(tmp_path / "out", data, DatasetOptions(table=table))


def test_plain_images_are_not_counted_as_patients(tmp_path, capsys):
    plain = cv2.imencode(".png", np.eye(9, dtype=np.uint8))[1].tobytes()
    data = write(tmp_path / "data", {"a.dcm": "P1", "b.dcm": "P2", "c.png": plain, "d.png": plain, "e.dcm": "P2"})
    assert convert(ConvertOptions(data=data, out=tmp_path / "out", window="brain")) == 0
    said = capsys.readouterr().out.replace("\n", " ")
    assert "2 patients, studies or volumes, as numbers; 2 images of nobody known, each a group of its own." in said


def test_a_file_where_a_folder_is_needed_is_refused_before_anything_is_written(tmp_path):
    data = write(tmp_path / "data", {"train/b": "", "train/a.dcm": "", "train/b.png/x/c.dcm": ""})
    with pytest.raises(InputError, match=r"train/b becomes the file train/b.png, where train/b.png/x/c needs a folder"):
        convert(ConvertOptions(data=data, out=tmp_path / "out", window="brain"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "there was not enough memory to decode it"),
        (OSError(errno.EMFILE, "Too many open files"), "the file cannot be read: Too many open files"),
    ],
)
def test_what_an_image_lacks_is_its_own_fault_not_that_of_out(tmp_path, capsys, monkeypatch, error, says):
    def fail_for_b(encoded, image_id, reading):
        if image_id == "b":
            raise error
        return decode(encoded, image_id, reading)

    monkeypatch.setattr(module, "decode", fail_for_b)
    data, out = write(tmp_path / "data", {"a.dcm": "", "b.dcm": ""}), tmp_path / "out"
    assert convert(ConvertOptions(data=data, out=out, window="brain")) == 3
    assert f"b: {says}" in capsys.readouterr().out.replace("\n", " ")
    assert [path.name for path in out.iterdir()] == ["a.png"]
