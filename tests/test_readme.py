"""The README says what the code says."""

import re
from dataclasses import fields

from typer.main import get_command

import classify.__main__
import extract.__main__
import features.__main__
from classify.models.heads import PRESETS
from classify.rundir.folder import RUN_FILES
from extract.backbones.listing import markdown_table
from features.store.assembly import Provenance
from features.store.recipe import Recipe
from tests import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
APPS = {"extract": extract.__main__.app, "features": features.__main__.app, "classify": classify.__main__.app}


def test_the_backbones_are_those_of_the_table():
    assert markdown_table() in README


def test_every_attribute_of_the_cache_is_described():
    names = {field.name for field in (*fields(Recipe), *fields(Provenance))} | {
        "time",
        "fingerprint",
        "seconds_per_image",
    }
    schema = README.split("## The cache")[1].split("\n## ")[0]
    assert {name for name in names if f"`{name}`" not in schema} == set()


def test_every_script_and_file_that_is_named_exists():
    named = set(re.findall(r"\b(?:scripts|extract|features|classify|tests)/[\w./-]*\.(?:py|sh)\b", README))
    assert len(named) >= 8
    assert {path for path in named if not (ROOT / path).exists()} == set()


def test_every_command_of_the_rooms_is_described():
    for room, app in APPS.items():
        for command in get_command(app).commands:
            assert f"python -m {room} {command}" in README


def test_every_file_of_a_run_is_described_and_no_other():
    rows = README.split("| file of RUN |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `([\w.]+)/?` \|", rows, re.MULTILINE)) == set(RUN_FILES)


def test_every_preset_is_described():
    assert {name for name in PRESETS if f"`{name}`" not in README} == set()


def test_every_option_that_is_named_exists():
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README))
    known = {
        name
        for app in APPS.values()
        for command in get_command(app).commands.values()
        for parameter in command.params
        for name in parameter.opts
    }
    elsewhere = {"--gpu", "--train", "--test", "--help"}  # scripts/setup.sh, scripts/phantom.py, and everywhere
    assert options - known - elsewhere == set()
