"""classify.crossfit.tasks: fits as tasks of Ray. What needs Ray itself is skipped where it is missing."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info  # type: ignore[import-untyped]
from typer.testing import CliRunner

from classify.__main__ import app
from classify.crossfit import tasks
from classify.crossfit.models import Candidate, CrossFit
from classify.crossfit.plan import FitPlan, make_repeats
from classify.crossfit.tasks import RayTasks, computing_by
from classify.inputs import read_inputs
from classify.models.baselines import BASELINES, PRIOR
from classify.models.heads import HeadSpec, write_presets
from features.common import cluster
from features.common.errors import InputError
from features.dataset.dataset import read_dataset
from features.store import mapped
from features.store.cache import FeatureCache
from tests import ROOT, heed_signals, processes_below
from tests.classify.toy import Toy, label_test_split, make_toy

with_ray = [pytest.mark.backends, pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")]
COMMANDS = ("run", "search")
STOPPED = "stopped: what was fitted until now is kept, and the same command goes on from there."


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Toy:
    toy = make_toy(tmp_path_factory.mktemp("tasks"))
    label_test_split(toy)
    write_presets(toy.data.parent / "mine.json", {"tiny": HeadSpec(dropout=0.2, batch_size=64, epochs=4)})
    return toy


def words(command: str, toy: Toy, out: str, *options: str) -> list[str]:
    return [command, str(toy.data), "--cache", str(toy.cache), "--out", str(toy.data.parent / out), *options]


def invoke(command: str, toy: Toy, out: str, *options: str) -> Any:
    return CliRunner().invoke(app, words(command, toy, out, *options))


def of_run(toy: Toy, *baselines: str) -> tuple[str, ...]:
    """Options of a run that fits heads and baselines, in all kinds of fits."""
    head = str(toy.data.parent / "mine.json")
    return "--preset", head, "--baselines", ",".join(baselines), "--folds", "3", "--group-column", "patient"


@pytest.mark.parametrize("command", COMMANDS)
def test_without_ray_one_message_has_the_remedy(toy, monkeypatch, command):
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    done = invoke(command, toy, "none", "--cluster", "ray")
    assert done.exit_code == 2
    assert done.stderr == (
        "error: --cluster ray needs the package ray, which is not installed. Run: "
        ".venv/bin/pip install -r requirements-ray.txt\n"
    )
    assert not (toy.data.parent / "none").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_an_address_without_a_cluster_is_refused(toy, command):
    done = invoke(command, toy, "none", "--address", "here:1")
    assert done.exit_code == 2
    assert done.stderr == "error: --address is for --cluster ray. Leave it out, or add that.\n"


def test_fits_that_see_no_features_stay_here(toy, monkeypatch):
    shared = []
    monkeypatch.setattr(RayTasks, "share", lambda self, act: shared.append(act))
    inputs = read_inputs(read_dataset(toy.data), FeatureCache(toy.cache), None)
    plan = FitPlan(make_repeats(inputs, 3, 1, 0))
    prior = {PRIOR: Candidate(BASELINES[PRIOR].make(), slice(0, 0))}
    with computing_by("ray", None):
        found = CrossFit(prior, inputs, plan).run(1).predictions[PRIOR]
    assert shared == []
    np.testing.assert_array_equal(found.by_repeat, CrossFit(prior, inputs, plan).run(1).predictions[PRIOR].by_repeat)


def record(run: Path) -> dict[str, Any]:
    """What a run says of itself, but for times, and digests of files that hold them."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: timeless(own) for name, own in value.items() if "seconds" not in name}
        return [timeless(own) for own in value] if isinstance(value, list) else value

    found = timeless(json.loads((run / "run.json").read_text()))
    return {name: own for name, own in found.items() if name not in ("files", "seal")}


def content(run: Path) -> dict[str, bytes]:
    """The tables and the heads of a run: other models have the time of their making in them."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for pattern in ("*.csv", "models/*/*.keras")
        for path in sorted(run.glob(pattern))
    }


def start(toy: Toy, out: str, *options: str) -> subprocess.Popen[str]:
    """Start a run as a group of processes of its own, as a terminal would."""
    return subprocess.Popen(
        [sys.executable, "-m", "classify", *words("run", toy, out, *options)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_signals,
    )


def kept(toy: Toy) -> int:
    return len(list((toy.cache / "fits").glob("*.fit")))


def blas_threads(number: int) -> tuple[int, set[int]]:
    return os.getpid(), {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def refuse(number: int) -> None:
    raise InputError(f"{number} is bad")


def divide(number: int) -> float:
    return 1 / number


def die(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def pause(seconds: float) -> None:
    time.sleep(seconds)


def total(features: mapped.MappedFeatures, rows: np.ndarray) -> float:
    return float(features[rows].sum(dtype=np.float64))


@pytest.fixture(scope="class")
def here():
    with ExitStack() as stack:
        yield RayTasks(None, None, stack)


class TestCallsByRay:
    pytestmark = with_ray

    def call(self, here, act, *calls):
        results: dict[int, Any] = {}
        here.share(act).run([(call,) for call in calls], lambda place, result: results.update({place: result}))
        return [results[place] for place in range(len(calls))]

    def test_calls_run_in_processes_with_one_blas_thread(self, here):
        found = self.call(here, blas_threads, *range(4))
        assert os.getpid() not in {process for process, _ in found}
        assert [threads for _, threads in found] == [{1}] * 4
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"

    def test_an_error_is_raised_as_it_is(self, here):
        with pytest.raises(InputError, match=r"^3 is bad$"):
            self.call(here, refuse, 3)
        with pytest.raises(ZeroDivisionError, match="division by zero") as raised:
            self.call(here, divide, 2, 0)
        assert type(raised.value) is ZeroDivisionError

    def test_a_fit_that_ends_every_process_is_said(self, here, monkeypatch):
        monkeypatch.setattr(tasks, "_RETRIES", 1)
        monkeypatch.delitem(vars(here), "task")
        with pytest.raises(InputError, match=r"given up, if its process ended after 2 tries: The worker died"):
            self.call(here, die, 0)

    def test_what_is_raised_while_it_waits_ends_the_tasks(self, here):
        class _Enough(Exception):
            pass

        def enough() -> None:
            raise _Enough

        began = time.monotonic()
        with pytest.raises(_Enough):
            here.share(pause).run([(600.0,)] * 3, lambda *_: None, on_wait=enough)
        assert self.call(here, divide, 4) == [0.25]  # a core is free again
        assert time.monotonic() - began < 120

    def test_features_on_the_disk_are_mapped_there_or_it_is_said(self, here, toy, tmp_path):
        shutil.copytree(toy.cache, tmp_path / "cache")
        features = FeatureCache(tmp_path / "cache").map("train", ["alpha", "beta"], toy.train_ids[:50], "mean")
        rows = np.array([3, 40, 7])
        assert self.call(here, partial(total, features), rows) == [total(features, rows)]
        shutil.copy(toy.cache / "test" / "beta.h5", tmp_path / "cache" / "train" / "beta.h5")
        with pytest.raises(InputError, match=r"a machine of the cluster, does not see \S*beta\.h5 as this one does"):
            self.call(here, partial(total, features), rows)


class TestCommandsByRay:
    pytestmark = with_ray

    @pytest.mark.parametrize("most", [mapped.MOST_LOADED, 0], ids=["in memory", "on the disk"])
    def test_a_run_is_that_of_one_process_to_the_last_bit(self, toy, monkeypatch, few_trees, most):
        monkeypatch.setattr(mapped, "MOST_LOADED", most)
        options = *of_run(toy, "logistic", "ridge_regression", "svm", "knn", "prior"), "--refit", "--fits-gb", "0"
        name = f"of{most}"
        for out, more in ((f"{name}_one", ()), (f"{name}_ray", ("--cluster", "ray"))):
            done = invoke("run", toy, out, *options, *more)
            assert done.exit_code == 0, done.output
        one, ray = (toy.data.parent / f"{name}_{kind}" for kind in ("one", "ray"))
        assert record(ray) == record(one)
        assert content(ray) == content(one)
        assert sum(path.endswith(".keras") for path in content(one)) == 3 * 4

    def test_a_search_is_that_of_one_process(self, toy):
        options = ("--trials", "6", "--batch", "3", "--minutes", "30", "--group-column", "patient")
        for out, more in (("study", ()), ("study_ray", ("--cluster", "ray"))):
            done = invoke("search", toy, out, *options, *more)
            assert done.exit_code == 0, done.output
        best = [(toy.data.parent / out / "best.json").read_bytes() for out in ("study", "study_ray")]
        assert best[0] == best[1]

    def test_workers_that_are_killed_lose_nothing(self, toy):
        options = *of_run(toy, "logistic"), "--repeats", "6"
        invoke("run", toy, "whole", *options, "--fits-gb", "0")
        shutil.rmtree(toy.cache / "fits", ignore_errors=True)
        driver, moments, killed = start(toy, "killed", *options, "--cluster", "ray"), random.Random(0), 0
        while driver.poll() is None and killed < 4:
            busy = [number for number, name in processes_below(driver.pid).items() if name.startswith("ray::_act")]
            if busy:
                os.kill(moments.choice(busy), signal.SIGKILL)
                killed += 1
                time.sleep(moments.uniform(0.2, 1))
        _, complained = driver.communicate(timeout=300)
        assert driver.returncode == 0, complained
        assert killed == 4
        assert content(toy.data.parent / "killed") == content(toy.data.parent / "whole")

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_a_signal_stops_all_and_the_next_run_goes_on(self, toy, number, code):
        options = *of_run(toy, "logistic"), "--repeats", "6"
        shutil.rmtree(toy.cache / "fits", ignore_errors=True)
        driver = start(toy, f"stopped{code}", *options, "--cluster", "ray")
        while kept(toy) < 3:
            assert driver.poll() is None, driver.communicate()
            time.sleep(0.01)
        below = processes_below(driver.pid)
        os.killpg(driver.pid, number)
        _, complained = driver.communicate(timeout=100)
        assert driver.returncode == code, complained
        assert complained.endswith(
            "stopped: what was fitted until now is kept, and the same command goes on from there.\n"
        )
        assert "Traceback" not in complained
        until = time.monotonic() + 20
        while left := [name for process, name in below.items() if Path(f"/proc/{process}").exists()]:
            assert time.monotonic() < until, left
            time.sleep(0.1)
        done = invoke("run", toy, f"stopped{code}", *options)
        assert done.exit_code == 0, done.output
        assert "fits: 0 reused" not in done.stderr
        assert " reused, " in done.stderr

    def test_a_cluster_that_is_not_there_is_said(self, toy):
        done = invoke(
            "run",
            toy,
            "nowhere",
            *of_run(toy, "forest"),
            "--fits-gb",
            "0",
            "--cluster",
            "ray",
            "--address",
            "127.0.0.1:1",
        )
        assert done.exit_code == 2
        assert "error: --address 127.0.0.1:1: the cluster cannot be used: " in done.stderr
        assert not (toy.data.parent / "nowhere").exists()
