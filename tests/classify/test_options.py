"""A command made of a run's record means the same data, cache and columns, whatever they are called."""

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from classify.__main__ import app as classify
from classify.options import command_line
from extract.__main__ import app as extract
from features.__main__ import app as features

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
    assert shlex.split(command_line(command, RUN, RECORD)) == ["python", "-m", *command.split(), *words]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_one_that_the_command_takes(command):
    _, _, room, name, *words = shlex.split(command_line(command, RUN, RECORD))
    said = CliRunner().invoke({"classify": classify, "extract": extract, "features": features}[room], [name, *words])
    assert said.exit_code == 2  # nothing of it is there
    assert "error: " in said.output  # what the command says, once it has understood its options
    assert "No such option" not in said.output


def test_options_that_were_not_given_are_not_said():
    bare = {"data": "d", "cache": "c", "arguments": {}}  # as of a run before there were groups
    assert command_line("features audit", Path("r"), bare) == "python -m features audit c --data d --run r"
