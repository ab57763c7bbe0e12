"""The lock: one holder at a time, named to the second; no crash leaves it behind."""

import fcntl
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading

import pytest

from features.common.errors import InputError
from features.common.files import hold
from tests import ROOT

HOLDER = """
import sys, time
from pathlib import Path
from features.common.files import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds tmp_path/train/net.h5.lock."""
    path = tmp_path / "train" / "net.h5.lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process, path
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_second_is_told_who_holds_it(holder):
    process, path = holder
    with pytest.raises(InputError) as caught, hold(path):
        pytest.fail("two processes hold one lock")
    message = str(caught.value)
    assert message.startswith(f"{path.with_suffix('')} is being worked on by process {process.pid} ")
    assert f" on {socket.gethostname()} since " in message
    assert f"(-c {path})" in message  # the command
    assert message.endswith("Wait for it, or stop it, and run again.")


def test_being_refused_leaves_what_the_holder_wrote(holder):
    process, path = holder
    for _ in range(2):
        with pytest.raises(InputError, match=f"process {process.pid} "), hold(path):
            pytest.fail("two processes hold one lock")


def test_kill_9_frees_the_lock(holder):
    process, path = holder
    process.send_signal(signal.SIGKILL)
    process.wait()
    with hold(path):
        assert json.loads(path.read_text())["process"] == os.getpid()


def test_waiting_gets_the_lock_once_it_is_free(holder):
    process, path = holder
    got = threading.Event()

    def wait() -> None:
        with hold(path, wait=True):
            got.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not got.wait(0.2)
    process.kill()
    assert got.wait(10)
    thread.join()


def test_a_lock_can_be_held_again_and_after_an_error(tmp_path):
    path = tmp_path / "a.lock"
    with pytest.raises(KeyError), hold(path):
        raise KeyError
    for _ in range(2):
        with hold(path):
            assert set(json.loads(path.read_text())) == {"host", "process", "started", "since", "command"}


def test_a_file_that_its_holder_removes_is_not_held_twice(tmp_path, monkeypatch):
    path = tmp_path / "a.lock"
    flock, opened = fcntl.flock, []

    def removed_before(file, how):
        if not opened:  # the holder ends, and removes the file, after we opened it and before we lock it
            path.unlink()
        opened.append(file)
        flock(file, how)

    monkeypatch.setattr("features.common.files.fcntl.flock", removed_before)
    with hold(path):
        assert len(opened) == 2
        assert opened[0].closed
        assert json.loads(path.read_text())["process"] == os.getpid()
        with pytest.raises(InputError, match="is being worked on by process"), hold(path):
            pytest.fail("held twice")


def test_a_holder_that_has_not_written_yet_is_another_process(tmp_path):
    path = tmp_path / "a.h5.lock"
    with hold(path):
        path.write_text("{")
        with pytest.raises(InputError, match=r"a\.h5 is being worked on by another process\. Wait"), hold(path):
            pytest.fail("held twice")


@pytest.mark.parametrize("name", [".lock", ".cam.lock"])
def test_a_hidden_lock_file_stands_for_its_folder(tmp_path, name):
    path = tmp_path / "run" / name
    with hold(path), pytest.raises(InputError, match=f"^{tmp_path}/run is being worked on by process"), hold(path):
        pytest.fail("held twice")


def test_a_folder_that_cannot_be_made_is_bad_input(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "train" / "net.h5.lock"
    refused = r"net\.h5\.lock cannot be locked: Not a directory\..* .*/file/train has to be a folder"
    with pytest.raises(InputError, match=refused), hold(path):
        pytest.fail("locked below a file")


def test_a_full_disk_is_said(tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        with (
            pytest.raises(InputError, match=r"cannot be locked: File too large\. Make room"),
            hold(tmp_path / "a.lock"),
        ):
            pytest.fail("the lock was taken")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


@pytest.mark.parametrize("make", ["symlink_to", "hardlink_to"])
def test_a_link_in_the_place_of_a_lock_is_refused_and_what_it_leads_to_is_kept(tmp_path, make):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path = tmp_path / "a.lock"
    getattr(path, make)(victim)
    refused = r"a\.lock cannot be locked: it is (a symbolic link|not an ordinary file)\. Remove it, and run again\.$"
    with pytest.raises(InputError, match=refused), hold(path):
        pytest.fail("a link was locked")
    assert victim.read_bytes() == b"precious"


@pytest.fixture(params=[37, 38, 95])
def without_locks(monkeypatch, request):
    """A file system whose flock fails, as those of NFS and SMB do."""

    def refuse(*_):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr("features.common.files.fcntl.flock", refuse)


def test_where_there_are_no_locks_an_exclusive_file_stands_in_and_is_said_once(tmp_path, without_locks, caplog):
    path, held = tmp_path / "a.h5.lock", tmp_path / "a.h5.lock.held"
    for _ in range(2):
        with hold(path):
            assert json.loads(held.read_text())["process"] == os.getpid()
            said = rf"a\.h5 is being worked on by process {os.getpid()} on"
            with pytest.raises(InputError, match=said), hold(path):
                pytest.fail("held twice")
        assert not held.exists()
    assert caplog.text.count(f"the file system of {tmp_path} has no locks") == 1


def test_waiting_for_an_exclusive_file_gets_it_once_it_is_gone(tmp_path, without_locks):
    path, got = tmp_path / "a.lock", threading.Event()

    def wait() -> None:
        with hold(path, wait=True):
            got.set()

    with hold(path):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not got.wait(0.2)
    assert got.wait(10)
    thread.join()


def test_the_exclusive_file_of_a_killed_process_of_this_host_is_recognised(tmp_path, without_locks):
    path, held = tmp_path / "a.lock", tmp_path / "a.lock.held"
    gone = subprocess.Popen(["true"])
    gone.wait()
    for process, started in ((gone.pid, "1"), (os.getpid(), "1")):  # or its number was given to another process
        held.write_text(json.dumps({"host": socket.gethostname(), "process": process, "started": started}))
        with hold(path):
            assert json.loads(held.read_text())["process"] == os.getpid()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.lock"]


@pytest.mark.parametrize("content", ['{"host": "elsewhere", "process": 1, "started": "1"}', ""])
def test_an_exclusive_file_that_may_be_held_stays(tmp_path, without_locks, content):
    held = tmp_path / "a.lock.held"
    held.write_text(content)
    with pytest.raises(InputError, match=r"is being worked on by"), hold(tmp_path / "a.lock"):
        pytest.fail("another host's lock was taken")
    assert held.read_text() == content


@pytest.fixture(params=["locks", "files"])
def either_way(request, monkeypatch):
    """A file system with locks, and one without."""

    def refuse(*_):
        raise OSError(37, os.strerror(37))

    if request.param == "files":
        monkeypatch.setattr("features.common.files.fcntl.flock", refuse)


def test_a_lock_is_shared_or_held_alone_but_never_both(tmp_path, either_way):
    path = tmp_path / "a.h5.lock"
    refused = r"a\.h5 is being worked on by"
    with hold(path, shared=True), hold(path, shared=True):
        with pytest.raises(InputError, match=refused), hold(path):
            pytest.fail("held alone and shared")
        with hold(path, shared=True):
            pass
    with hold(path), pytest.raises(InputError, match=refused), hold(path, shared=True):
        pytest.fail("shared and held alone")
    with hold(path, shared=True):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5.lock"]


def test_the_file_of_a_killed_process_that_shared_a_lock_is_recognised(tmp_path, without_locks):
    gone = subprocess.Popen(["true"])
    gone.wait()
    held = tmp_path / "a.lock.0123456789abcdef.held"
    held.write_text(json.dumps({"host": socket.gethostname(), "process": gone.pid, "started": "1"}))
    with hold(tmp_path / "a.lock"):
        assert not held.exists()
    held.write_text(json.dumps({"host": "elsewhere", "process": gone.pid, "started": "1"}))
    with pytest.raises(InputError, match="is being worked on by"), hold(tmp_path / "a.lock"):
        pytest.fail("held alone and shared")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.lock", held.name]
