"""Replacing a file: the old content or the new, never half, and nothing left behind."""

import errno
import hashlib
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from features.common.errors import InputError
from features.common.files import digest, digest_file, open_stderr, read_record, replacing
from tests import ROOT


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "kept.bin"
    path.write_bytes(b"old")
    return path


def write_half(path: Path, error: BaseException) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise error


def only_old_is_left(path: Path) -> bool:
    return [file.name for file in path.parent.iterdir()] == [path.name] and path.read_bytes() == b"old"


def test_the_new_content_takes_the_place_at_the_end(old):
    with replacing(old) as temporary:
        temporary.write_bytes(b"new")
        assert old.read_bytes() == b"old"
        assert temporary.parent == old.parent  # a rename is atomic only within one file system
    assert old.read_bytes() == b"new"
    assert list(old.parent.iterdir()) == [old]


def test_folders_are_made(tmp_path):
    with replacing(tmp_path / "a" / "b" / "c") as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"new"


def test_a_file_in_the_place_of_the_folder_is_bad_input(old):
    with pytest.raises(InputError, match="cannot be written: "), replacing(old / "new") as temporary:
        temporary.write_bytes(b"new")
    assert only_old_is_left(old)


@pytest.mark.parametrize(("owner", "name"), [(os, "fsync"), (Path, "replace")])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(old, monkeypatch, owner, name):
    monkeypatch.setattr(owner, name, full)
    with pytest.raises(InputError) as caught, replacing(old) as temporary:
        temporary.write_bytes(b"new")
    assert str(caught.value) == (
        f"{old} cannot be written: No space left on device. Make room on its disk, or use another. "
        "Nothing that was there before is lost."
    )
    assert only_old_is_left(old)


@pytest.mark.parametrize("error", [ValueError("ours"), InputError("a source is damaged"), KeyboardInterrupt()])
def test_any_other_error_passes_through_and_leaves_the_old_file(old, error):
    with pytest.raises(type(error)) as caught:
        write_half(old, error)
    assert caught.value is error
    assert only_old_is_left(old)


def test_a_record_is_a_json_object_that_has_its_names(old):
    old.write_text('{"a": 1, "b": [2]}')
    assert read_record(old, "Make it again.", "a", "b") == {"a": 1, "b": [2]}
    for damaged, says in (
        ('{"a": 1}', "b is missing"),
        ("[1]", "it is not a JSON object"),
        ("{", "Expecting property name .*"),
        ("[" * 100_000, "maximum recursion depth .*"),
    ):
        old.write_text(damaged)
        with pytest.raises(InputError, match=rf"^{old} cannot be read \({says}\)\. Make it again\.$"):
            read_record(old, "Make it again.", "a", "b")
    old.unlink()
    with pytest.raises(InputError, match=rf"^{old} is missing\. Make it again\.$"):
        read_record(old, "Make it again.")
    old.mkdir()
    with pytest.raises(InputError, match=rf"^{old} cannot be read: Is a directory\. A file is expected there: move"):
        read_record(old, "Make it again.")


def test_a_digest_is_blake2b_of_128_bits(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    assert digest(content) == digest_file(tmp_path / "a") == hashlib.blake2b(content, digest_size=16).digest()


def test_a_temporary_file_has_an_unguessable_name_and_follows_no_link(old, monkeypatch):
    victim = old.parent / "victim"
    victim.write_bytes(b"precious")
    names = iter(["0" * 16, "1" * 16])
    monkeypatch.setattr("features.common.files.secrets.token_hex", lambda count: next(names))
    (old.parent / f".kept.bin.{'0' * 16}.tmp").symlink_to(victim)
    with pytest.raises(InputError, match=r"kept\.bin cannot be written: File exists"), replacing(old):
        pytest.fail("a link was followed")
    with replacing(old) as temporary:
        assert temporary.name == f".kept.bin.{'1' * 16}.tmp"
        temporary.write_bytes(b"new")
    assert (victim.read_bytes(), old.read_bytes()) == (b"precious", b"new")


def test_a_link_in_the_place_is_replaced_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "a").symlink_to(victim)
    with replacing(tmp_path / "a") as temporary:
        temporary.write_bytes(b"new")
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "a").is_symlink()


@pytest.mark.parametrize("mask", [0o022, 0o007])
def test_rights_are_those_of_any_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        with replacing(tmp_path / "a") as temporary:
            temporary.write_bytes(b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask


STOPPED = """
import os, signal, sys
from pathlib import Path
from features.common.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), int(sys.argv[2]))
"""


def test_what_a_killed_process_left_is_removed_by_the_next(old):
    arguments = [sys.executable, "-c", STOPPED, str(old)]
    subprocess.run([*arguments, str(int(signal.SIGKILL))], cwd=ROOT, check=False)
    assert len(list(old.parent.glob(".kept.bin.*.tmp"))) == 1
    subprocess.run([*arguments, "0"], cwd=ROOT, check=True)
    assert [path.name for path in old.parent.iterdir()] == ["kept.bin"]
    assert old.read_bytes() == b"half"


def test_the_temporary_file_of_a_living_process_stays(old):
    with replacing(old) as temporary:
        other = [sys.executable, "-c", STOPPED, str(old), "0"]
        subprocess.run(other, cwd=ROOT, check=True)
        assert temporary.exists()
        temporary.write_bytes(b"ours")
    assert old.read_bytes() == b"ours"


@pytest.mark.parametrize("closed", [(2,), (0, 2)])
def test_a_closed_stderr_becomes_dev_null_and_no_other_file(closed):
    own = {number: os.dup(number) for number in closed}
    try:
        for number in closed:
            os.close(number)
        open_stderr()
        opened = os.fstat(2).st_rdev, os.get_inheritable(2), os.open(os.devnull, os.O_RDONLY)
        os.close(opened[2])
    finally:
        for number, copy in own.items():
            os.dup2(copy, number)
            os.close(copy)
    assert opened[:2] == (Path(os.devnull).stat().st_rdev, True)
    assert (opened[2] == 0) == (0 in closed)
    before = os.fstat(2)
    open_stderr()
    assert os.fstat(2) == before
