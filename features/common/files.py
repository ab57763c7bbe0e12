"""Write, lock and digest files so that neither a crash nor a second process leaves half of one; read records."""

import errno
import fcntl
import glob
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import IO, Any

from features.common.errors import NO_LOCKS, InputError, cause_of

#: Bytes of a digest.
DIGEST_BYTES = 16
#: What a temporary file is called: `.{name}.{random}.tmp`.
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp", re.DOTALL)
#: How the file ends that stands in for a lock.
HELD = ".held"
#: Seconds between two looks at a lock by a file.
_LOOK_AGAIN = 0.1
#: The number of stderr among a process's files.
STDERR = 2

logger = logging.getLogger(__name__)


def digest(content: bytes | memoryview) -> bytes:
    """BLAKE2b-128 of some bytes: 16 bytes."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def digest_file(path: Path) -> bytes:
    """BLAKE2b-128 of a file's bytes: 16 bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES)).digest()


def read_record(path: Path, remedy: str, *names: str) -> dict[str, Any]:
    """Read a JSON object that has these names; an `InputError` that ends with the remedy says that it has not."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError("it is not a JSON object")
        if missing := [name for name in names if name not in record]:
            raise ValueError(f"{missing[0]} is missing")
    except FileNotFoundError:
        raise InputError(f"{path} is missing. {remedy}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {cause_of(error)}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}). {remedy}") from None
    return record


def open_stderr() -> None:
    """Open /dev/null where stderr is closed, for good: else the next file gets its number, and what is printed."""
    try:
        os.fstat(STDERR)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        number = os.open(os.devnull, os.O_WRONLY)  # the lowest that is free
        if number < STDERR:  # others are closed, too
            lower, number = number, fcntl.fcntl(number, fcntl.F_DUPFD, STDERR)
            os.close(lower)
        if number > STDERR:  # another thread has opened a file meanwhile
            os.close(number)
        else:
            os.set_inheritable(number, True)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that it holds; nothing where it is missing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path`; when the block ends without an error, it takes `path`'s place.

    The file is flushed to the disk before the rename, and the folder after it, so that not even a power cut leaves a
    file that is there but incomplete. The folder is made if it is missing; what killed processes left there is removed.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(path.parent)
            temporary = _make_temporary(path, stack)
            yield temporary
            _flush(temporary)
            temporary.replace(path)
            _flush(path.parent)
        except OSError as error:
            raise InputError(
                f"{path} cannot be written: {cause_of(error)} Nothing that was there before is lost."
            ) from error


def _make_temporary(path: Path, stack: ExitStack) -> Path:
    """Make a temporary file beside `path`; `stack` removes it, unless it was renamed, and frees its lock."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o666)
        stack.callback(os.close, descriptor)
        with suppress(OSError):  # the lock says that its maker is alive; without locks nobody removes it
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_at(descriptor, temporary):
            stack.callback(temporary.unlink, missing_ok=True)
            return temporary


@cache
def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of a folder whose makers were killed; once a process."""
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name):
            with suppress(OSError), open(path, "r+b", opener=_open_no_link) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _flush(path: Path) -> None:
    """Wait until the disk holds what was written to a file or folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def hold(path: Path, *, wait: bool = False, shared: bool = False) -> Iterator[None]:
    """Hold a lock for the length of a `with` block: alone, or `shared` with others that share it.

    The operating system frees the lock when its process ends, however it ends: a crash leaves no stale lock.
    The file stays behind, unless its holder removes it within the block: a process that opened it before then finds
    it gone, and makes it again. Removed by anybody else, or after the block, it could be held twice.

    The file and its folder are made if they are missing. With `wait` a second holder waits instead of being refused.
    Where the file system has no locks (NFS, SMB), `{path}.held` is the lock, a file that only its holder could make
    (one of each that shares it), with a warning: such a file of a process that was killed is recognised on the same
    host alone.

    Raises:
        InputError: another process holds the lock; the message names host, process, start and command. Or the file
            cannot be made or locked.
    """
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                # "a" because opening must not wipe what the holder wrote; no buffer, so that closing cannot fail.
                file = stack.enter_context(open(path, "ab+", buffering=0, opener=_open_no_link))
                _refuse_foreign(path, file)
                try:
                    fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
                except OSError as error:
                    if error.errno not in NO_LOCKS:
                        raise
                    _warn_of_no_locks(path.parent, str(error.strerror))
                    stack.enter_context(_hold_by_file(path, wait, shared))
                if _is_at(file.fileno(), path):
                    break
                stack.close()
            file.truncate(0)
            file.write(_about_us())
        except BlockingIOError:
            # A hidden lock file stands for its folder, a.h5.lock for a.h5.
            what = path.parent if path.name.startswith(".") else path.with_suffix("")
            raise InputError(
                f"{what} is being worked on by {_holder(path)}. Wait for it, or stop it, and run again."
            ) from None
        except OSError as error:
            raise InputError(f"{path} cannot be locked: {_why_not_locked(path, error)}") from None
        yield


@contextmanager
def _hold_by_file(path: Path, wait: bool, shared: bool) -> Iterator[None]:
    """Hold a file instead of a lock of the system; BlockingIOError where another process has one that excludes it.

    Whoever holds alone has `{path}.held`, whoever shares `{path}.{random}.held`. Each makes its own before it looks
    for those that it may not meet, so that of two at least one finds the other.
    """
    alone = path.with_name(f"{path.name}{HELD}")
    own = path.with_name(f"{path.name}.{secrets.token_hex(8)}{HELD}") if shared else alone
    with ExitStack() as stack:
        while True:
            try:
                descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            except FileExistsError:
                free, made = _remove_stale(own), False
            else:
                stack.callback(own.unlink, missing_ok=True)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(_about_us())
                others = [alone] if shared else path.parent.glob(f"{glob.escape(path.name)}.*{HELD}")
                free, made = all(map(_remove_stale, others)), True
            if free and made:
                break
            stack.close()
            if not free:
                if not wait:
                    raise BlockingIOError
                time.sleep(_LOOK_AGAIN)
        yield


def _remove_stale(held: Path) -> bool:
    """Remove the file of a process of this host that is no longer there; say whether that was so, or it is missing."""
    try:
        content = held.read_bytes()
        holder = json.loads(content)
        known = holder["host"], holder["process"], holder["started"]
    except FileNotFoundError:
        return True
    except (ValueError, KeyError, TypeError):  # it is being written
        return False
    if known[0] != socket.gethostname() or known[2] == _started(known[1]):
        return False
    aside = held.with_name(f".{held.name}.{secrets.token_hex(8)}.tmp")
    with suppress(FileNotFoundError):
        held.rename(aside)
        # Another process may have found it stale too, and have made its own since.
        if aside.read_bytes() != content:
            aside.rename(held)
            return False
        aside.unlink()
    return True


def _started(process: int) -> str | None:
    """When a process of this host began, in the system's ticks, so that a number given again is not taken for it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]  # proc(5): starttime, field 22
    except OSError:
        return None


def _about_us() -> bytes:
    """Write who holds a lock."""
    about = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "started": _started(os.getpid()),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
    }
    return json.dumps(about).encode()


@cache
def _warn_of_no_locks(folder: Path, reason: str) -> None:
    """Say once for a folder that its locks are files, and what then helps after a crash."""
    logger.warning(
        "the file system of %s has no locks (%s): files that end in .held stand in. If a process on another host was "
        "killed, its file stays: remove it once nothing works there",
        folder,
        reason,
    )


def _open_no_link(path: str, flags: int) -> int:
    """Open a file for `open`, but not through a symbolic link, and without waiting for the other end of a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def _refuse_foreign(path: Path, file: IO[bytes]) -> None:
    """Refuse to write into what is not a lock file: a device, a pipe, or another name of somebody's file."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise InputError(f"{path} cannot be locked: it is not an ordinary file. Remove it, and run again.")


def _why_not_locked(path: Path, error: OSError) -> str:
    """Say why a lock file could not be had, and what to do."""
    if error.errno == errno.ELOOP:
        return "it is a symbolic link. Remove it, and run again."
    return f"{cause_of(error)} {path.parent} has to be a folder that can be written, or work in a copy."


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at a path: it may be removed between opening and locking."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    """Describe who holds a lock, as far as the lock file says."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"process {holder['process']} on {holder['host']} since {holder['since']} ({holder['command']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # it has the lock but has not written about itself yet
