"""extract.shards: many processes extract one data set, in any order and killed at any time, to the bytes of one."""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from extract.__main__ import app
from extract.options import ExtractOptions
from extract.pipeline import UNIT_IMAGES, Images
from extract.run import _command
from extract.shards.records import Shard, changed_shards, plan_run
from features.__main__ import app as features_app
from features.common.errors import InputError
from features.common.files import hold
from features.store.cache import FeatureCache, verify_cache
from tests import ROOT
from tests.extract.stand_ins import StandIns, backbone, run, run_shard, work_of, write_images

#: What two files of the same rows may differ in, and the digest of these and the rest.
CLOCK = {"time", "seconds_per_image", "index_digest"}


@pytest.fixture
def data(tmp_path):
    """5 units of train, the last one short, and a short one of test; two images cannot be read."""
    write_images(tmp_path / "data" / "train", 4 * UNIT_IMAGES + 10, side=24)
    write_images(tmp_path / "data" / "test", 9, side=24, seed=1)
    (tmp_path / "data" / "train" / "a070.png").write_bytes(b"broken")
    (tmp_path / "data" / "train" / "a003.png").write_bytes(b"")
    return tmp_path / "data"


def assemble(cache):
    return CliRunner().invoke(app, ["assemble", str(cache)])


def content(cache):
    """All that a cache holds, without the times at which it was computed: by file the bytes, or what HDF5 has there."""
    found = {}
    for path in sorted(path for path in cache.rglob("*") if path.is_file() and not path.name.endswith(".lock")):
        name = str(path.relative_to(cache))
        if path.suffix == ".h5":
            with h5py.File(path) as file:
                found[name] = {key: value for key, value in file.attrs.items() if key not in CLOCK}
                found[name] |= {key: (file[key].id.get_offset(), file[key][()].tobytes()) for key in file}
        else:
            found[name] = path.read_bytes()
    return found


def start(data, cache, shard, seconds):
    arguments = [sys.executable, "-m", "tests.extract.slow_extraction", data, cache, seconds, 8, shard]
    return subprocess.Popen(
        [str(argument) for argument in arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_units_of_images_are_dealt_out_in_turn_and_each_image_once():
    ids = [f"{number}" for number in range(4 * UNIT_IMAGES + 10)]
    images = [Images("train", ids, ids), Images("test", ids[:5], ids[:5])]
    shares = [Shard(number, 3).share(images) for number in (1, 2, 3)]
    unit = [ids[start : start + UNIT_IMAGES] for start in range(0, len(ids), UNIT_IMAGES)]
    assert [share[0].image_ids for share in shares] == [unit[0] + unit[3], unit[1] + unit[4], unit[2]]
    assert [share[1].image_ids for share in shares] == [ids[:5], [], []]
    assert all(share[0].paths == share[0].image_ids for share in shares)


@pytest.mark.parametrize("value", ["0/4", "5/4", "1/0", "4", "1/", "-1/4", "1/4/2", "a/b", "1.5/4"])
def test_a_shard_that_is_none_is_refused(value):
    with pytest.raises(InputError, match=r"expected K/N, the shard K of N, from 1/N to N/N; such as 3/16"):
        Shard.parse(value)


@pytest.mark.parametrize(("storage", "order"), [("float32", (1, 2, 3, 4)), ("float16", (3, 1, 4, 2))])
def test_shards_in_any_order_give_the_bytes_of_one_process(data, tmp_path, order, storage, monkeypatch):
    for name in ("one", "cache"):
        compiled = SmallStandIns() if storage == "float16" else StandIns()
        if name == "one":
            run(data, tmp_path / name, *two(), storage=storage, compiled=compiled)
            continue
        for number in order:
            run_shard(data, tmp_path / name, f"{number}/4", *two(), storage=storage, compiled=compiled)
            assert list((tmp_path / name).rglob("*.h5")) == []
    done = assemble(tmp_path / "cache")
    assert done.exit_code == 3, done.output
    assert "4 shards put together in" in done.output
    assert "2 images could not be read (first: train/a003.png: the file is empty)" in " ".join(done.output.split())
    assert content(tmp_path / "cache") == content(tmp_path / "one")
    assert len(content(tmp_path / "one")) == 9  # 3 files of rows and images.csv a split, and rejected.csv
    again = assemble(tmp_path / "cache")
    assert again.exit_code == 0
    assert "nothing left to do" in again.output
    assert content(tmp_path / "cache") == content(tmp_path / "one")


def two():
    """Two backbones, of which one gives two kinds of rows."""
    return backbone("a", 20, features=("last", "mid")), backbone("b", 30)


class SmallStandIns(StandIns):
    """Features that float16 can hold."""

    def __call__(self, backbone, sample):
        stand_in = super().__call__(backbone, sample)

        def small(images):
            return tuple(rows / 2**16 for rows in stand_in(images))

        small.batch_size, small.engine, small.device = 4, "numpy", "numpy"
        return small


class PlacedStandIns(StandIns):
    """Features that depend on the place in the batch, as TensorFlow's do in their last bits."""

    def __call__(self, backbone, sample):
        stand_in = super().__call__(backbone, sample)

        def placed(images):
            return tuple(rows + np.arange(len(rows), dtype=np.float32)[:, None] for rows in stand_in(images))

        placed.batch_size, placed.engine, placed.device = 12, "numpy", "numpy"
        return placed


def test_each_row_has_the_place_in_its_batch_that_it_has_in_one_process(data, tmp_path):
    """64 images are no multiple of 12, and two cannot be read."""
    run(data, tmp_path / "one", compiled=PlacedStandIns())
    for number in (3, 1, 2):
        run_shard(data, tmp_path / "cache", f"{number}/3", compiled=PlacedStandIns())
    assert assemble(tmp_path / "cache").exit_code == 3
    assert content(tmp_path / "cache") == content(tmp_path / "one")


def test_large_batches_run_on_over_units(data, tmp_path):
    compiled = StandIns(2 * UNIT_IMAGES)
    run(data, tmp_path / "cache", compiled=compiled)
    assert compiled.made["tiny"].batches == [128, 128, 8, 9]


def test_two_of_four_processes_are_killed_and_started_again(data, tmp_path):
    run(data, tmp_path / "one", backbone("a"), backbone("b", 30))
    cache, moments = tmp_path / "cache", random.Random(0)
    killed = 0
    for _ in range(2):
        slow = {3: 0.3, 2: 0.3, 4: 0.0, 1: 0.0}  # 9 s and more, from 32 batches
        processes = {number: start(data, cache, f"{number}/4", seconds) for number, seconds in slow.items()}
        for process in processes.values():
            assert process.stdout.readline() == "running\n"
        time.sleep(moments.uniform(0.5, 2.0))
        for number in (2, 3):
            processes[number].kill()
        for process in processes.values():
            process.communicate()
            killed += process.returncode == -signal.SIGKILL
    assert killed == 4
    kept = len(list(cache.rglob("2-of-4.*.npz"))) + len(list(cache.rglob("3-of-4.*.npz")))
    assert kept > 0
    missing = assemble(cache)
    assert missing.exit_code == 2
    assert f"{cache} waits for 2 of 4 shards: 2/4, 3/4. Run: " in missing.stderr
    assert f"scripts/extract.sh {data} --cache {cache} --shard 2/4, and so on" in missing.stderr
    for number in (3, 2):
        process = start(data, cache, f"{number}/4", 0.0)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert 0 < int(output.split()[1]) < 2 * 64  # the rows that were in parts are not extracted again
    assert assemble(cache).exit_code == 3
    assert content(cache) == content(tmp_path / "one")
    assert [finding for *_, finding in verify_cache(FeatureCache(cache))] == [None] * 4


def test_an_assembly_killed_midway_is_run_again(data, tmp_path, monkeypatch):
    run(data, tmp_path / "one", *two())
    for number in (1, 2):
        run_shard(data, tmp_path / "cache", f"{number}/2", *two())
    whole = shutil.copytree(tmp_path / "cache", tmp_path / "whole")
    steps = ("features.store.images_table._write", "extract.extraction.assemble", "extract.extraction.PartStore.remove",
             "features.shards.ShardRecords.remove")  # fmt: skip
    stopped = 0
    for step in steps:
        for calls in (0, 1, 3):
            cache = shutil.copytree(whole, tmp_path / f"{step}{calls}")
            module, _, name = step.rpartition(".")
            with monkeypatch.context() as patched:
                patched.setattr(step, dying_after(calls, getattr(resolve(module), name)))
                done = CliRunner().invoke(app, ["assemble", str(cache)])
            stopped += done.exit_code == 1
            assert assemble(cache).exit_code in ((3,) if done.exit_code == 1 else (0,))
            assert content(cache) == content(tmp_path / "one")
    assert stopped >= 8


def resolve(name):
    """A module or a class by its dotted name."""
    import pkgutil

    return pkgutil.resolve_name(name)


def dying_after(calls, original):
    """A function that ends the command at its call after so many."""
    counted = iter(range(100))

    def act(*arguments, **named):
        if next(counted) == calls:
            raise RuntimeError("killed")
        return original(*arguments, **named)

    return act


def test_a_changed_image_takes_the_place_of_its_row(data, tmp_path):
    for name in ("one", "cache"):
        run(data, tmp_path / name)
    cv2.imwrite(str(data / "train" / "a200.png"), np.full((24, 24, 3), 7, np.uint8))
    write_images(data / "train", 4 * UNIT_IMAGES + 12, side=24, seed=0)
    cv2.imwrite(str(data / "train" / "a200.png"), np.full((24, 24, 3), 7, np.uint8))
    run(data, tmp_path / "one")
    rows = [run_shard(data, tmp_path / "cache", f"{number}/2").rows for number in (2, 1)]
    assert sum(rows) == 5  # the changed one, the two that were broken, and two new ones
    done = assemble(tmp_path / "cache")
    assert done.exit_code == 0, done.output
    assert "1 image changed (first: a200): 1 row replaced, 0 dropped" in " ".join(done.output.split())
    assert content(tmp_path / "cache") == content(tmp_path / "one")


def test_an_image_that_changed_between_two_runs_of_its_shard_counts_as_it_is_now(data, tmp_path):
    cache = tmp_path / "cache"
    for value in range(6):
        cv2.imwrite(str(data / "train" / "a000.png"), np.full((24, 24, 3), value, np.uint8))
        run_shard(data, cache, "1/2")
    run_shard(data, cache, "2/2")
    assert len(list(cache.rglob("1-of-2.*.npz"))) == 5 + 2  # of a000 alone; train and test
    assert assemble(cache).exit_code == 3
    run(data, tmp_path / "one")
    assert content(cache) == content(tmp_path / "one")


def test_shards_of_which_an_image_changed_are_found_again(data, tmp_path):
    cache, work = tmp_path / "cache", work_of(data, tmp_path / "cache", backbone())
    plan = plan_run(work, 3, [str(data)])
    for number in (1, 3):
        run_shard(data, cache, f"{number}/3")
    assert changed_shards(work, plan) == []
    of_third = Shard(3, 3).share(work.images)[0].paths
    of_third[0].write_bytes(of_third[1].read_bytes())
    assert changed_shards(work, plan) == [3]
    run_shard(data, cache, "3/3")
    assert changed_shards(work, plan) == []
    Shard(1, 3).share(work.images)[0].paths[0].unlink()
    assert changed_shards(work, plan) == [1]


def test_more_shards_than_units(data, tmp_path):
    run(data, tmp_path / "one")
    for number in range(9, 0, -1):
        run_shard(data, tmp_path / "cache", f"{number}/9")
    assert assemble(tmp_path / "cache").exit_code == 3
    assert content(tmp_path / "cache") == content(tmp_path / "one")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("count", "of 2 shards, not of 3"),
        ("images", "of other images"),
        ("recipe", "by other backbones or options"),
        ("backbone", "by other backbones or options"),
    ],
)
def test_a_shard_of_another_extraction_is_refused_until_the_first_is_done(data, tmp_path, change, said):
    cache = tmp_path / "cache"
    run_shard(data, cache, "1/2")
    other = tmp_path / "other"
    write_images(other / "train", 8, side=24)

    def shard_of_another():
        run_shard(
            other if change == "images" else data,
            cache,
            "1/3" if change == "count" else "1/2",
            backbone("b" if change == "backbone" else "tiny", digest="1" * 32 if change == "recipe" else "0" * 32),
        )

    command = f"scripts/extract.sh {data} --cache {cache} --shard 2/2"
    refused = f"{cache} has 1 of 2 shards of another extraction, {said}. Finish that one first: "
    with pytest.raises(InputError) as caught:
        shard_of_another()
    assert str(caught.value).startswith(refused)
    assert f"{command}; or give it up, which keeps its rows for 2 shards or one process: rm -r" in str(caught.value)
    run_shard(data, cache, "2/2")
    with pytest.raises(InputError, match=f"extract assemble {cache}; or give it up"):
        shard_of_another()
    assert assemble(cache).exit_code == 3
    shard_of_another()


def test_shards_of_another_data_set_with_the_same_ids_are_refused(data, tmp_path):
    cache, other = tmp_path / "cache", tmp_path / "other"
    for split, count in (("train", 4 * UNIT_IMAGES + 10), ("test", 9)):
        write_images(other / split, count, side=24, seed=7)
    run_shard(data, cache, "1/2")
    with pytest.raises(InputError, match=f"1 of 2 shards of another extraction, of {data}, not of {other}. Finish"):
        run_shard(other, cache, "2/2")


def test_one_data_set_may_have_several_paths(data, tmp_path):
    cache, link, moved = tmp_path / "cache", tmp_path / "link", tmp_path / "mounted elsewhere"
    run_shard(data, cache, "1/3")
    link.symlink_to(data)
    run_shard(link, cache, "2/3")
    data.rename(moved)
    run_shard(moved, cache, "3/3")
    assert assemble(cache).exit_code == 3


def test_an_extraction_of_which_no_shard_ended_is_replaced(data, tmp_path):
    cache = tmp_path / "cache"
    stop = StopAfter(1)
    run_shard(data, cache, "1/2", stop=stop)
    with (
        hold(cache / "test" / "tiny.h5.lock", shared=True),  # as another shard does that is at work
        pytest.raises(InputError, match=r"test/tiny\.h5 is being worked on by"),
    ):
        run_shard(data, cache, "1/3")
    for number in (1, 2, 3):
        run_shard(data, cache, f"{number}/3")
    assert assemble(cache).exit_code == 3
    assert FeatureCache(cache).open("train", "tiny").rows == 4 * UNIT_IMAGES + 8


class StopAfter:
    """Is set after it was asked so many times."""

    def __init__(self, asked):
        self.left = asked

    def is_set(self):
        self.left -= 1
        return self.left < 0


def test_rows_that_are_gone_are_named_with_their_shards(data, tmp_path):
    cache = tmp_path / "cache"
    for number in (1, 2):
        run_shard(data, cache, f"{number}/2")
    for part in cache.rglob("2-of-2.*.npz"):
        part.unlink()
    done = assemble(cache)
    assert done.exit_code == 2
    assert f"{cache} lost 127 rows of tiny in train (first: a064), extracted by --shard 2/2. Run: " in done.stderr
    assert not (cache / "train" / "tiny.h5").exists()
    run_shard(data, cache, "2/2")
    assert assemble(cache).exit_code == 3


#: What is done to the record of shard 2, and what is said of it.
DAMAGE = {
    "cut": (lambda text: text[:-10], "cannot be read"),
    "no JSON": (lambda text: "\0", "cannot be read"),
    "no object": (lambda text: "[]", "cannot be read"),
    "other ids": (lambda text: text.replace('"a064"', '"a065"', 1), "is damaged"),
    "a key of stamps": (lambda text: re.sub(r'"a064": \[', '"b064": [', text, count=1), "is damaged"),
    "text": (lambda text: re.sub(r'("a064": \[)\d+', r'\1"x"', text, count=1), "is damaged"),
    "a huge number": (lambda text: re.sub(r'("a064": \[)\d+', r"\g<1>1e999", text, count=1), "is damaged"),
    "no digest": (lambda text: re.sub(r'"a064": "\w+", ', "", text, count=1), "is damaged"),
}


@pytest.mark.parametrize("damage", [*DAMAGE, "that of shard 1"])
def test_a_damaged_record_is_named(data, tmp_path, damage):
    cache = tmp_path / "cache"
    for number in (1, 2):
        run_shard(data, cache, f"{number}/2")
    (path,) = cache.glob(".shards/*/2.json")
    text = path.read_text()
    change, said = DAMAGE.get(damage, (lambda _: path.with_name("1.json").read_text(), "is damaged"))
    path.write_text(change(text))
    assert path.read_text() != text
    done = assemble(cache)
    assert done.exit_code == 2
    assert f"{path} {said}" in done.stderr
    assert f"Run: scripts/extract.sh {data} --cache {cache} --shard 2/2" in done.stderr
    run_shard(data, cache, "2/2")
    assert assemble(cache).exit_code == 3


@pytest.mark.parametrize("old", ['"count": 2', '"splits": ["t', '"weights_digest": "0', "{"])
def test_a_damaged_extraction_is_named(data, tmp_path, old):
    cache = tmp_path / "cache"
    run_shard(data, cache, "1/2")
    path = cache / ".shards" / "run.json"
    path.write_text(path.read_text().replace(old, old[:-1] + "7", 1))
    done = assemble(cache)
    assert done.exit_code == 2
    assert f"Remove {cache}/.shards, and run the shards again." in done.stderr


def test_shards_run_side_by_side_but_not_beside_a_plain_extraction(data, tmp_path):
    cache = tmp_path / "cache"
    lock = cache / "train" / "tiny.h5.lock"
    with hold(lock, shared=True):
        run_shard(data, cache, "1/2")
        run_shard(data, cache, "2/2")
        with pytest.raises(InputError, match=r"tiny\.h5 is being worked on by"):
            run(data, cache)
        assert "is being worked on by" in assemble(cache).stderr
    with hold(lock):
        with pytest.raises(InputError, match=r"tiny\.h5 is being worked on by"):
            run_shard(data, cache, "1/2")
        assert "is being worked on by" in assemble(cache).stderr
    assert assemble(cache).exit_code == 3


def test_a_plain_extraction_waits_for_shards_that_have_ended(data, tmp_path):
    """Their records would undo what it does: a070 was broken when its shard saw it."""
    cache = tmp_path / "cache"
    run_shard(data, cache, "1/2")
    refused = f"{cache} has 1 of 2 shards of an extraction of the same rows. Finish that one first: "
    with pytest.raises(InputError) as caught:
        run(data, cache)
    assert str(caught.value).startswith(
        f"{refused}scripts/extract.sh {data} --cache {cache} --shard 2/2; or give it up"
    )
    assert run(data, cache, backbone("other")).rows == 4 * UNIT_IMAGES + 8 + 9
    run_shard(data, cache, "2/2")
    shutil.copy(data / "train" / "a071.png", data / "train" / "a070.png")
    with pytest.raises(InputError, match=f"extract assemble {cache}; or give it up"):
        run(data, cache)
    assert assemble(cache).exit_code == 3
    assert run(data, cache).rows == 1
    assert assemble(cache).exit_code == 0
    assert FeatureCache(cache).rejected("train").keys() == {"a003"}
    assert "a070" in FeatureCache(cache).open("train", "tiny").row_of


def test_a_plain_extraction_takes_the_parts_of_shards_that_are_given_up(data, tmp_path):
    cache = tmp_path / "cache"
    rows = run_shard(data, cache, "1/2").rows
    shutil.rmtree(cache / ".shards")
    report = run(data, cache)
    assert (rows, report.rows) == (2 * 64 + 10 - 1 + 9, 2 * 64 - 1)
    run(data, tmp_path / "one")
    assert content(cache) == content(tmp_path / "one")


def test_a_plain_extraction_removes_what_shards_that_never_ended_began(data, tmp_path):
    cache = tmp_path / "cache"
    run_shard(data, cache, "1/2", stop=StopAfter(100))
    assert len(list(cache.rglob("1-of-2.*.npz"))) == 1
    run(data, cache)
    run(data, tmp_path / "one")
    assert content(cache) == content(tmp_path / "one")
    assert "nothing left to do" in assemble(cache).output


def test_remedies_say_what_shards_wait_for(data, tmp_path):
    cache = tmp_path / "cache"
    run_shard(data, cache, "1/2")
    second, assembly = (
        f"scripts/extract.sh {data} --cache {cache} --shard 2/2",
        f".venv/bin/python -m extract assemble {cache}",
    )
    inspect = CliRunner().invoke(features_app, ["inspect", str(cache)])
    assert (
        f"unfinished: test/tiny, train/tiny. The rows extracted so far wait in parts. Run: {second}\n" in inspect.stdout
    )
    assert inspect.stderr.endswith(f"holds no cache file ({{split}}/{{backbone}}.h5). Run: {second}\n")
    run_shard(data, cache, "2/2")
    for command in ("inspect", "verify"):
        assert f"Run: {assembly}\n" in CliRunner().invoke(features_app, [command, str(cache)]).stderr
    assert FeatureCache(cache, data, ["tiny"]).remedy(split="train") == assembly
    assert "--backbones other" in FeatureCache(cache, data, ["other"]).remedy()
    assert "--backbones tiny" in FeatureCache(cache, data, ["tiny"]).remedy(split="new")
    with pytest.raises(InputError, match=f"tiny.h5 is not there .* Run: {assembly}"):
        FeatureCache(cache, data).open("train", "tiny")
    (cache / ".shards" / "run.json").write_text("damaged")
    assert "--backbones tiny" in FeatureCache(cache, data).remedy("tiny")
    assert assemble(cache).exit_code == 2


def test_what_cannot_be_put_together_is_said(data, tmp_path):
    missing = assemble(tmp_path / "missing")
    assert (missing.exit_code, "missing is not there" in missing.stderr) == (2, True)
    (tmp_path / "empty").mkdir()
    empty = assemble(tmp_path / "empty")
    assert (empty.exit_code, "has neither shards nor features" in empty.stderr) == (2, True)
    stopped = tmp_path / "stopped"
    run(data, stopped, stop=StopAfter(100))
    said = assemble(stopped)
    assert said.exit_code == 2
    assert "has no shards to put together, but the extraction of train/tiny was stopped. Run: " in said.stderr
    run(data, stopped)
    assert assemble(stopped).exit_code == 0


def test_the_command_extracts_a_shard_and_says_what_is_next(tmp_path, own_model):
    write_images(tmp_path / "data" / "train", 70, side=16)
    (tmp_path / "data" / "train" / "a001.png").write_bytes(b"broken")
    words = ["run", str(tmp_path / "data"), "--backbone", f"own={own_model}", "--features", "last"]
    plain = CliRunner().invoke(app, [*words, "--cache", str(tmp_path / "one")])
    assert plain.exit_code == 3, plain.output
    shard = [*words, "--cache", str(tmp_path / "cache"), "--shard"]
    first = CliRunner().invoke(app, [*shard, "1/2"])
    assert first.exit_code == 0, first.output
    said = " ".join(first.output.split())
    assert "70 train images of" in said
    assert "shard 1/2: 64 of these images" in said
    assert "shard 1/2: 63 rows extracted in" in said
    assert (
        f"1 image could not be read. When all 2 are done, run: .venv/bin/python -m extract assemble {tmp_path}" in said
    )
    missing = assemble(tmp_path / "cache")
    assert missing.exit_code == 2
    assert "--shard 2/2" in missing.stderr
    assert f"--backbone own={own_model}" in missing.stderr
    assert CliRunner().invoke(app, [*shard, "2/2"]).exit_code == 0
    assert assemble(tmp_path / "cache").exit_code == 3
    again = CliRunner().invoke(app, [*shard, "2/2"])
    assert (again.exit_code, assemble(tmp_path / "cache").exit_code) == (0, 0)
    assert again.output.splitlines()[-1] == "nothing left to do: the rows of every shard are up to date."
    of_one, of_two = content(tmp_path / "one"), content(tmp_path / "cache")
    assert json.loads(of_two["train/own.source.json"]) == json.loads(of_one["train/own.source.json"])
    assert of_two == of_one
    spare = CliRunner().invoke(app, [*words, "--cache", str(tmp_path / "three"), "--shard", "3/3"])
    assert "shard 3/3: 0 of these images. Fewer shards would do: images are dealt out 64 at a time" in spare.output
    shutil.copy(tmp_path / "data" / "train" / "a000.png", tmp_path / "data" / "train" / "a069.png")
    refused = CliRunner().invoke(app, [*words, "--cache", str(tmp_path / "three"), "--shard", "1/2"])
    assert "1 of 3 shards of another extraction, of 3 shards, not of 2" in " ".join(refused.stderr.split())
    assert "1 row extracted" in CliRunner().invoke(app, [*shard, "2/2"]).output
    assert f"{tmp_path}/cache waits for 1 of 2 shards: 1/2. Run: " in assemble(tmp_path / "cache").stderr
    assert CliRunner().invoke(app, [*shard, "1/2"]).exit_code == 0
    assert assemble(tmp_path / "cache").exit_code == 3


def test_remedies_name_models_by_full_paths(tmp_path, own_model, monkeypatch):
    write_images(tmp_path / "data" / "train", 4, side=16)
    monkeypatch.chdir(own_model.parent)
    words = ["--backbone", f"own={own_model.name}", "--features", "last", "--cache", str(tmp_path / "cache")]
    assert CliRunner().invoke(app, ["run", str(tmp_path / "data"), *words]).exit_code == 0
    assert f"--backbone own={own_model} " in FeatureCache(tmp_path / "cache").remedy("own")


def test_a_command_for_other_shards_can_be_run_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ExtractOptions(data=Path("d"), backbone=["own=m.onnx", "b=/x/b.keras"], weights="w", shard="1/2")
    assert _command(options, Path("c")) == [
        f"{tmp_path}/d", "--backbone", f"own={tmp_path}/m.onnx", "--backbone", "b=/x/b.keras",
        "--weights", f"{tmp_path}/w", "--cache", f"{tmp_path}/c",
    ]  # fmt: skip
    assert _command(ExtractOptions(data=Path("d"), weights="random"), Path("c"))[1:3] == ["--weights", "random"]
