"""extract.images.files: a file of several images is read once, and again when it changes."""

import threading
from pathlib import Path

import pytest

from extract.images import files as module
from extract.images.files import ImageFiles
from features.common.files import digest
from features.store.images_table import Stamp


@pytest.fixture
def reads(monkeypatch):
    """The paths that are read."""
    paths, read = [], module._read

    def note(path, stamp):
        paths.append(path.name)
        return read(path, stamp)

    monkeypatch.setattr(module, "_read", note)
    return paths


def test_only_files_of_several_images_stay_and_only_the_last_two(tmp_path, reads):
    paths = [tmp_path / name for name in "aabbccd"]
    for path in paths:
        path.write_bytes(path.name.encode())
    files = ImageFiles(paths)
    for path in paths * 2:
        content = files.read(path)
        assert content == (Stamp.of(path), path.name.encode(), digest(path.name.encode()))
    assert "".join(reads) == "abcd" * 2


def test_a_file_that_changes_is_read_again(tmp_path, reads):
    path = tmp_path / "a"
    path.write_bytes(b"early")
    files = ImageFiles([path, path])
    assert files.read(path).encoded == files.read(path).encoded == b"early"
    path.write_bytes(b"later")
    assert files.read(path).digest == digest(b"later")
    assert len(reads) == 2
    path.unlink()
    with pytest.raises(FileNotFoundError):
        files.read(path)


def test_threads_wait_for_the_one_that_reads(tmp_path, reads):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 1_000_000)
    files = ImageFiles([path] * 8)
    threads = [threading.Thread(target=files.read, args=(path,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1


@pytest.mark.parametrize("images", [1, 2])
def test_the_stamp_is_that_of_before_the_bytes_were_read(tmp_path, monkeypatch, images):
    path = tmp_path / "a"
    path.write_bytes(b"early")
    before, read = Stamp.of(path), Path.read_bytes

    def read_and_replace(path):
        encoded = read(path)
        path.write_bytes(b"written meanwhile")
        return encoded

    files = ImageFiles([path] * images)
    monkeypatch.setattr(Path, "read_bytes", read_and_replace)
    assert files.read(path) == (before, b"early", digest(b"early"))
    assert before != Stamp.of(path)
