"""scripts/slurm.sh, with an sbatch of our own that runs the jobs here."""

import os
import subprocess

import pytest
from typer.testing import CliRunner

from extract.__main__ import app
from tests import ROOT
from tests.extract.backbones.tiny_onnx import write_mean_colour
from tests.extract.shards.test_shards import content
from tests.extract.stand_ins import write_images

SCRIPT = ROOT / "scripts" / "slurm.sh"
SBATCH = """#!/usr/bin/env bash
echo "$@" >> {log}
job=$(mktemp)
cat > "$job"
tasks=1
for word in "$@"; do case $word in --array=1-*) tasks=$(seq ${{word#--array=1-}} -1 1) ;; esac; done
for SLURM_ARRAY_TASK_ID in $tasks; do
  export SLURM_ARRAY_TASK_ID
  bash "$job" >> {log}.out 2>&1
  echo "exit code $?" >> {log}
done
echo "4${{#tasks}};cluster"
"""


def with_sbatch(folder):
    """A search path on which our sbatch comes first, which writes into the folder's log."""
    (folder / "bin").mkdir()
    sbatch = folder / "bin" / "sbatch"
    sbatch.write_text(SBATCH.format(log=folder / "log"))
    sbatch.chmod(0o755)
    return f"{folder / 'bin'}:{os.environ['PATH']}"


def submit(*words, path=os.environ["PATH"], cwd=ROOT):
    return subprocess.run(
        [str(word) for word in (SCRIPT, *words)],
        cwd=cwd,
        env={**os.environ, "PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_script_parses():
    assert subprocess.run(["bash", "-n", SCRIPT], check=False).returncode == 0


def test_an_array_of_shards_and_a_job_that_puts_them_together(tmp_path):
    """By a model of ONNX, whose jobs need not load TensorFlow."""
    pytest.importorskip("onnxruntime")
    data, cache = tmp_path / "it's $data", tmp_path / "the cache"
    write_images(data / "train", 130, side=16)
    log = tmp_path / "log"
    words = [data, "--backbone", f"own={write_mean_colour(tmp_path)}", "--features", "last", "--cache"]
    done = submit(3, *words, cache, path=with_sbatch(tmp_path))
    assert done.returncode == 0, done.stderr
    assert log.read_text().splitlines() == [
        "--parsable --job-name=headbank-extract --array=1-3",
        *["exit code 0"] * 3,
        "--parsable --job-name=headbank-assemble --dependency=afterok:45 --kill-on-invalid-dep=yes",
        "exit code 0",
    ]
    assert f"slurm: job 45: 3 shards of {data} " in done.stdout
    assert done.stdout.splitlines()[1] == f"slurm: job 41: puts them together in {cache} once all are done"
    assert "3 shards put together" in (tmp_path / "log.out").read_text()
    plain = CliRunner().invoke(app, ["run", *map(str, words), str(tmp_path / "one")])
    assert plain.exit_code == 0, plain.output
    assert content(cache) == content(tmp_path / "one")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "expected the number of shards first, as in scripts/slurm.sh 16 DATA --cache CACHE; received ''."),
        (["DATA", "--cache", "C"], "received 'DATA'"),
        (["0", "DATA", "--cache", "C"], "received '0'"),
        (["4", "--cache", "C"], "expected DATA after the number of shards, as in scripts/slurm.sh 4 DATA"),
        (["4", "", "--cache", "C"], "expected DATA after the number of shards"),
        (["4", "DATA"], "--cache CACHE is missing"),
        (["4", "DATA", "--cache", "--backbones", "x"], "--cache CACHE is missing"),
        (["4", "DATA", "--", "--cache=C"], "--cache CACHE is missing"),
        (["4", "DATA", "--cache=C", "--cluster", "ray"], "--cluster is for Ray"),
        (["4", "DATA", "--address=here:1", "--cache=C"], "--address is for Ray"),
        (["4", "DATA", "--cache=C", "--actor-cpus", "2"], "--actor-cpus is for Ray"),
        (["4", "DATA", "--cache"], "--cache CACHE is missing"),
        (["4", "DATA", "--cache=C", "--shard", "1/4"], "--shard is for this script to give"),
        (["4", "DATA", "--cache=C"], "sbatch was not found"),
        (["4", "missing", "--cache=C"], "DATA, missing, is not a folder as seen from "),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_submitted(words, said, tmp_path):
    done = submit(*words, path="/usr/bin:/bin" if "sbatch" in said else with_sbatch(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert not (tmp_path / "log").exists()


def test_words_that_begin_with_a_dash_stay_what_they_are(tmp_path):
    write_images(tmp_path / "data" / "train", 70, side=16)
    words = ["data", f"--backbone=own={write_mean_colour(tmp_path)}", "--features=last", "--cache=-rel", "--"]
    done = submit(2, *words, path=with_sbatch(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = (tmp_path / "log.out").read_text()
    assert [line for line in (tmp_path / "log").read_text().splitlines() if "exit" in line] == ["exit code 0"] * 3, said
    assert "2 shards put together" in said
    assert (tmp_path / "-rel" / "train" / "own.h5").exists()


@pytest.mark.parametrize("words", [["--help"], ["-h"], [4, "DATA", "--help"], [4, "--help"]])
def test_help_says_how_it_is_called(words):
    done = submit(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: scripts/slurm.sh N DATA --cache CACHE" in done.stdout
