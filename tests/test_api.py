"""What docs/api.md tells people to type works from top to bottom; importing the rooms loads none of their libraries."""

import re
import subprocess
import sys

from typer.testing import CliRunner

from scripts import phantom
from tests import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.DOTALL)


def test_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(phantom.app, ["data/ich", "--train", "90", "--test", "6", "--size", "64", "--jobs", "1"])
    assert made.exit_code == 0, made.output
    known: dict = {}
    for block in BLOCKS:
        exec(compile(block, "docs/api.md", "exec"), known)
    train, X, run = known["train"], known["X"], known["run"]
    assert X.index.tolist() == train.index.tolist()
    assert X.shape == (90, known["cache"].open("train", "efficientnet_lite0.mid").width)
    assert set(run.leaderboard.index) >= {"mine/efficientnet_lite0.mid", "ridge_regression/efficientnet_lite0.mid"}
    assert known["probabilities"].shape == known["decisions"].shape == (6, 3)
    assert "linear" in known["classify"].Run("runs/first").curves["model"].iloc[0]
    shown = known["dataset"]._repr_html_()
    assert "<td>90</td>" in shown
    assert "understood" not in shown


def test_importing_the_rooms_loads_none_of_their_libraries():
    program = "import sys, classify, extract, features; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"numpy", "pandas", "sklearn", "tensorflow", "keras", "h5py", "typer"} & set(done.stdout.split())


def test_what_the_rooms_offer_is_there_and_nothing_else():
    for room in ("classify", "extract", "features"):
        module = __import__(room)
        assert [getattr(module, name).__name__ for name in module.__all__] == module.__all__
        assert not hasattr(module, "no_such_name")
