"""Properties of the data-set reader: what is written reads back, and any bytes give a data set or an `InputError`."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from features.common.errors import InputError
from features.dataset.dataset import read_dataset, read_images
from features.dataset.folder import IMAGE_SUFFIXES
from tests.features.dataset.written import make, message_of

NAMES = st.text("abcXYZ019_-", min_size=1, max_size=8)


@st.composite
def wide_files(draw):
    """Draw ids, label names, labels, and one way to write them as a CSV file."""
    ids = draw(
        st.lists(
            st.from_regex(r"[a-z0-9_]{1,6}(/[a-z0-9_]{1,4})?", fullmatch=True), min_size=1, max_size=8, unique=True
        )
    )
    reserved = {"id", "patient"}
    names = draw(st.lists(NAMES.filter(lambda name: name.lower() not in reserved), min_size=1, max_size=4, unique=True))
    labels = draw(
        st.lists(
            st.lists(st.integers(0, 1), min_size=len(names), max_size=len(names)), min_size=len(ids), max_size=len(ids)
        )
    )
    index, blanks, extension, mark = (draw(st.booleans()) for _ in range(4))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    pad = " " if blanks else ""
    rows = [["ID", *names]]
    for image_id, row in zip(ids, labels, strict=True):
        spelt = [str(draw(st.sampled_from((value, float(value))))) for value in row]
        rows.append([image_id + draw(st.sampled_from(IMAGE_SUFFIXES)) * extension, *spelt])
    if index:
        rows = [[draw(st.sampled_from(["", "Unnamed: 0"])), *rows[0]]] + [
            [str(k), *row] for k, row in enumerate(rows[1:])
        ]
    text = end.join(",".join(pad + cell + pad for cell in row) for row in rows) + end * draw(st.integers(0, 2))
    return ids, names, labels, text.encode("utf-8-sig" if mark else "utf-8")


@settings(max_examples=100, deadline=None)
@given(wide_files())
@example((["0"], ["0"], [[0]], b"ID,0\n0,0.0"))
def test_a_written_wide_file_reads_back_the_same(drawn):
    ids, names, labels, content = drawn
    with tempfile.TemporaryDirectory() as folder:
        root = make(Path(folder), content, train=" ".join(f"{image_id}.png" for image_id in ids))
        dataset = read_dataset(root)
        train = dataset.splits["train"]
        # A label of one value alone is left out, if there are others.
        kept = [place for place in range(len(names)) if len({row[place] for row in labels}) > 1] or range(len(names))
        assert dataset.label_names == tuple(names[place] for place in kept)
        assert train.image_ids == tuple(ids)
        assert train.paths == tuple(root / "train" / f"{image_id}.png" for image_id in ids)
        assert train.labels.tolist() == [[row[place] for place in kept] for row in labels]
        assert read_images(root) == {"train": (train.image_ids, train.paths)}


# fmt: off
TOKENS = [
    "ID", "Label", "id", "patient", "a", "x", "x_any", "x.png", "y", "0", "1", "0.5", ",", ",", "\0", '"', ";", "/",
    "..", ".", "\\", "\ufeff",
]
# fmt: on
PIECES = st.sampled_from([*(token.encode() for token in TOKENS), b"\n", b"\n", b"\r", b" ", b"\xff", b"Unnamed: 0"])


@pytest.fixture(scope="module")
def two_images(tmp_path_factory):
    return make(tmp_path_factory.mktemp("fuzz"), train="x.png y.png", test="x.png y.png")


@settings(max_examples=500, deadline=None)
@given(
    st.one_of(st.binary(max_size=60), st.lists(PIECES, max_size=30).map(b"".join)),
    st.one_of(st.none(), st.lists(PIECES, max_size=20).map(b"".join)),
)
@example(b"ID,a\nx,1\ny,0\n", b"ID,Label\nx_a,1\ny_a,1\n")
@example(b"ID,Label\nx_a,1\ny_a,0\ny_b,0\n", None)
def test_arbitrary_bytes_give_a_dataset_or_an_input_error(two_images, train, test):
    (two_images / "train.csv").write_bytes(train)
    (two_images / "test.csv").unlink(missing_ok=True)
    if test is not None:
        (two_images / "test.csv").write_bytes(test)
    try:
        ids = read_images(two_images)
    except InputError:
        # What stops who reads images also stops who reads labels.
        assert str(two_images) in message_of(two_images)
        return
    assert set(ids["train"][0]) == {"x", "y"}
    try:
        dataset = read_dataset(two_images)
    except InputError:
        assert str(two_images) in message_of(two_images)
        return
    for split in dataset.splits.values():
        assert (split.image_ids, split.paths) == ids[split.name]
        if split.labels is not None:
            assert split.labels.shape == (len(split.image_ids), len(dataset.label_names))
            assert np.isin(split.labels, (0, 1)).all()
