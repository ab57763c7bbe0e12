"""features.common.commands: a printed command reaches the program with the words that were meant."""

import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from features.common.commands import join_words, move_aside, write_command
from tests import ROOT
from tests.pasted import NASTY_NAMES, paste


def test_nasty_names_arrive_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    command = write_command("features verify", *NASTY_NAMES)
    assert command.isprintable()  # one line, and nothing that a terminal acts on
    subprocess.run(["bash", "-n", "-c", command], check=True)
    assert paste(tmp_path, command) == [[".venv/bin/python", "-m", "features", "verify", *NASTY_NAMES]]
    both = f"{write_command('scripts/extract.sh', *NASTY_NAMES)} && {command}"
    assert [words[-len(NASTY_NAMES) :] for words in paste(tmp_path, both)] == [NASTY_NAMES] * 2


def test_a_path_never_becomes_an_option(tmp_path):
    command = join_words(".venv/bin/python", Path("./-x"), Path("/a b/-y"), Path("--cache"))
    assert paste(tmp_path, command)[0][1:] == ["./-x", "/a b/-y", "./--cache"]


def test_from_another_folder_the_programs_are_named_by_their_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write_command("scripts/extract.sh", "a") == f"{ROOT}/scripts/extract.sh a"
    wanted = f"env PYTHONPATH={ROOT} {ROOT}/.venv/bin/python -m features verify a"
    assert write_command("features verify", "a") == wanted


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), max_size=4))
def test_any_words_come_back_from_a_shell(words):
    done = subprocess.run(["bash", "-c", join_words("printf", "%s\\0", *words)], check=True, stdout=subprocess.PIPE)
    assert done.stdout.split(b"\0")[:-1] == [word.encode() for word in words or [""]]


def test_a_damaged_file_is_moved_aside_and_over_no_other(tmp_path):
    path = tmp_path / "-a b.h5"
    for name in ("-a b.h5.damaged", "-a b.h5.damaged2"):
        path.write_text(name)
        subprocess.run(["bash", "-c", move_aside(path)], check=True)
        assert (tmp_path / name).read_text() == name
        assert not path.exists()
