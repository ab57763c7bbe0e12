"""README and docs say what the code says."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import classify.__main__
import extract.__main__
import features.__main__
import scripts.benchmark
import scripts.phantom
import scripts.pipeline
import scripts.torture
from classify.ensembles.ensembles import CALIBRATIONS, ENSEMBLES
from classify.models.baselines import BASELINES
from classify.models.heads import PRESETS, HeadSpec
from classify.rundir.folder import RUN_FILES
from extract.backbones.table import markdown_table
from features.store.recipe import Recipe
from tests import ROOT

README = ROOT / "README.md"
PAGES = {path: path.read_text(encoding="utf-8") for path in (README, *sorted((ROOT / "docs").glob("*.md")))}
TEXT = "\n".join(PAGES.values())
APPS = {
    "extract": extract.__main__.app,
    "features": features.__main__.app,
    "classify": classify.__main__.app,
    "scripts/pipeline.py": scripts.pipeline.app,
    "scripts/benchmark.py": scripts.benchmark.app,
}
#: The scripts that are one command each.
SINGLE = {"scripts/phantom.py": scripts.phantom.app, "scripts/torture.py": scripts.torture.app}
#: The scripts that take no options, or options of their own.
PLAIN_SCRIPTS = {"scripts/setup.sh": {"--gpu"}, "scripts/demo.sh": set(), "scripts/test.sh": set()}
#: The script that hands its words, but for the first, to a command.
SLURM = "scripts/slurm.sh"


def page(name: str) -> str:
    """One page of docs/."""
    return PAGES[ROOT / "docs" / name]


def commands() -> dict[tuple[str, ...], Any]:
    """Every command, by the words that call it: the room or script, and the sub-command where there is one."""
    found: dict[tuple[str, ...], Any] = {(name,): get_command(app) for name, app in SINGLE.items()}
    for first, app in APPS.items():
        group: Any = get_command(app)
        found |= {(first, name): command for name, command in group.commands.items()}
    return found


COMMANDS = commands()
#: The scripts that hand their words to a command.
SCRIPTS = {words[1]: words for words in COMMANDS if words[0] == "scripts/pipeline.py"}


def code_lines() -> Iterator[tuple[str, str]]:
    """Yield (page, line) of every code block, with continuation lines joined and comments and brackets taken away."""
    for path, text in PAGES.items():
        for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            joined = re.sub(r"\n {8,}(?=[\[-])", " ", block)
            for line in joined.splitlines():
                yield path.name, re.sub(r"[\[\]]", "", line.split(" #")[0]).strip()


def inline_code() -> Iterator[tuple[str, str]]:
    """Yield (page, words) of every code span outside the blocks, brackets taken away."""
    for path, text in PAGES.items():
        outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        for span in re.findall(r"`([^`]+)`", outside):
            yield path.name, re.sub(r"[\[\]]", "", " ".join(span.split()))


def called(line: str) -> tuple[tuple[str, ...], list[str]] | None:
    """Split a command line into the command of ours that it calls and its words; None where it calls none."""
    line = line.removeprefix(".venv/bin/")
    if not re.match(r"python (-m )?\w+[/ ]|scripts/\w+\.(sh|py)( |$)", line):
        return None
    first, *words = shlex.split(line.removeprefix("python ").removeprefix("-m "))
    if first in APPS:
        return (first, *words[:1]), words[1:]
    if first in PLAIN_SCRIPTS or first in SINGLE:
        return (first,), words
    if first == SLURM:
        return SCRIPTS["scripts/extract.sh"], words[1:]
    return (SCRIPTS[first], words) if first in SCRIPTS else None


CALLS = sorted({(name, line) for name, line in code_lines() if called(line)})


def test_readme_is_read_in_five_minutes():
    assert len(PAGES[README].splitlines()) <= 150


@pytest.mark.parametrize(("name", "line"), CALLS)
def test_every_command_line_of_a_code_block_parses(name, line):
    command, words = called(line) or ((), [])
    if command[0] in PLAIN_SCRIPTS:
        assert set(words) <= PLAIN_SCRIPTS[command[0]], name
    else:
        COMMANDS[command].make_context(" ".join(command), words)  # raises on an unknown option and on a wrong value


def test_the_code_blocks_hold_command_lines():
    assert len(CALLS) >= 20


def test_every_command_that_is_named_in_the_text_exists():
    spans = [(name, span) for name, span in inline_code() if called(span)]
    assert len(spans) >= 10
    for name, span in spans:
        command, words = called(span) or ((), [])
        asked = {word.split("=")[0] for word in words if word.startswith("--")}
        assert asked <= options_of(command), (name, span)


def options_of(command: tuple[str, ...]) -> set[str]:
    """The options of a command or script."""
    if command[0] in PLAIN_SCRIPTS:
        return PLAIN_SCRIPTS[command[0]]
    return {name for parameter in COMMANDS[command].params for name in parameter.opts if name.startswith("-")}


def test_every_option_that_is_named_exists():
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT))
    known = {option for command in [*COMMANDS, *((name,) for name in PLAIN_SCRIPTS)] for option in options_of(command)}
    assert named - known - {"--help"} == set()


def test_every_command_and_option_is_described():
    named: dict[tuple[str, ...], set[str]] = {}
    for _, line in [*code_lines(), *inline_code()]:
        if found := called(line):
            command, words = found
            named.setdefault(command, set()).update(re.findall(r"(?<!\S)--?[a-z][a-z-]*", " ".join(words)))
    # `scripts/extract.sh` and `classify.sh` are how docs/ calls these two.
    named["extract", "run"] = named["scripts/pipeline.py", "scripts/extract.sh"]
    named["classify", "run"] = named["scripts/pipeline.py", "scripts/classify.sh"]
    for command in COMMANDS:
        assert command in named, command
        if "scripts/benchmark.py" not in command and "scripts/phantom.py" not in command:
            assert options_of(command) - named[command] - {"--help"} == set(), command


def test_every_file_that_is_named_exists():
    pattern = r"\b(?:scripts|extract|features|classify|tests|docs)/[\w./-]*\.(?:py|sh|md|png)\b"
    named = {(name, path) for name, text in PAGES.items() for path in re.findall(pattern, text)}
    assert len(named) >= 20
    assert {(name.name, path) for name, path in named if not (ROOT / path).exists()} == set()


def test_every_link_leads_somewhere():
    links = {(path, link) for path, text in PAGES.items() for link in re.findall(r"\]\(([^)\s]+)\)", text)}
    assert len(links) >= 20
    for path, link in links:
        target, _, anchor = link.partition("#")
        file = path.parent / target if target else path
        assert file.exists(), (path.name, link)
        if anchor:
            assert anchor in anchors(file), (path.name, link)


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_readme_leads_to_every_page():
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)\)", PAGES[README]))
    assert linked == {path.name for path in PAGES if path != README}


def test_the_backbones_are_those_of_the_table():
    assert markdown_table() in page("extract.md")


def test_every_file_of_a_run_is_described_and_no_other():
    rows = page("run-files.md").split("| file of RUN |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `([\w.]+)/?` \|", rows, re.MULTILINE)) == set(RUN_FILES)


def test_the_fields_of_a_preset_are_listed_with_their_defaults():
    text = page("classify.md").partition("| field | values | default |")[2].partition("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.strip().splitlines()[1:]]
    listed = {field.strip("`"): json.loads(default.strip("`")) for field, _, default in cells}
    defaults = json.loads(json.dumps(asdict(HeadSpec())))
    assert list(listed) == list(defaults)
    assert listed == defaults


def test_the_presets_are_those_of_the_table():
    rows = [
        f"| `{name}` | {', '.join(map(str, spec.hidden_units)) or 'none'} | {spec.dropout:g} | {spec.l2:g} | "
        f"{spec.optimiser}, {spec.learning_rate:g} | {spec.batch_size or 'by rows'} |"
        for name, spec in PRESETS.items()
    ]
    assert "\n".join(rows) in page("classify.md")


@pytest.mark.parametrize("table", [BASELINES, ENSEMBLES, CALIBRATIONS], ids=["baselines", "ensembles", "calibrations"])
def test_the_models_are_those_of_the_tables(table):
    rows = [f"| `{name}` | {row.description} |" for name, row in table.items()]
    assert "\n".join(rows) in page("classify.md")


def test_every_attribute_of_the_cache_is_described():
    names = {field.name for field in fields(Recipe)}
    names |= {"keras_version", "keras_backend", "device", "time", "fingerprint", "seconds_per_image"}
    assert {name for name in names if f"`{name}`" not in page("cache-format.md")} == set()
