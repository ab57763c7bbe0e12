"""A command made of a run's record means the same data, cache and columns, whatever they are called."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from classify.__main__ import app as classify
from classify.ensembles.ensembles import ENSEMBLES
from classify.options import RunOptions, command_line
from classify.settings import Settings
from extract.__main__ import app as extract
from features.__main__ import app as features
from features.common.errors import InputError

RUN = Path("my run")
COMMANDS = ("classify run", "extract heat", "classify report", "features audit")
ARGUMENTS = {"cache": "my cache", "folds": 2, "refit": True, "gap": False, "id_column": "the file", "labels": "a b,=c"}
RECORD = {
    "data": "it's data",
    "cache": "my cache",
    "arguments": {**ARGUMENTS, "group_column": None, "groups": "my groups.csv", "backbones": None},
}
OF_TABLES = ["--id-column", "the file", "--labels", "a b,=c", "--groups", "my groups.csv"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            "classify run",
            ["it's data", "--out", "my run", "--cache", "my cache", "--folds", "2", "--refit", *OF_TABLES],
        ),
        ("extract heat", ["it's data", "my run", "--id-column", "the file"]),
        ("classify report", ["my run"]),
        ("features audit", ["my cache", "--data", "it's data", "--run", "my run", *OF_TABLES]),
    ],
)
def test_a_command_has_what_the_run_was_given_and_can_be_pasted(command, words):
    assert shlex.split(command_line(command, RUN, RECORD)) == [".venv/bin/python", "-m", *command.split(), *words]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_one_that_the_command_takes(command):
    _, _, room, name, *words = shlex.split(command_line(command, RUN, RECORD))
    said = CliRunner().invoke({"classify": classify, "extract": extract, "features": features}[room], [name, *words])
    assert said.exit_code == 2  # nothing of it is there
    assert "error: " in said.output  # what the command says, once it has understood its options
    assert "No such option" not in said.output


def test_options_that_were_not_given_are_not_said():
    bare = {"data": "d", "cache": "c", "arguments": {}}  # as of a run before there were groups
    assert command_line("features audit", Path("r"), bare) == ".venv/bin/python -m features audit c --data d --run r"


def settings(**options: Any) -> Settings:
    return RunOptions(data=Path("data"), out=Path("run"), **options).settings()


def test_baselines_and_ensembles_are_chosen_by_name_in_their_own_order():
    chosen = settings(baselines="prior,svm,logistic", ensemble="stacking,mean")
    assert (chosen.baselines, chosen.ensembles) == (("logistic", "svm", "prior"), ("mean", "stacking"))
    assert settings().ensembles == tuple(ENSEMBLES)
    assert settings(ensemble="none").ensembles == ()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"baselines": "svm,tree"},
            "--baselines 'svm,tree': tree is not a baseline. Expected some of logistic, ridge_reg",
        ),
        ({"ensemble": "median"}, "--ensemble 'median': median is not an ensemble. Expected mean, .*; or none."),
        ({"ensemble": "mean,none"}, "--ensemble 'mean,none': none is not an ensemble. Expected mean, .*; or none."),
    ],
)
def test_an_unknown_name_is_refused_with_the_table(options, says):
    with pytest.raises(InputError, match=says):
        settings(**options)
