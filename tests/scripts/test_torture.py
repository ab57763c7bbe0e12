"""scripts/torture.py: cases follow from their numbers, the judges see planted faults, the manual names all kinds."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from scripts.knocks import images, scans
from scripts.knocks.bulk import Specimen, judge_row
from scripts.knocks.campaign import Tally, schedule
from scripts.knocks.case import FAILURES, GOOD, OUTCOMES, Case, Verdict
from scripts.knocks.commands import Ended
from scripts.knocks.stage import SIDE, Stage, write_data
from scripts.knocks.stops import judge_stopped
from scripts.knocks.table import KINDS
from scripts.knocks.tables import Writing
from scripts.torture import app
from tests import ROOT

pytest.importorskip("onnxruntime")

PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
#: Faults that are planted in the product, where the cases see them, and what these must find.
PLANTED = {
    "wrong values": (
        "import extract.pipeline as one; right = one.decode\n"
        "one.decode = lambda *given: (lambda pixels, facts: (255 - pixels, facts))(*right(*given))",
        "--only images --scale 0.01",
    ),
    "lost rows": (
        "import extract.extraction as one; one.replace_rejections = lambda *given: None",
        "--only images --scale 0.01",
    ),
    "traceback": ("import extract.pipeline as one; one.decode = lambda *given: 1 / 0", "--case images:0"),
    "hang": (
        "import extract.pipeline as one, time; one.decode = lambda *given: time.sleep(600)\n"
        "import scripts.knocks.bulk as two; from functools import partial\n"
        "two.Surroundings = partial(two.Surroundings, limit=3.0)",
        "--case images:0",
    ),
    "crash": (
        "import extract.pipeline as one, os; one.decode = lambda *given: os.kill(os.getpid(), 11)",
        "--case images:0",
    ),
    "silence": (
        "import extract.run as one, os; one.run_extraction = lambda options: os._exit(2)",
        "--case images:0",
    ),
}


def torture(*options: str, planted: str = "") -> subprocess.CompletedProcess[str]:
    program = f"import sys; sys.path.insert(0, '.')\n{planted}\nfrom scripts.torture import app\napp()"
    return subprocess.run(
        [sys.executable, "-c", program, *options], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )


def outcomes(table: str) -> dict[str, list[int]]:
    """The rows of a table of outcomes: kind -> counts, the number of cases first."""
    rows = re.findall(r"^\| (\w+) \| ([\d,]+(?: \| [\d,]+)+) \|$", table, re.MULTILINE)
    return {name: [int(cell.replace(",", "")) for cell in cells.split(" | ")] for name, cells in rows}


def test_some_cases_of_each_cheap_kind_end_well_and_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = torture("--only", "images,scans,tables", "--scale", "0.015")
    assert done.returncode == 0, done.stdout + done.stderr
    found = outcomes(done.stdout)
    assert {name: counts[0] for name, counts in found.items()} == {
        "images": 30, "scans": 19, "tables": 8, "all": 57,
    }  # fmt: skip
    assert found["images"][1] > 0  # correct
    assert found["images"][2] > 0  # rejected
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("outcome", PLANTED)
def test_a_planted_fault_is_found_and_the_command_that_shows_it_again_is_printed(outcome):
    planted, options = PLANTED[outcome]
    done = torture(*options.split(), planted=planted)
    assert done.returncode == 1, done.stdout + done.stderr
    found = dict(re.findall(rf"^(images:\d+) ({'|'.join(FAILURES)}): ", done.stdout, re.MULTILINE))
    assert set(found.values()) == {outcome}
    assert f"scripts/torture.py --seed 1 --case {next(iter(found))}\n" in done.stdout


def test_a_campaign_that_is_stopped_leaves_nothing_and_no_process(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "scripts/torture.py", "--only", "tables"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as one:
        while not list(tmp_path.glob("torture-*/tables-*/*")):
            assert one.poll() is None
            time.sleep(0.05)
        one.send_signal(signal.SIGTERM)
        one.wait(timeout=30)
    assert list(tmp_path.iterdir()) == []
    time.sleep(0.2)
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/environ") if _is_readable(path)]
    assert not any(str(tmp_path).encode() in of_one for of_one in commands)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--markdown missing/x.md", "--markdown missing/x.md cannot be written: No such file or directory"),
        ("--markdown .", "--markdown . cannot be written: Is a directory"),
        ("--keep file", "--keep file cannot be a folder: File exists"),
        ("--keep file/folder", "--keep file/folder cannot be a folder: Not a directory"),
        ("--keep full", "--keep full is not empty: it holds tables-1. Name another folder."),
        ("--case tables:1 --only tables", "--only has no effect beside --case. Leave one of them out."),
        ("--case tables:1 --scale 1", "--scale has no effect beside --case."),
        ("--case tables:1 --hours 1", "--hours has no effect beside --case."),
        ("--case tables:1 --seconds 9", "--seconds has no effect beside --case."),
        ("--hours 1 --seconds 9", "--seconds has no effect beside --hours."),
        ("--case tables:x", "--case 'tables:x': expected KIND:NUMBER, such as tables:17."),
        ("--case other:1", "'other' is not a kind of cases."),
    ],
)
def test_options_that_cannot_be_followed_are_one_message_before_the_first_case(options, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Stage, "prepare", lambda self, needs: pytest.fail("it began"))
    (tmp_path / "file").touch()
    (tmp_path / "full" / "tables-1").mkdir(parents=True)
    done = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, options.split())
    said = " ".join(re.sub(r"[\u2500-\u257f]", " ", done.output).split())
    assert (done.exit_code, says in said) == (2, True), done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


def _is_readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:
        return False
    return True


def test_labels_that_are_scrambled_are_found():
    planted = (
        "import features.dataset.dataset as one, dataclasses; read = one.read_dataset\n"
        "def scrambled(*given):\n"
        "    found = read(*given); train = found.splits['train']\n"
        "    found.splits['train'] = dataclasses.replace(train, labels=train.labels[::-1].copy()); return found\n"
        "one.read_dataset = scrambled"
    )
    done = torture("--case", "tables:0", planted=planted)
    assert (done.returncode, "tables:0 wrong values" in done.stdout) == (1, True), done.stdout + done.stderr


def test_a_cache_whose_digests_nobody_compares_is_found():
    planted = (
        "import features.store.cache_file as one\n"
        "one.CacheFile.block = lambda self, number: self._features[128 * number : 128 * number + 128]"
    )
    done = torture("--case", "caches:0", planted=planted)
    assert (done.returncode, "caches:0 wrong values: two rows swapped" in done.stdout) == (1, True), done.stdout


@pytest.mark.parametrize(("kind", "make"), [("images", images.make), ("scans", scans.make)])
def test_a_case_follows_from_seed_kind_and_number(kind, make):
    for number in range(12):
        first, again, other = make(Case(1, kind, number)), make(Case(1, kind, number)), make(Case(2, kind, number))
        assert (first.name, first.content, first.story) == (again.name, again.content, again.story)
        assert first.whole != other.whole


def specimen(content: bytes = b"damaged") -> Specimen:
    return Specimen("a.png", content, "a", b"whole", lambda encoded, frame: IMAGES[encoded], 1, "")


IMAGES = {b"whole": np.full((SIDE, SIDE, 3), 9, np.uint8), b"damaged": np.full((SIDE, SIDE, 3), 50, np.uint8)}
ROW = np.full(3 * SIDE * SIDE, 9, np.float32)


@pytest.mark.parametrize(
    ("row", "reason", "content", "outcome"),
    [
        (ROW, None, b"damaged", "correct"),
        (ROW + 41, None, b"damaged", "correct"),
        (ROW + 5, None, b"damaged", "wrong values"),
        (ROW, None, b"refused by others", "correct"),
        (ROW + 5, None, b"refused by others", "wrong values"),
        (ROW, "a reason", b"damaged", "wrong values"),
        (None, None, b"damaged", "lost rows"),
        (None, "a reason", b"damaged", "rejected"),
        (None, " ", b"damaged", "silence"),
        (None, "a reason", b"whole", "lost rows"),
    ],
)
def test_a_row_is_right_or_the_file_is_listed(row, reason, content, outcome):
    assert judge_row(specimen(content), "", row, reason).outcome == outcome


@pytest.mark.parametrize(
    ("ended", "outcome"),
    [
        (Ended(0, "done", 1.0), None),
        (Ended(2, "error: x", 1.0), None),
        (Ended(2, " ", 1.0), "silence"),
        (Ended(0, "Traceback (most recent call last):\n", 1.0), "traceback"),
        (Ended(1, "error: a fault of Headbank: KeyError", 1.0), "traceback"),
        (Ended(-11, "", 1.0), "crash"),
        (Ended(99, "", 1.0), "crash"),
        (Ended(-9, "", 61.0, hung=True), "hang"),
        (Ended(-15, "", 1.0, sent=15), None),
        (Ended(143, "stopped", 1.0, sent=15), None),
        (Ended(130, "stopped", 1.0, sent=15), "crash"),
        (Ended(2, "error: x", 1.0, sent=15), "crash"),
    ],
)
def test_the_end_of_a_command_is_judged(ended, outcome):
    verdict = judge_stopped(ended) if ended.sent else ended.failure()
    assert (verdict and verdict.outcome) == outcome


def test_results_that_differ_or_miss_something_and_what_is_left_behind_are_found(tmp_path):
    stage = Stage(tmp_path)
    for place in (tmp_path, tmp_path / "again"):
        (place / "predicted").mkdir(parents=True)
        (place / "predicted" / "a.csv").write_text("ID,a\nx,0.5\n")
    assert stage.compare("predict", tmp_path / "again") is None
    (tmp_path / "again" / "predicted" / ".a.tmp").touch()
    left = stage.compare("predict", tmp_path / "again")
    assert left is not None
    assert left.outcome == "lost rows"
    (tmp_path / "again" / "predicted" / "a.csv").write_text("ID,a\nx,0.6\n")
    wrong = stage.compare("predict", tmp_path / "again")
    assert wrong == Verdict("wrong values", "predict made other values: a.csv")
    (tmp_path / "again" / "predicted" / "a.csv").unlink()
    assert stage.compare("predict", tmp_path / "again") == Verdict("lost rows", "predict lost a.csv")


def test_a_table_is_read_by_id_whatever_its_form():
    writing = Writing("utf-16", ";", before="sep=;\n")
    content = writing.write([["patient", "ID", "a", "b"], ["p", "x/img1.png", "1", "False"], ["p", "img2", "2", "1.0"]])
    assert writing.read(content) == {"img1": [[1, 0]], "img2": [[None, 1]]}


def test_each_kind_has_its_share_of_any_stretch():
    kinds = list(KINDS.values())
    batches = list(schedule(kinds, seed=3, scale=1.0, endless=False))
    for kind in kinds:
        numbers = [case.number for batch in batches for case in batch if case.kind == kind.name]
        assert sorted(numbers) == list(range(kind.count))
        half = [case for batch in batches[: len(batches) // 2] for case in batch if case.kind == kind.name]
        assert 0.3 <= len(half) / kind.count <= 0.8
    endless = schedule([KINDS["kills"]], seed=3, scale=0.02, endless=True)
    assert [next(endless)[0].number for _ in range(5)] == [0, 1, 2, 3, 4]


def test_the_manual_names_every_kind_and_outcome_and_its_table_has_no_failure():
    for kind in KINDS.values():
        assert f"| {kind.name} | {kind.count:,} | {kind.what} | {kind.judged} |" in PAGE
    for name, words in {**GOOD, **FAILURES}.items():
        assert f"- **{name}**: {words}" in PAGE
    header = f"| kind | cases | {' | '.join(OUTCOMES)} |"
    assert header == Tally().table().splitlines()[0]
    found = outcomes(PAGE[PAGE.index(header) :])
    assert {name: counts[0] for name, counts in found.items() if name != "all"} == {
        kind.name: kind.count for kind in KINDS.values()
    }
    for name, counts in found.items():
        assert sum(counts[1:3]) == counts[0], name


def test_the_data_of_the_stage_is_always_the_same(tmp_path):
    for name in ("one", "two"):
        write_data(tmp_path / name)
    names = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(names) == 121
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)
