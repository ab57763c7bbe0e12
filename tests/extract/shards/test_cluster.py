"""extract.shards.cluster: shards as tasks of Ray's actors. What needs Ray itself is skipped where it is missing."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from importlib.util import find_spec

import pytest
from typer.testing import CliRunner

from extract.__main__ import app
from extract.pipeline import UNIT_IMAGES, Images
from extract.shards.assembling import finish_run
from extract.shards.cluster import Cluster, Place, Worker, choose_run, find_places
from features.common import cluster
from features.common.errors import InputError
from features.shards import ShardRecords
from tests import ROOT, processes_below
from tests.extract.shards.test_shards import content
from tests.extract.stand_ins import StandIns, backbone, run, work_of, write_images
from tests.test_rooms import imports_of

with_ray = [pytest.mark.backends, pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")]
HERE = Cluster(None, None, None, "auto")


@pytest.fixture
def data(tmp_path):
    write_images(tmp_path / "data" / "train", 4 * UNIT_IMAGES + 10, side=16)
    (tmp_path / "data" / "train" / "a070.png").write_bytes(b"broken")
    return tmp_path / "data"


@pytest.fixture
def any_cores():
    """A worker keeps to some cores of this process, which gets them all back."""
    cores = os.sched_getaffinity(0)
    yield cores
    os.sched_setaffinity(0, cores)


def node(cpus, gpus=0, alive=True, name="n"):
    return {"NodeID": name, "Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}}


def test_no_module_imports_ray_before_it_is_asked_for():
    paths = [path for room in ("extract", "features", "classify") for path in (ROOT / room).rglob("*.py")]
    assert [path.name for path in paths if "ray" in imports_of(path, whole=False)] == []
    assert [path.name for path in paths if "ray" in imports_of(path)] == ["cluster.py"]


def test_an_actor_a_machine_or_a_gpu_or_so_many_cores():
    nodes = [node(16), node(8, gpus=2, name="m"), node(4, alive=False)]
    assert find_places(nodes, None) == [Place("n", 16, 0, 0), Place("m", 4, 1, 0), Place("m", 4, 1, 4)]
    assert find_places(nodes, 6) == [Place("n", 6, 0, 0), Place("n", 6, 0, 6), Place("m", 6, 1, 0)]
    with pytest.raises(InputError, match=r"--actor-cpus 17: no machine of the cluster has more than 16\. Give less"):
        find_places(nodes, 17)
    for none in ([], [node(0)], [node(4, alive=False)]):
        with pytest.raises(InputError, match=r"^no machine of the cluster lends any core"):
            find_places(none, None)


def test_there_are_as_many_tasks_as_suit_the_device_or_as_have_begun(data, tmp_path):
    work = work_of(data, tmp_path / "cache")
    assert (choose_run(work, [], has_gpus=False).count, choose_run(work, [], has_gpus=True).count) == (5, 2)
    ids = [str(number) for number in range(10**6)]
    large = replace(work, images=[Images("train", ids, ids)])
    assert choose_run(large, [], has_gpus=True).count == 3907
    assert choose_run(large, [], has_gpus=False).count == 4096
    begun = choose_run(work, ["DATA"], has_gpus=True)
    ShardRecords(tmp_path / "cache").begin(begun)
    assert choose_run(work, ["DATA"], has_gpus=False) == begun


def test_a_worker_extracts_several_shards_at_a_time_by_one_device(data, tmp_path, any_cores):
    run(data, tmp_path / "one", backbone("a"), backbone("b", 30))
    work = work_of(data, tmp_path / "cache", backbone("a"), backbone("b", 30))
    plan = choose_run(work, [], has_gpus=False)
    ShardRecords(tmp_path / "cache").begin(plan)
    compiled = StandIns(4, 0.01)
    worker = Worker(work, plan, HERE, Place("n", 1, 0, 0), compiled)
    assert os.sched_getaffinity(0) == {min(any_cores)}
    reports = {}
    threads = [
        threading.Thread(target=lambda number=number: reports.update({number: worker.extract(number)}))
        for number in range(1, plan.count + 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(report.rows for report in reports.values()) == 2 * (4 * UNIT_IMAGES + 9)
    assert sum(compiled.made["a"].batches) == 4 * UNIT_IMAGES + 9
    assert finish_run(tmp_path / "cache", plan, print).rejected[0].image_id == "a070"
    assert content(tmp_path / "cache") == content(tmp_path / "one")


def test_a_worker_that_is_stopped_leaves_its_shard_unfinished(data, tmp_path, any_cores):
    work = work_of(data, tmp_path / "cache")
    plan = choose_run(work, [], has_gpus=False)
    records = ShardRecords(tmp_path / "cache")
    records.begin(plan)
    worker = Worker(work, plan, HERE, Place("n", 1, 0, 0), StandIns())
    worker.stop()
    assert worker.extract(1).rows == 0
    assert records.done(plan) == []


@pytest.mark.parametrize("hidden", ["cache", "data"])
def test_a_worker_that_does_not_see_cache_or_data_says_so(data, tmp_path, any_cores, hidden):
    work = work_of(data, tmp_path / "cache")
    plan = choose_run(work, [], has_gpus=False)
    ShardRecords(tmp_path / "cache").begin(plan)
    shutil.rmtree(tmp_path / hidden)
    said = Worker(work, plan, HERE, Place("n", 1, 0, 0), StandIns()).extract(1)
    assert re.search(
        rf"a machine of the cluster, does not see {tmp_path / hidden}\S* as this one does\. Data set", said
    )


def command(*words):
    return CliRunner().invoke(app, ["run", *map(str, words)])


def test_without_ray_one_message_has_the_remedy(data, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    done = command(data, "--cluster", "ray", "--cache", tmp_path / "cache")
    assert done.exit_code == 2
    assert done.stderr == (
        "error: --cluster ray needs the package ray, which is not installed. Run: "
        ".venv/bin/pip install -r requirements-ray.txt\n"
    )
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cluster", "ray", "--shard", "1/2"), "--shard 1/2 is one process of many. Leave it out"),
        (("--address", "here:1"), "--address is for --cluster ray"),
        (("--actor-cpus", "2"), "--actor-cpus is for --cluster ray"),
        (("--cluster", "ray", "--address", ""), "--address is empty. Name a cluster, as HOST:PORT, or leave it out"),
    ],
)
def test_options_that_do_not_go_together_are_refused(data, tmp_path, words, said):
    done = command(data, "--cache", tmp_path / "cache", *words)
    assert done.exit_code == 2
    assert said in done.stderr


def ray_command(data, cache, model, *options):
    words = ["run", data, "--backbone", f"own={model}", "--features", "last", "--cache", cache, "--cluster", "ray"]
    return [sys.executable, "-m", "extract", *map(str, [*words, *options])]


def start(*arguments):
    return subprocess.Popen(
        ray_command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finished(*arguments):
    return subprocess.run(ray_command(*arguments), cwd=ROOT, capture_output=True, text=True, check=False)


def actors_of(driver):
    """The processes of actors below a process, by their number."""
    return [process for process, name in processes_below(driver).items() if name.startswith("ray::Actor")]


@pytest.fixture
def many(tmp_path, own_model):
    """Images, and the cache that one process makes of them."""
    write_images(tmp_path / "data" / "train", 20 * UNIT_IMAGES + 10, side=16)
    (tmp_path / "data" / "train" / "a070.png").write_bytes(b"broken")
    words = ("--backbone", f"own={own_model}", "--features", "last", "--cache", tmp_path / "one")
    assert command(tmp_path / "data", *words).exit_code == 3
    return tmp_path / "data", tmp_path / "one"


class TestWithRay:
    pytestmark = with_ray

    def test_two_actors_of_which_one_is_killed_five_times_lose_nothing(self, many, own_model, tmp_path):
        data, one = many
        driver = start(data, tmp_path / "cache", own_model, "--actor-cpus", 1, "--batch-size", 1)
        moments = random.Random(0)
        killed = 0
        while driver.poll() is None and killed < 5:
            if actors := actors_of(driver.pid):
                os.kill(moments.choice(actors), signal.SIGKILL)
                killed += 1
                time.sleep(moments.uniform(0.5, 2))
        output, _ = driver.communicate(timeout=300)
        assert driver.returncode == 3, output
        assert killed == 5
        assert content(tmp_path / "cache") == content(one)

    def test_a_driver_that_was_killed_goes_on(self, many, own_model, tmp_path):
        data, one = many
        cache = tmp_path / "cache"
        driver = start(data, cache, own_model, "--batch-size", 1)
        while not list(cache.glob(".shards/*/*.json")):
            assert driver.poll() is None, driver.communicate()
            time.sleep(0.01)
        driver.kill()
        driver.communicate()
        done = len(list(cache.glob(".shards/*/*.json")))
        again = subprocess.run(
            ray_command(data, cache, own_model), cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert again.returncode == 3, again.stderr
        assert content(cache) == content(one)
        (rows,) = re.findall(r"([\d,]+) rows extracted in", again.stdout)
        assert int(rows.replace(",", "")) <= (21 - done) * UNIT_IMAGES
        assert again.stderr == ""

    def test_a_signal_stops_all_and_the_next_run_goes_on(self, many, own_model, tmp_path):
        data, one = many
        cache = tmp_path / "cache"
        driver = start(data, cache, own_model, "--batch-size", 1)
        while not list(cache.rglob("*.npz")):
            assert driver.poll() is None, driver.communicate()
            time.sleep(0.01)
        driver.send_signal(signal.SIGTERM)
        output, _ = driver.communicate(timeout=100)
        assert driver.returncode == 143, output
        assert "new rows are kept; run again to go on" in output
        again = subprocess.run(
            ray_command(data, cache, own_model), cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert again.returncode == 3, again.stderr
        assert content(cache) == content(one)

    def test_a_cluster_that_is_not_there_is_said(self, data, own_model, tmp_path):
        done = finished(data, tmp_path / "cache", own_model, "--address", "127.0.0.1:1")
        assert done.returncode == 2
        assert "error: --address 127.0.0.1:1: the cluster cannot be used: " in done.stderr
