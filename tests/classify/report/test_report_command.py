"""`python -m classify report`: one file from a run's files, or one message."""

import json
import re
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

from classify.__main__ import app
from classify.report.data import describe_audit
from classify.report.gallery import describe_gallery
from classify.report.page import write_report
from classify.report.plotting import DASH
from classify.report.run_files import RunFiles
from classify.rundir.folder import hold_run
from features.common.errors import InputError
from tests.classify.report.conftest import HOSTILE, HOSTILE_GROUP, rename, seal_of, write_pictures
from tests.classify.toy import LABELS, reseal


@pytest.fixture
def copied(plain_run, tmp_path):
    """A run of one's own, without a report."""
    return shutil.copytree(plain_run, tmp_path / "run")


@pytest.fixture(scope="module")
def without_pictures(plain_run, tmp_path_factory):
    """A run whose report has no pictures."""
    run = shutil.copytree(plain_run, tmp_path_factory.mktemp("without_pictures") / "run")
    code, said = report(run)
    assert code == 0
    assert re.search(r"^report: .*run/report\.html \(0\.\d MB\)$", said)
    return run


@pytest.fixture
def quick(monkeypatch):
    """Reports that hold one word, and one figure."""

    def make_page(run, figures):
        (figures / "new.png").touch()
        return "new"

    monkeypatch.setattr("classify.report.page.make_page", make_page)


@pytest.fixture
def undrawn(monkeypatch):
    """Reports whose figures are empty, for tests of their words: drawing takes most of a report's time."""

    def save(figure, file, **how):
        if isinstance(file, Path):
            file.touch()
        else:
            file.write('<svg viewBox="0 0 1 1"></svg>')

    monkeypatch.setattr(Figure, "savefig", save)


def report(run):
    """Run the command."""
    result = CliRunner().invoke(app, ["report", str(run)])
    return result.exit_code, " ".join(result.output.split())


def words(page: str) -> str:
    """The page's text, without what stands in scripts and styles."""
    body = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


class Attributes(HTMLParser):
    """Collects what a page's elements ask a browser to load or to run."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.loaded += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "action")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def test_makes_a_page_that_loads_nothing_and_a_png_of_every_figure(without_pictures, plain_run):
    before = sorted(path.name for path in plain_run.iterdir())
    assert sorted(path.name for path in without_pictures.iterdir()) == sorted([*before, "figures", "report.html"])
    page = (without_pictures / "report.html").read_text()
    attributes = Attributes()
    attributes.feed(page)
    assert [url for url in attributes.loaded if not url.startswith(("#", "data:"))] == []
    assert attributes.handlers == []
    assert "url(" not in page.replace("url(#", "")
    figures = {path.name for path in (without_pictures / "figures").iterdir()}
    assert len(figures) == page.count("<figure") == 4 + 3 * 3 + 4 * 3
    expected = {"prevalence", "folds", "models", "backbones", "label_1_epidural_roc", "label_3_subarachnoid_histogram"}
    assert {f"{name}.png" for name in expected} <= figures


def test_says_what_the_runs_files_say(without_pictures):
    text = words((without_pictures / "report.html").read_text())
    record = json.loads((without_pictures / "run.json").read_text())
    final = record["final_model"]
    metrics = pd.read_csv(without_pictures / "metrics.csv").set_index(["model", "split", "label", "metric"])[
        ["value", "low", "high"]
    ]
    for split in ("oof", "test"):
        value, low, high = metrics.loc[(final, split, "macro", "roc_auc")]
        assert f"{value:.3f} [{low:.3f}, {high:.3f}]" in text
    assert f"The final model: {final}" in text
    assert record["selection"]["means"] in text
    labels = pd.read_csv(without_pictures / "labels.csv")
    train = labels[labels["split"] == "train"]
    assert f"train {len(train)} 0 {train['group'].nunique()} 5 (5)" in text
    both = int((train["epidural"] & train["subarachnoid"]).sum())
    assert f"{both} {100 * both / train['epidural'].sum():.1f} %" in text
    assert record["splits"]["train"]["fingerprints"]["alpha"][:16] in text
    assert f"python -m classify run {record['data']} --out {without_pictures}" in text
    assert text.count("Not a medical device") == 3
    reasons = [figure["reason"] for figure in record["incomplete_intervals"]]
    assert len(reasons) > len(set(reasons)) > 0
    for reason in set(reasons):
        assert text.count(f"{reason}: {reasons.count(reason):,}, first ") == 1


def test_means_say_of_which_labels_they_are(copied, without_pictures, undrawn):
    text = words((without_pictures / "report.html").read_text())
    assert "of the time: the mean over the labels." in text
    selection = json.loads((copied / "run.json").read_text())["selection"]
    reseal(copied, selection=selection | {"left_out": {"epidural": "3 positives in train"}})
    report(copied)
    text = words((copied / "report.html").read_text())
    means = "the mean over 2 of 3 labels, without epidural (3 positives in train)"
    assert f"of the time: {means}." in text
    assert f"Leaderboard Macro: {means}. Out-of-fold unless it says test;" in text


def test_without_pictures_or_an_audit_it_says_so_and_how_to_add_them(without_pictures):
    page = (without_pictures / "report.html").read_text()
    data = json.loads((without_pictures / "run.json").read_text())["data"]
    assert "No pictures: nobody has made them yet" in words(page)
    assert f"python -m extract heat {data} {without_pictures}" in words(page)
    assert f"python -m features audit {json.loads((without_pictures / 'run.json').read_text())['cache']}" in words(page)
    assert 'class="picture"' not in page


def test_an_audit_and_the_gap_have_their_part(reported, copied):
    text = words((reported / "report.html").read_text())
    assert "nearer than 0.123" in text
    assert f"within train 3 17 5 2 between train and test 3 17 {DASH} 2" in text
    assert "1 patient is in several splits: p7." in text
    assert (
        "logistic, all backbones has a macro AUC of 0.950 [0.930, 0.970] with folds that may split a patient, and of "
        "0.720 with folds that keep each patient together: a gap of 0.230 [0.200, 0.250]." in text
    )
    audit = json.loads((reported / "audit.json").read_text())
    audit["pairs"]["within train"]["across_folds"] = None
    (copied / "audit.json").write_text(json.dumps(audit))
    described = describe_audit(RunFiles.read(copied))["scopes"]
    assert [scope["across_folds"] for scope in described] == ["not known", "\u2013"]
    (copied / "audit.json").write_text('{"pairs": {}}')
    with pytest.raises(InputError, match=r"audit\.json cannot be read.*features audit"):
        describe_audit(RunFiles.read(copied))


def test_ids_that_look_like_numbers_or_like_nothing_are_joined_as_words(copied):
    gallery = pd.read_csv(copied / "gallery.csv")
    ids = gallery.loc[gallery["split"] == "train", "ID"].unique()
    for old, new in zip(ids, ("007", "NA", "1e3"), strict=False):
        rename(copied, old, new)
    run = RunFiles.read(copied)
    out_of_fold = pd.read_csv(copied / "oof_probability.csv", dtype={"ID": str}, keep_default_na=False)
    own = out_of_fold[out_of_fold["model"] == run.final_model].set_index("ID")
    split = run.splits["train"]
    assert {"007", "NA", "1e3"} <= set(split.image_ids)
    np.testing.assert_array_equal(
        split.probabilities, own.loc[list(split.image_ids), list(LABELS)].to_numpy(np.float32)
    )


def test_words_of_a_person_stand_in_the_page_as_words(reported):
    page = (reported / "report.html").read_text()
    assert HOSTILE not in page
    assert HOSTILE_GROUP not in page
    assert HOSTILE in words(page)


def test_outcomes_are_decided_as_the_run_decides_between_neighbouring_numbers(copied):
    run = RunFiles.read(copied)
    row = run.gallery[(run.gallery["split"] == "train") & (run.gallery["outcome"] == "true_positive")].iloc[0]
    split, label = run.splits["train"], LABELS.index(row["label"])
    lower = split.probabilities[split.image_ids.index(row["ID"]), label]
    above = (
        float(lower) + float(np.nextafter(lower, np.float32(2)))
    ) / 2  # no float32 number; rounded, it is one of them
    for threshold, outcome in ((above, "false negative"), (float(lower), "true positive")):
        run.thresholds.loc[row["label"], "threshold"] = threshold
        cards = [
            card for card in describe_gallery(run)["cards"] if (card["id"], card["label"]) == (row["ID"], row["label"])
        ]
        assert {card["decision"] for card in cards} == {outcome}


def test_the_gallery_says_whose_heat_it_shows(reported, copied, undrawn):
    text = words((reported / "report.html").read_text())
    assert "The heat is of greedy, without its members forest/all, knn/all, which have no gradient." in text
    (copied / "cam").mkdir()
    without = {"run": seal_of(copied), "model": "forest", "left_out": {}, "no_heat": "forest has no <b>gradient"}
    (copied / "cam" / "cam.json").write_text(json.dumps(without))
    write_report(copied)
    page = (copied / "report.html").read_text()
    assert "No heat maps: forest has no <b>gradient." in words(page)
    assert 'id="all-heat"' not in page
    whole = without | {"no_heat": ""}
    for damaged in ({}, [], *(whole | {name: 1} for name in whole)):
        (copied / "cam" / "cam.json").write_text(json.dumps(damaged))
        with pytest.raises(InputError, match=r"cam\.json cannot be read \(run, model, left_out.*extract heat"):
            describe_gallery(RunFiles.read(copied))
    (copied / "cam" / "cam.json").write_text(json.dumps(whole | {"run": "0" * 32}))
    with pytest.raises(InputError, match=r"cam holds heat maps of another run\. Run: .* extract heat .*toy "):
        describe_gallery(RunFiles.read(copied))


def test_a_run_without_groups_test_heads_or_several_models_has_its_report_too(toy, tmp_path):
    data = shutil.copytree(toy.data, tmp_path / "toy")
    shutil.rmtree(data / "test")
    (data / "test.csv").unlink()
    pd.read_csv(data / "train.csv").drop(columns="patient").to_csv(data / "train.csv", index=False)
    arguments = ["run", str(data), "--cache", str(toy.cache), "--out", str(tmp_path / "run"), "--preset", "none"]
    arguments += ["--backbones", "alpha", "--labels", "epidural", "--calibration", "platt"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert report(tmp_path / "run")[0] == 0
    text = words((tmp_path / "run" / "report.html").read_text())
    assert "No groups are known: related images may be both learnt from and tested on" in text
    assert "No labelled test images" in text
    assert "It is calibrated per label by platt" in text
    assert "Training" not in text.split("Models")[0]


def test_a_second_report_replaces_the_first_and_an_overwritten_run_has_none(copied, toy, quick):
    (copied / "figures").mkdir()
    (copied / "figures" / "old.png").touch()
    (copied / "report.html").write_text("old")
    write_report(copied)
    assert [path.name for path in (copied / "figures").iterdir()] == ["new.png"]
    assert (copied / "report.html").read_text() == "new"
    arguments = ["run", str(toy.data), "--cache", str(toy.cache), "--out", str(copied), "--overwrite"]
    assert CliRunner().invoke(app, [*arguments, "--preset", "none", "--ensemble", "none"]).exit_code == 0
    assert not (copied / "report.html").exists()
    assert not (copied / "figures").exists()


def test_a_report_that_fails_leaves_the_earlier_one(copied, quick, monkeypatch):
    write_report(copied)

    def fail(run, figures):
        (figures / "half.png").touch()
        raise InputError("a damaged picture")

    monkeypatch.setattr("classify.report.page.make_page", fail)
    with pytest.raises(InputError, match="a damaged picture"):
        write_report(copied)
    assert (copied / "report.html").read_text() == "new"
    assert [path.name for path in (copied / "figures").iterdir()] == ["new.png"]
    assert not [path for path in copied.iterdir() if path.name.startswith(".")]


def test_a_run_that_is_being_written_has_no_report(copied, quick):
    with hold_run(copied), pytest.raises(InputError, match="is being worked on"):
        write_report(copied)
    assert not (copied / "report.html").exists()


def test_a_list_of_pictures_that_leads_elsewhere_is_refused(copied):
    (copied / "cam").mkdir()
    (copied / "cam" / "images.csv").write_text("split,ID,file\ntrain,a,../../secret\n")
    with pytest.raises(InputError, match=r"images\.csv cannot be read.*'\.\./\.\./secret'.*extract heat"):
        describe_gallery(RunFiles.read(copied))


def test_no_run_is_one_message_and_makes_nothing(tmp_path):
    code, said = report(tmp_path / "none" / "run")
    assert code == 2
    assert "holds no finished run" in said
    assert not (tmp_path / "none").exists()


def test_the_gallery_decides_between_two_neighbouring_float32_values_as_the_run_does(copied):
    run = RunFiles.read(copied)
    card = next(card for card in describe_gallery(run)["cards"] if card["outcome"] == "true_positive")
    probability = np.float32(card["probability"])
    above = (float(probability) + float(np.nextafter(probability, np.float32(2)))) / 2
    path = copied / "thresholds.csv"
    table = pd.read_csv(path)
    own = (table["model"] == run.final_model) & (table["label"] == card["label"])
    for threshold, decision in ((above, "false negative"), (float(probability), "true positive")):
        table.loc[own, "threshold"] = threshold
        table.to_csv(path, index=False)
        reseal(copied)
        again = describe_gallery(RunFiles.read(copied))["cards"]
        assert next(c["decision"] for c in again if c["id"] == card["id"] and c["label"] == card["label"]) == decision


def test_a_folder_that_cannot_be_written_has_a_remedy_that_the_command_has(copied, quick, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("features.common.files.fcntl.flock", refuse)
    code, said = report(copied)
    assert code == 2
    assert f"{copied} has to be a folder that can be written, or work in a copy." in said


def test_pictures_whose_model_has_no_heat_stand_without_it(copied):
    write_pictures(copied)
    shutil.rmtree(copied / "cam" / "heat")
    path = copied / "cam" / "cam.json"
    about = json.loads(path.read_text()) | {"model": "knn/all", "left_out": {"knn/all": "no"}}
    path.write_text(json.dumps(about))
    gallery = describe_gallery(RunFiles.read(copied))
    assert gallery["with_pictures"] == len(gallery["cards"])
    assert (gallery["pictures"].heat, {card["heat"] for card in gallery["cards"]}) == ({}, {""})
