"""`python -m features describe`: numbers counted by hand, the console, and an escaped, self-contained page."""

import csv
import shlex
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from features.__main__ import app
from features.dataset.dataset import Split, read_with_faults
from features.describe import Description, describe_split, summarise_images
from features.store.cache import FeatureCache
from features.store.images_table import Rejection, replace_rejections
from tests.features.dataset.written import make

TRAIN = "ID,bleed,calc,patient\na,1,1,p1\nb,1,0,p1\nc,0,0,p2\nd,0,,p3\ne,1,1,p3\n"
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def data(tmp_path) -> Path:
    return make(tmp_path / "data", TRAIN, train="a.png b.png c.png d.png e.png", test="x.png")


def record(cache: Path, split: str, *rows: tuple) -> None:
    """Write what stage 1 records: id, height, width, channels, bit depth, mean, standard deviation."""
    (cache / split).mkdir(parents=True, exist_ok=True)
    with (cache / split / "images.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "digest", "size", "mtime_ns", "height", "width", "channels", "bit_depth", "mean", "std"])
        writer.writerows((row[0], "00" * 16, 1, 1, *row[1:]) for row in rows)


def run(*arguments: object):
    result = CliRunner().invoke(app, ["describe", *map(str, arguments)])
    return result.exit_code, " ".join(result.output.split())


def descriptions(data: Path) -> list[Description]:
    dataset, _ = read_with_faults(data)
    return [describe_split(split, dataset.label_names, None) for split in dataset.splits.values()]


def test_labels_groups_and_combinations_are_counted(data):
    train, test = descriptions(data)
    assert (train.images, train.groups, train.images_per_group) == (5, 3, (1, 2, 2))
    counted = [(own.name, own.positive, own.negative, own.missing, own.groups) for own in train.labels]
    assert counted == [("bleed", 3, 2, 0, 2), ("calc", 2, 2, 1, 2)]
    assert train.labels[1].prevalence == pytest.approx(0.5)
    assert train.together.tolist() == [[3, 2], [2, 2]]
    assert train.combinations == {"bleed + calc": 2, "bleed": 1, "none": 1}
    assert train.unlabelled == ("d",)
    assert (test.images, test.groups, test.labels, test.summary) == (1, 0, (), None)


def test_counts_are_of_the_images_that_are_there(data):
    for image_id in ("a", "e"):
        (data / "train" / f"{image_id}.png").unlink()
    (data / "train" / "new.png").touch()
    train = descriptions(data)[0]
    assert (train.images, train.groups, train.without_group) == (3, 3, 0)
    assert (train.split.without_image, train.split.without_row) == (("a", "e"), ())
    counted = [(own.name, own.positive, own.negative, own.missing, own.groups) for own in train.labels]
    assert counted == [("bleed", 1, 2, 0, 1), ("calc", 0, 2, 1, 0)]
    assert all(own.positive + own.negative + own.missing == train.images for own in train.labels)
    assert train.together.tolist() == [[1, 0], [0, 0]]
    assert train.combinations == {"bleed": 1, "none": 1}


def split_of(ids):
    """The training images of these ids, of which nothing else is known."""
    return Split("train", tuple(ids), (), None, None, np.full(len(ids), "train"))


def test_of_two_kinds_of_images_neither_stands_out(tmp_path):
    ids = [f"i{number}" for number in range(40)]
    record(tmp_path, "train", *((i, 5, 5, 1, 8, 40 if number % 3 else 90, 30) for number, i in enumerate(ids)))
    assert summarise_images(split_of(ids), FeatureCache(tmp_path)).outliers == {}


def test_what_stage_1_recorded_is_summed_up_and_outliers_say_why(tmp_path):
    ids = [f"i{number}" for number in range(300)]
    usual = [(i, 512, 512, 1, 8, 60 + number % 7, 40 + number % 5) for number, i in enumerate(ids)]
    usual[3] = ("i3", 512, 512, 1, 8, 200, 42)
    usual[4] = ("i4", 77, 512, 1, 8, 62, 42)
    usual[5] = ("i5", 512, 512, 3, 16, 62 * 257, 42 * 257)  # as bright as the others on its own scale
    usual[6] = ("i6", 512, 512, 1, 8, 0, 2.5)
    record(tmp_path, "train", *usual, ("not of this data set", 1, 1, 1, 8, 0, 0))
    replace_rejections(tmp_path, ["train"], [Rejection("i300", "train/i300.png", "truncated", "")])
    summary = summarise_images(split_of([*ids, "i300"]), FeatureCache(tmp_path))
    assert (summary.known, summary.unknown, summary.rejected) == (300, 0, {"i300": "truncated"})
    assert summary.kinds == {
        "size": {"512 x 512": 299, "77 x 512": 1},
        "bit depth": {"8 bit": 299, "16 bit": 1},
        "channels": {"grey": 299, "colour": 1},
    }
    assert summary.blank == ("i6",)
    assert summary.outliers == {
        "i3": "brightness 0.784, typically 0.247",
        "i4": "size 77 x 512",
        "i5": "bit depth 16 bit; channels colour",
    }
    assert summary.brightness == pytest.approx((0, 61 / 255, 63 / 255, 65 / 255, 200 / 255))


def test_the_console_tells_all_of_it_and_writes_no_page_without_a_folder(data, tmp_path):
    (data / "train" / "e.png").unlink()
    code, said = run(data)
    assert code == 0
    assert "train: 4 images; 3 groups of 1 to 2 images (median 1)" in said
    assert "bleed 2 50.0% 2 0 1 1" in said
    assert "calc 1 33.3% 2 1 1 1" in said
    assert "combinations: bleed + calc 1, bleed 1, none 1" in said
    assert "1 row without an image: e" in said
    assert "1 image with a row, but a missing label: d" in said
    assert "test: 1 image; groups not known no labels" in said
    assert "2 faults that classify run refuses, of these kinds: image 1, label 1" in said
    assert f"{data}/train.csv, line 5, column calc: received a blank cell. Write the label" in said
    assert "no page is written: name a folder for describe.html with --out" in said
    assert list(tmp_path.rglob("*.html")) == []


class Page(HTMLParser):
    """Collects the text and whatever a browser would fetch or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = ""
        self.loads: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.loads += [name for name, _ in attrs if name in ("src", "href") or name.startswith("on")]

    def handle_data(self, data):
        self.text += f"{data} "


def test_the_page_is_self_contained_and_shows_markup_as_text(tmp_path):
    text = f'ID,<b>bleed</b>,patient\n"{EVIL}",1,p1\n"lost{EVIL}",0,p1\nb,,p2\n'
    (tmp_path / "data" / "train").mkdir(parents=True)
    data = make(tmp_path / "data", text)
    for name in (EVIL, "b", "extra&amp;"):
        (data / "train" / f"{name}.png").touch()
    cache = tmp_path / "cache"
    record(cache, "train", (EVIL, 5, 5, 1, 8, 0, 0), ("b", 5, 5, 1, 8, 90, 50))
    replace_rejections(cache, ["train"], [Rejection("extra&amp;", "train/extra.png", "<script>alert(2)</script>", "")])
    code, said = run(data, "--cache", cache)
    page_path = cache / "describe" / "describe.html"
    assert code == 0
    assert f"written: {page_path}" in said
    html = page_path.read_text(encoding="utf-8")
    page = Page(html)
    assert page.loads == []
    assert page.tags.isdisjoint({"script", "img", "link", "b", "iframe"})
    assert "url(" not in html
    assert "prefers-color-scheme: dark" in html
    for shown in (
        EVIL,
        f"lost{EVIL}",
        "<b>bleed</b>",
        "extra&amp;",
        "<script>alert(2)</script>",
        "blank or nearly blank",
    ):
        assert shown in page.text


def test_the_page_has_the_numbers(data, tmp_path):
    run(data, "--out", tmp_path / "page")
    text = " ".join(Page((tmp_path / "page" / "describe.html").read_text(encoding="utf-8")).text.split())
    assert "bleed 3 2 0 2 60.0%" in text
    assert "calc 2 2 1 2 50.0%" in text
    assert "bleed 3 2 (67%) calc 2 (100%) 2" in text
    assert "bleed + calc 2 50.0%" in text
    assert "1 images with a row of which a label is missing d" in text


def test_the_page_lists_all_faults(tmp_path):
    rows = "".join(f"i{number},{number % 2},\n" for number in range(20))
    data = make(tmp_path, f"ID,bleed,patient\n{rows}", train=" ".join(f"i{number}.png" for number in range(20)))
    code, said = run(data, "--out", tmp_path / "page")
    assert code == 0
    assert "20 faults that classify run refuses, of these kinds: group 20" in said
    assert "line 9, column patient" in said
    assert "line 10, column patient" not in said
    assert "and 12 more: describe.html lists them" in said
    text = " ".join(Page((tmp_path / "page" / "describe.html").read_text(encoding="utf-8")).text.split())
    for line in range(2, 22):
        assert f"group {data}/train.csv {line} patient received a blank cell Every row needs a group" in text


def test_a_whole_data_set_has_no_faults(tmp_path):
    data = make(tmp_path, "ID,bleed\na,1\nb,0\n", train="a.png b.png")
    code, said = run(data, "--out", tmp_path / "page")
    assert (code, "fault" in said) == (0, False)
    assert "Faults" not in (tmp_path / "page" / "describe.html").read_text(encoding="utf-8")


def test_the_page_names_the_command_that_makes_it(data, tmp_path):
    groups = tmp_path / "my groups.csv"
    groups.write_text("ID,group\n" + "".join(f"{i},g\n" for i in "abcdex"))
    options = ("--id-column", "ID", "--labels", "calc,bleed", "--groups", str(groups))
    run(data, "--out", tmp_path / "page", *options)
    page = (tmp_path / "page" / "describe.html").read_text(encoding="utf-8")
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'\">" in page  # and no script at all
    text = " ".join(Page(page).text.split())
    assert f"by .venv/bin/python -m features describe {shlex.join([str(data), *options])} . No image" in text


def test_bad_input_is_one_message(data, tmp_path):
    assert run(tmp_path / "none")[0] == 2
    code, said = run(data, "--cache", tmp_path / "none")
    assert (code, "no features have been extracted" in said) == (2, True)
    (tmp_path / "file").touch()
    code, said = run(data, "--out", tmp_path / "file")
    assert (code, "cannot be written" in said) == (2, True)


def test_the_data_sets_own_cache_is_found_and_that_of_another_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr("features.store.cache.__file__", str(tmp_path / "repo" / "features" / "store" / "cache.py"))
    assert "what the images are like is not known: name their cache with --cache" in run(data)[1]
    cache = tmp_path / "repo" / "features" / "cache" / "data"
    record(cache, "train", *((i, 5, 6, 1, 8, 60, 30) for i in "abcde"))
    code, said = run(data)
    assert (code, "images: 5 x 6 5; 8 bit 5; grey 5" in said) == (0, True), said
    assert (cache / "describe" / "describe.html").exists()
    (cache / "dataset.txt").write_text("/another/data")  # whose it is then
    code, said = run(data)
    assert (code, "what the images are like is not known" in said) == (0, True), said
    other = tmp_path / "other"
    record(other, "train", ("z", 5, 6, 1, 8, 60, 30))
    code, said = run(data, "--cache", other)
    assert (code, f"{other} holds no image of {data}, but others" in said) == (2, True), said
    assert not (other / "describe").exists()


def test_rows_with_too_many_cells_are_listed_and_the_rest_is_described(tmp_path):
    rows = "".join(f"i{number},{number % 2}{',9' * (number % 2)}\n" for number in range(300))
    data = make(tmp_path, f"ID,bleed\n{rows}", train=" ".join(f"i{number}.png" for number in range(300)))
    code, said = run(data)
    assert code == 0
    assert "150 faults that classify run refuses, of these kinds: table 150" in said
    assert "and 142 more: describe.html lists them, with --out" in said
    run(data, "--out", tmp_path / "page")
    assert (tmp_path / "page" / "describe.html").read_text(encoding="utf-8").count("received 3 cells") == 150


def test_every_cell_that_is_not_a_label_is_listed(tmp_path):
    rows = "".join(f"i{number},{2 if number % 2 else 0}\n" for number in range(400))
    data = make(tmp_path, f"ID,bleed\n{rows}", train=" ".join(f"i{number}.png" for number in range(400)))
    run(data, "--labels", "bleed", "--out", tmp_path / "page")
    assert (tmp_path / "page" / "describe.html").read_text(encoding="utf-8").count("received &#39;2&#39;") == 200
