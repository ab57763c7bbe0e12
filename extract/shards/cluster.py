"""Extract the shards of an extraction by a cluster of Ray: each is a task of an actor, which keeps compiled backbones.

Ray brings no mechanism of its own: actors write the parts and records that shards write, into the cache's folder that
all machines see. So whatever is lost, an actor or this process, what is there counts when the command runs again.
"""

import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from extract.extraction import CompiledBackbones, Watch, Work
from extract.pipeline import UNIT_IMAGES
from extract.report import Report, show_progress
from extract.shards.records import Shard, changed_shards, plan_run
from extract.shards.shard import extract_shard
from features.common.cluster import Beginning, connected, say_unseen
from features.common.errors import InputError
from features.common.text import count_things
from features.shards import ShardedRun, ShardRecords

#: Units of images of a task: on GPUs they fill a batch. Of no extraction there are more tasks than the second number.
_UNITS_OF_GPU, _MOST_TASKS = 4, 4096
#: Tasks of an actor at a time: while the device computes one, the other's images are decoded.
_AT_A_TIME = 2
#: How often a task that ended its actor is tried again, on the actor that takes its place.
_RETRIES = 8


@dataclass(frozen=True)
class Cluster:
    """How a cluster is used.

    Attributes:
        address: where it is; None for one on this machine, made for this extraction.
        actor_cpus: cores of an actor; None: one actor a GPU, or a machine without.
        batch_size, engine: as of `CompiledBackbones`.
    """

    address: str | None
    actor_cpus: int | None
    batch_size: int | None
    engine: str


@dataclass(frozen=True)
class Place:
    """Where an actor runs.

    Attributes:
        node: Ray's id of the machine.
        cpus: its cores.
        gpus: its GPUs, 0 or 1.
        first: the first of its cores, among those of the machine.
    """

    node: str
    cpus: int
    gpus: int
    first: int


class Worker:
    """What an actor does: it extracts shards, several at a time, by one device.

    Args:
        work: what is extracted.
        run: the extraction by shards.
        cluster: how the cluster is used.
        place: which cores are its own.
        compiled: keeps the compiled backbones.
    """

    def __init__(
        self, work: Work, run: ShardedRun, cluster: Cluster, place: Place, compiled: CompiledBackbones | None = None
    ) -> None:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[place.first : place.first + place.cpus] or cores)
        self._work = replace(work, options=replace(work.options, workers=place.cpus))
        self._run = run
        self._compiled = compiled or CompiledBackbones(cluster.batch_size, cluster.engine)
        self._device = ThreadPoolExecutor(1, "device")
        self._stopped = threading.Event()

    def extract(self, number: int) -> Report | str:
        """Extract a shard; return what was done, or what is wrong, as an `InputError` says it."""
        cache = self._work.options.cache
        data = next((split.paths[0].parent for split in self._work.images if split.paths), cache)
        watch = Watch(_ignore, self._stopped.is_set, _ignore, self._device)
        try:
            seen = ShardRecords(cache).run()
            if seen is None or seen.digest != self._run.digest or not data.exists():
                missing = data if seen and seen.digest == self._run.digest else cache
                return say_unseen(missing)
            return extract_shard(self._work, self._run, Shard(number, self._run.count), self._compiled, watch)
        except InputError as error:
            return str(error)

    def stop(self) -> None:
        """End the shards in flight early, with everything computed on disk."""
        self._stopped.set()


def find_places(nodes: list[dict[str, Any]], actor_cpus: int | None) -> list[Place]:
    """Where actors run: one a GPU, or one for so many cores, or one a machine.

    Args:
        nodes: as `ray.nodes()` gives them.
        actor_cpus: cores of an actor; None: all of a machine, divided by its GPUs.

    Raises:
        InputError: no machine has that many cores, or any.
    """
    places = []
    for node in nodes:
        resources = node["Resources"] if node["Alive"] else {}
        cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        each = actor_cpus or cpus // max(1, gpus)
        count = min(cpus // each, gpus or cpus) if each else 0
        places += [Place(node["NodeID"], each, min(gpus, 1), number * each) for number in range(count)]
    if not places:
        most = max((int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]), default=0)
        if not (actor_cpus and most):
            raise InputError("no machine of the cluster lends any core. Start one by ray start, without --num-cpus 0.")
        raise InputError(f"--actor-cpus {actor_cpus}: no machine of the cluster has more than {most}. Give less.")
    return places


def choose_run(work: Work, command: list[str], has_gpus: bool) -> ShardedRun:
    """The extraction by shards of some work: that which has begun, or one with as many shards as suit the device."""
    begun = ShardRecords(work.options.cache).run()
    if begun and (run := plan_run(work, begun.count, command)).digest == begun.digest:
        return run
    units = max(-(-len(split.image_ids) // UNIT_IMAGES) for split in work.images)
    return plan_run(work, max(1, min(-(-units // (_UNITS_OF_GPU if has_gpus else 1)), _MOST_TASKS)), command)


def extract_by_ray(
    work: Work, command: list[str], cluster: Cluster, console: Console, stop: threading.Event
) -> tuple[Report, ShardedRun]:
    """Extract all shards of some work that have not ended yet by a cluster of Ray.

    Args:
        work: what is extracted.
        command: the words of the command of a shard, but for --shard.
        cluster: which one, and how.
        console: where progress is shown.
        stop: set it to end early, with everything computed on disk.

    Returns:
        What was done; the extraction, whose shards have all ended unless it was stopped.

    Raises:
        InputError: Ray or its cluster is missing, an actor does not see the cache, a shard ended its actors again and
            again, or as of `extract`.
    """
    report = Report.of(work.backbones)
    records = ShardRecords(work.options.cache)
    with ExitStack() as stack:
        ray = stack.enter_context(connected(cluster.address, "extract", "features"))
        places = find_places(ray.nodes(), cluster.actor_cpus)
        run = choose_run(work, command, any(place.gpus for place in places))
        records.begin(run)
        stack.enter_context(work.held(shared=True))
        shared = ray.put(work)
        actors = [_start(ray, place).remote(run, cluster, place) for place in places]
        sizes = {
            number: sum(len(split.image_ids) for split in Shard(number, run.count).share(work.images))
            for number in range(1, run.count + 1)
        }
        with show_progress(console, sum(sizes.values())) as advance:
            missing = sorted({*records.missing(run), *changed_shards(work, run)})
            before = sum(size for number, size in sizes.items() if number not in missing)
            for counted in report.backbones.values():
                counted.kept += before
            advance(before)
            note, wanted = count_things(len(actors), "actor"), count_things(places[0].cpus, "core")
            for number, done in _run_tasks(ray, actors, wanted, shared, missing, stop):
                if isinstance(done, str):
                    raise InputError(done)
                if done is None:
                    raise InputError(
                        f"shard {number} of {run.count} ended the process that extracted it, {_RETRIES + 1} times. "
                        f"What is computed is kept. See what this says: {run.command_of(number)}"
                    )
                report.add(done)
                advance(sizes[number], note)
    return report, run


def _start(ray: Any, place: Place) -> Any:
    """The class of an actor at a place; Ray starts it again whenever it dies, and its tasks with it."""

    class Actor:
        """A worker that gets its work with its first shard, and once: in its constructor Ray would warn of it."""

        def __init__(self, *arguments: Any) -> None:
            self._arguments = arguments
            self._worker: Worker | None = None
            self._lock = threading.Lock()

        def extract(self, work: list[Any], number: int) -> Report | str:
            with self._lock:
                self._worker = self._worker or Worker(ray.get(work[0]), *self._arguments)
            return self._worker.extract(number)

        def stop(self) -> None:
            if self._worker:
                self._worker.stop()

    return ray.remote(Actor).options(
        num_cpus=place.cpus,
        num_gpus=place.gpus,
        max_restarts=-1,
        max_task_retries=_RETRIES,
        max_concurrency=_AT_A_TIME + 1,  # and `stop`
        scheduling_strategy=ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(place.node, soft=True),
    )


def _run_tasks(
    ray: Any, actors: list[Any], wanted: str, work: Any, numbers: list[int], stop: threading.Event
) -> Iterator[tuple[int, Report | str | None]]:
    """Run shards by actors; yield each with what its actor gives, None where it ended the actor too often.

    It says, once, where none of the actors gets what is wanted.
    """
    waiting = deque(numbers)
    flying: dict[Any, tuple[Any, int]] = {}
    stopping = False
    beginning = Beginning(ray, [actor.__ray_ready__.remote() for actor in actors], wanted)
    while flying or (waiting and not stopping):
        if stop.is_set() and not stopping:
            stopping = True
            for actor in actors:
                actor.stop.remote()
        for depth in range(_AT_A_TIME):  # each gets its first before any gets its second
            for actor in actors:
                if waiting and not stopping and sum(of is actor for of, _ in flying.values()) <= depth:
                    number = waiting.popleft()
                    flying[actor.extract.remote([work], number)] = actor, number
        ready, _ = ray.wait(list(flying), num_returns=1, timeout=0.5)
        beginning.look()
        for task in ready:
            _, number = flying.pop(task)
            try:
                yield number, ray.get(task)
            except ray.exceptions.RayActorError:
                yield number, None


def _ignore(*_: object) -> None:
    """Heed nothing."""
