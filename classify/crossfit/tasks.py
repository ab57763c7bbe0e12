"""Let a cluster of Ray make fits, each as a task, where threads of this process would make them.

Why not by joblib's backend for Ray: docs/decisions.md.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import Any

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from features.common.cluster import Beginning, connected, import_ray
from features.common.errors import InputError

#: How often a task whose process was killed is tried again.
_RETRIES = 8
#: Seconds after which `on_wait` is called again.
_MOMENT = 0.5


class RayTasks:
    """A cluster of Ray that computes; it is started, or connected to, with the first task.

    Args:
        address: where it is; None for one on this machine.
        jobs: tasks at a time; None: as many as there are cores.
        stack: what ends the connection.
    """

    def __init__(self, address: str | None, jobs: int | None, stack: ExitStack) -> None:
        self._address, self._jobs, self._stack = address, jobs, stack

    @property
    def is_here(self) -> bool:
        """Whether it computes on this machine alone, with the memory that this machine has."""
        return self._address is None

    def share(self, act: Callable[..., Any]) -> "SharedCall":
        """Let tasks call a function, which travels once, with all that it holds."""
        return SharedCall(self, act)

    @cached_property
    def ray(self) -> Any:
        """Ray, connected."""
        return self._stack.enter_context(connected(self._address, "classify", "features"))

    @cached_property
    def task(self) -> Any:
        """What Ray runs on a core, and again where its process is killed."""
        return self.ray.remote(_act).options(num_cpus=1, max_retries=_RETRIES)

    @cached_property
    def beginning(self) -> Beginning:
        """What says that the cluster has no core for the first task."""
        return Beginning(self.ray, [self.ray.remote(_begin).options(num_cpus=1).remote()], "1 core")

    @cached_property
    def at_a_time(self) -> int:
        """Tasks that wait or run: twice the cores, so that none waits for this process."""
        return self._jobs or max(1, 2 * int(self.ray.cluster_resources().get("CPU", 0)))


class SharedCall:
    """A function that tasks call.

    Args:
        tasks: where.
        act: the function.
    """

    def __init__(self, tasks: RayTasks, act: Callable[..., Any]) -> None:
        self._tasks, self._act = tasks, act

    @cached_property
    def _reference(self) -> Any:
        return self._tasks.ray.put(self._act)

    def run(
        self,
        calls: Sequence[tuple[Any, ...]],
        on_result: Callable[[int, Any], None],
        jobs: int | None = None,
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        """Call the function with each of some tuples of arguments, each in a process with one BLAS thread.

        Args:
            calls: the arguments.
            on_result: called with the place of each call, and what it gave, in any order.
            jobs: tasks at a time; None: those of the cluster.
            on_wait: called again and again; what it raises ends all tasks.

        Raises:
            InputError: the function raised it, or its process ended again and again.
            Exception: the function raised it.
        """
        if not calls:
            return
        ray, waiting, flying = self._tasks.ray, deque(range(len(calls))), dict[Any, int]()
        beginning = self._tasks.beginning
        try:
            while waiting or flying:
                while waiting and len(flying) < (jobs or self._tasks.at_a_time):
                    place = waiting.popleft()
                    flying[self._tasks.task.remote([self._reference], calls[place])] = place
                ready, _ = ray.wait(list(flying), num_returns=1, timeout=_MOMENT)
                on_wait()
                beginning.look()
                for task in ready:
                    on_result(flying.pop(task), self._result(task))
        finally:
            for task in flying:
                ray.cancel(task, force=True)

    def _result(self, task: Any) -> Any:
        """What a task gave."""
        errors = self._tasks.ray.exceptions
        try:
            result, said = self._tasks.ray.get(task)
        except errors.RayTaskError as error:
            raise (error.cause or error) from error
        except errors.RayError as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"--cluster ray: a fit was given up, if its process ended after {_RETRIES + 1} tries: {reason[:200]} "
                "Finished fits are kept. Give fewer --jobs where memory is short, or look at it without --cluster."
            ) from None
        if said:
            raise InputError(said)
        return result


def _act(shared: list[Any], call: tuple[Any, ...]) -> tuple[Any, str]:
    """Call the one function that is shared in a task; gives its result, or what an `InputError` says."""
    ray = import_ray()
    with threadpool_limits(1, user_api="blas"):
        try:
            return ray.get(shared[0])(*call), ""
        except InputError as error:  # not all of them can be pickled
            return None, str(error)
        except ray.exceptions.RaySystemError as error:
            if isinstance(error.client_exc, InputError):  # of what the function holds: a file that is not there
                return None, str(error.client_exc)
            raise


def _begin() -> None:
    """End at once."""


_IN_USE: ContextVar[RayTasks | None] = ContextVar("tasks", default=None)


@contextmanager
def computing_by(cluster: str | None, address: str | None, jobs: int | None = None) -> Iterator[None]:
    """Let a cluster make the fits in a `with` block, as joblib's `parallel_config` would.

    Args:
        cluster: `ray`; None for threads of this process.
        address: of the cluster, as of `RayTasks`.
        jobs: as of `RayTasks`.
    """
    with ExitStack() as stack:
        token = _IN_USE.set(RayTasks(address, jobs, stack) if cluster else None)
        try:
            yield
        finally:
            _IN_USE.reset(token)


def tasks_in_use() -> RayTasks | None:
    """The cluster that makes fits; None where threads of this process do."""
    return _IN_USE.get()
