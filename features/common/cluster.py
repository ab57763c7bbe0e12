"""Start Ray, or connect to a cluster of it, for whatever a room lets it compute."""

import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from features.common.errors import InputError, heeded_signals

logger = logging.getLogger(__name__)
#: How long a machine may take to answer.
_CONNECT_SECONDS = 10
#: Seconds after which a process of a cluster that has not begun is worth a word.
_PATIENCE = 15
_INSTALL = ".venv/bin/pip install -r requirements-ray.txt"


def check_cluster(cluster: str | None, **others: object) -> None:
    """Refuse, before anything long begins, `--cluster` without Ray, and options of a cluster where there is none.

    Args:
        cluster: what `--cluster` names; None without.
        others: options that only a cluster has, by name; None where they are not given.

    Raises:
        InputError: Ray is not installed, an address is empty, or an option has no cluster.
    """
    if cluster:
        if others.get("address") == "":
            raise InputError(
                "--address is empty. Name a cluster, as HOST:PORT, or leave it out for this machine alone."
            )
        import_ray()
    elif given := [name for name, value in others.items() if value is not None]:
        raise InputError(f"--{given[0].replace('_', '-')} is for --cluster ray. Leave it out, or add that.")


def import_ray() -> Any:
    """Ray, which sends nothing of its use to anybody.

    Raises:
        InputError: it is not installed.
    """
    if find_spec("ray") is None:
        raise InputError(f"--cluster ray needs the package ray, which is not installed. Run: {_INSTALL}")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    return ray


@contextmanager
def connected(address: str | None, *rooms: str) -> Iterator[Any]:
    """Connect to a cluster, or start one on this machine, for the length of a `with` block; gives Ray.

    Args:
        address: where it is; None for one on this machine, made for this block.
        rooms: whose code is sent to the machines of another cluster.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be reached.
    """
    ray = import_ray()
    handlers = {number: signal.getsignal(number) for number in heeded_signals()}
    root = Path(__file__).parents[2]
    code = {"py_modules": [str(root / room) for room in rooms], "excludes": ["/cache/"]}
    settings = {name: value for name, value in os.environ.items() if name == "KERAS_BACKEND"}
    try:
        if address and (found := re.fullmatch(r"\[?([^/]+?)\]?:(\d+)", address)):
            socket.create_connection((found[1], int(found[2])), _CONNECT_SECONDS).close()  # Ray tries for minutes
        ray.init(
            address=address or "local",
            runtime_env={**code, "env_vars": settings} if address else None,
            include_dashboard=None if address else False,
            logging_level="ERROR",
            log_to_driver=False,
        )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = str(error).strip() or type(error).__name__
        where = f"--address {address}: the cluster" if address else "a cluster on this machine"
        raise InputError(
            f"{where} cannot be used: {reason.splitlines()[0][:200].rstrip('.')}. Start one by ray start "
            "--head, with the Ray and the Python of here; where its access needs a token, set RAY_AUTH_MODE=token."
        ) from None
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():  # Ray takes SIGTERM for itself
                signal.signal(number, handler)
    try:
        yield ray
    finally:
        ray.shutdown()


class Beginning:
    """Says, once, that a cluster has begun nothing for some seconds: Ray itself waits for cores without a word.

    Args:
        ray: connected.
        begun: tasks that end as soon as they begin.
        wanted: what each needs, in words.
    """

    def __init__(self, ray: Any, begun: list[Any], wanted: str) -> None:
        self._ray, self._begun, self._wanted = ray, begun, wanted
        self._until: float | None = time.monotonic() + _PATIENCE

    def look(self) -> None:
        """Warn if it is time and nothing has begun."""
        if self._until is None or time.monotonic() < self._until:
            return
        self._until = None
        if not self._ray.wait(self._begun, num_returns=1, timeout=0)[0]:
            has, free = (of().get("CPU", 0) for of in (self._ray.cluster_resources, self._ray.available_resources))
            logger.warning(
                "nothing has begun yet: a process of %s is waited for; the cluster has %g, of which %g are free",
                self._wanted,
                has,
                free,
            )


def say_unseen(path: Path) -> str:
    """Say that this machine of a cluster does not see a file or folder as the one that the command runs on."""
    return (
        f"{socket.gethostname()}, a machine of the cluster, does not see {path} as this one does. Data "
        "set and cache have to lie in folders that all machines share, at the same paths."
    )
