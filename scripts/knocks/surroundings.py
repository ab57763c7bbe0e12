"""What happens around commands: others at work, few descriptors, no rights, files that change, a failing system."""

import errno
import os
import random
import re
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from scripts.knocks.bulk import read_rejected
from scripts.knocks.case import CORRECT, LOST, REJECTED, SILENCE, WRONG, Case, Kind, Verdict, one_by_one
from scripts.knocks.commands import (
    EXTRACTING,
    LEARNING,
    READING,
    ROOT,
    Ended,
    Surroundings,
    make_read_only,
    own_mounts,
    run,
    start,
    wait,
)
from scripts.knocks.stage import NAME, SIDE, Stage, rows_of

#: What plays a way: the stage, the place of its copy, a scratch folder, a generator.
Play = Callable[[Stage, Path, Path, random.Random], tuple[str, Verdict]]
_SHIM = Path(__file__).with_name("shim.c")


def finished(stage: Stage, name: str, place: Path, scratch: Path, first: Ended) -> Verdict:
    """Judge a command that met something: it has the undisturbed result, or says why not and has it once it is over."""
    if failure := first.failure():
        return failure
    if first.code in (0, 3) and (verdict := stage.compare(name, place)) is None:
        return Verdict(CORRECT, "the undisturbed result")
    if first.code == 0:
        return verdict or Verdict(SILENCE, "no word")
    again = run(stage.command(name, place), Surroundings(scratch))
    if failure := again.failure():
        return failure
    if again.code:
        return Verdict(LOST, f"after {first.last_line()}: the same command does not go on: {again.last_line()}")
    return stage.compare(name, place) or Verdict(REJECTED, f"{first.last_line()} Then the undisturbed result")


def play_two(stage: Stage, place: Path, scratch: Path, generator: random.Random) -> tuple[str, Verdict]:
    """Start a command twice."""
    name = generator.choice(("extract", "run", "search", "extract"))
    stage.copy(place, name)
    around = Surroundings(scratch)
    processes = [start(stage.command(name, place), around) for _ in range(2)]
    ended = [wait(process, around) for process in processes]
    verdict = next((failure for one in ended if (failure := one.failure())), None)
    if verdict is None and not any(one.code == 0 for one in ended):
        verdict = Verdict(LOST, f"neither was done: {ended[0].last_line()}")
    verdict = verdict or stage.compare(name, place)
    refused = [one.last_line() for one in ended if one.code]
    return f"{name} twice at once", verdict or Verdict(
        REJECTED if refused else CORRECT, "; ".join(refused) or "both done"
    )


def play_descriptors(stage: Stage, place: Path, scratch: Path, generator: random.Random) -> tuple[str, Verdict]:
    """Allow few open files."""
    name = generator.choice(("extract", "run", "predict"))
    stage.copy(place, name)
    most = generator.choice((8, 12, 16, 20, 24, 32, 48))
    first = run(stage.command(name, place), Surroundings(scratch, limits={resource.RLIMIT_NOFILE: most}))
    return f"{name}, {most} open files", finished(stage, name, place, scratch, first)


def play_read_only(stage: Stage, place: Path, scratch: Path, generator: random.Random) -> tuple[str, Verdict]:
    """Let the folder be read only."""
    name = generator.choice(("extract", "run", "predict", "search", "report"))
    stage.copy(place, name)
    story = f"{name} in a folder that can only be read"
    if not (own_mounts() and make_read_only(place)):
        return story, Verdict(CORRECT, "left out: not root")
    first = run(stage.command(name, place), Surroundings(scratch))
    verdict = first.failure()
    if verdict is None and first.code == 0:
        verdict = Verdict(SILENCE, "it claims to be done")
    return story, verdict or Verdict(REJECTED, first.last_line())


def play_rights(stage: Stage, place: Path, scratch: Path, generator: random.Random) -> tuple[str, Verdict]:
    """Take the rights to a file or folder away, from a user who is not root."""
    name = generator.choice(("extract", "run", "predict"))
    stage.copy(place, name)
    targets = {
        "extract": ["data/train.csv", "data/train", "data/train/train003.png"],
        "run": ["data/train.csv", f"cache/train/{NAME}.h5", "cache/train", "cache/train/images.csv"],
        "predict": ["run/run.json", f"cache/test/{NAME}.h5", "run/models", "run/thresholds.csv"],
    }[name]
    target = place / generator.choice(targets)
    rights = target.stat().st_mode
    target.chmod(0)
    around = Surroundings(scratch, powerless=True)
    first = run(stage.command(name, place), around)
    target.chmod(rights)
    story = f"{name}, no rights to {target.relative_to(place)}"
    if first.code == 3 and target.suffix == ".png":
        rejected = read_rejected(place / "cache")
        if target.stem in rejected and len(rows_of(place / "cache", "train")) == 95:
            return story, Verdict(REJECTED, rejected[target.stem])
    return story, finished(stage, name, place, scratch, first)


def play_changing(stage: Stage, place: Path, scratch: Path, generator: random.Random) -> tuple[str, Verdict]:
    """Change, remove, and put back images while they are extracted; then extract once more."""
    stage.copy(place, "extract")
    files = sorted((place / "data" / "train").iterdir())
    chosen = generator.sample(files, 12)
    versions = {path: [path.read_bytes()] for path in chosen}
    moments = sorted(generator.uniform(0, stage.seconds["extract"]) for _ in chosen)
    waiting = list(zip(moments, chosen, strict=True))

    def change(seconds: float) -> None:
        while waiting and seconds >= waiting[0][0]:
            _, path = waiting.pop(0)
            how = generator.choice(("removed", "replaced", "cut off", "a folder"))
            if how == "replaced":
                Image.effect_noise((SIDE, SIDE), 50).convert("RGB").save(path.with_suffix(".tmp"), "PNG")
                path.with_suffix(".tmp").replace(path)
                versions[path].append(path.read_bytes())
                continue
            path.unlink()
            if how == "cut off":
                path.write_bytes(versions[path][0][:100])
            elif how == "a folder":
                path.mkdir()

    first = run(stage.command("extract", place), Surroundings(scratch, meanwhile=change))
    change(1e9)
    story = "images that change while they are read"
    if failure := first.failure():
        return story, failure
    for path in chosen:
        if path.is_dir():
            path.rmdir()
        if not path.exists():
            path.write_bytes(versions[path][0])
    again = run(stage.command("extract", place), Surroundings(scratch))
    if failure := again.failure():
        return story, failure
    rows, rejected = rows_of(place / "cache", "train"), read_rejected(place / "cache")
    for path in files:
        if path.stem not in rows and path.stem not in rejected:
            return story, Verdict(LOST, f"{path.name} is neither in the cache nor rejected")
        if path.stem in rows and (np.asarray(Image.open(path).convert("RGB")).reshape(-1) != rows[path.stem]).any():
            return story, Verdict(WRONG, f"the row of {path.name} is not of the file as it is now")
    return story, Verdict(CORRECT, f"first {first.code}, then all rows are of the files as they are")


def play_times(stage: Stage, place: Path, scratch: Path, generator: random.Random) -> tuple[str, Verdict]:
    """Swap two images, with odd times of change, as archives leave them: both must be noticed."""
    stage.copy(place, "run")
    files = sorted((place / "data" / "train").iterdir())
    first, second = generator.sample(files, 2)
    moment = generator.choice((0, 1, -1, 2**31 - 1, 2**33, 1_500_000_000))
    first_bytes, second_bytes = first.read_bytes(), second.read_bytes()
    for path, content in ((first, second_bytes), (second, first_bytes)):
        path.write_bytes(content)
        os.utime(path, (moment, moment))
    story = f"two images swapped, of the time {moment}"
    refused = run(stage.command("run", place), Surroundings(scratch))
    if failure := refused.failure():
        return story, failure
    if refused.code == 0:
        return story, Verdict(WRONG, "classify run does not notice")
    again = run(stage.command("extract", place), Surroundings(scratch))
    if again.code:
        return story, again.failure() or Verdict(LOST, again.last_line())
    rows, before = rows_of(place / "cache", "train"), rows_of(stage.root / "cache", "train")
    if (rows[first.stem] != before[second.stem]).any() or (rows[second.stem] != before[first.stem]).any():
        return story, Verdict(WRONG, "the rows are not swapped")
    return story, Verdict(CORRECT, f"{refused.last_line()} Then both rows are new")


def play_repaired(stage: Stage, place: Path, scratch: Path, generator: random.Random) -> tuple[str, Verdict]:
    """Reject an image, repair it: `classify run` must say so, and the extraction read it."""
    stage.copy(place, "extract")
    path = generator.choice(sorted((place / "data" / "train").iterdir()))
    whole = path.read_bytes()
    path.write_bytes(whole[: generator.randrange(len(whole) - 20)])
    story = "an image rejected, then repaired"
    rejected = run(stage.command("extract", place), Surroundings(scratch))
    if rejected.code != 3:
        return story, rejected.failure() or Verdict(WRONG, f"exit code {rejected.code} for a damaged image")
    path.write_bytes(whole)
    told = run(stage.command("run", place), Surroundings(scratch))
    if failure := told.failure():
        return story, failure
    if told.code == 0:
        return story, Verdict(SILENCE, "classify run leaves the repaired image out")
    return story, finished(stage, "extract", place, scratch, Ended(2, told.said, 0))


def play_ascii(stage: Stage, place: Path, scratch: Path, generator: random.Random) -> tuple[str, Verdict]:
    """Name a label with accents where the terminal knows ASCII alone."""
    stage.copy(place, "run")
    table = place / "data" / "train.csv"
    label = generator.choice(("h\u00e9matome", "\u8840\u816b", "a\u0301", "\U0001f9e0"))
    table.write_text(table.read_text().replace("ID,a,", f"ID,{label},"), encoding="utf-8")
    ended = run(
        stage.command("run", place), Surroundings(scratch, real=True, environment={"PYTHONIOENCODING": "ascii"})
    )
    found = (place / "run" / "labels.csv").read_text(encoding="utf-8") if ended.code == 0 else ""
    verdict = ended.verdict()
    if verdict.outcome != CORRECT or label in found:
        return f"label {label!r}, ASCII", verdict
    return f"label {label!r}, ASCII", Verdict(WRONG, "the label has another name")


def play_remedy(stage: Stage, place: Path, scratch: Path, generator: random.Random) -> tuple[str, Verdict]:
    """Paste the command that a message prints for a damaged cache, in folders with odd names."""
    odd = place / generator.choice(("my scans", "it's", "a$(touch x)b", "-rf", "a;b", "\u00fc n", "x\ty"))
    stage.copy(odd, "run")
    file = odd / "cache" / "train" / f"{NAME}.h5"
    extracted = run(stage.command("extract", odd), Surroundings(scratch))  # so that the source is the copy
    file.write_bytes(file.read_bytes()[: -generator.randrange(1, 5000)])
    told = run(["features", "verify", str(odd / "cache")], Surroundings(scratch))
    story = f"the remedy for {odd.name!r}"
    printed = re.search(r"^  Run: (.*)$", told.said, re.MULTILINE)
    if failure := extracted.failure() or told.failure():
        return story, failure
    if told.code != 2 or printed is None:
        return story, Verdict(SILENCE, f"no remedy: {told.last_line()}")
    environment = {**os.environ, "TMPDIR": str(scratch)}
    pasted = subprocess.run(
        ["/bin/bash", "-c", printed[1]], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if pasted.returncode or file.with_name(file.name).exists() is False:
        return story, Verdict(LOST, f"{printed[1]} ends with {pasted.returncode}: {pasted.stderr[-200:]}")
    return story, stage.compare("extract", odd) or Verdict(CORRECT, "pasted, it makes the undisturbed rows")


def play_shim(stage: Stage, place: Path, scratch: Path, generator: random.Random) -> tuple[str, Verdict]:
    """Let calls of the system fail, by a library that is loaded before."""
    told = generator.choice(
        ("no locks", "reading fails", "writing fails", "fsync fails", "the clock jumps", "the clock says 1970")
    )
    name = generator.choice(("extract", "run", "predict", "extract"))
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return f"{name}, {told}", Verdict(CORRECT, "left out: there is no compiler")
    library = place.with_name("shim.so")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(_SHIM), "-ldl"], check=True)
    stage.copy(place, name)
    where = generator.choice({"reading fails": ("/cache/", "/data/", "/run/")}.get(told, (str(place),)))
    failing = {"KNOCKS_PATH": where, "KNOCKS_AFTER": str(generator.choice((0, 1, 3, 10, 40)))}
    environment = {
        "no locks": {"KNOCKS_LOCK": str(generator.choice((errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)))},
        "reading fails": {"KNOCKS_IO": "read", **failing},
        "writing fails": {"KNOCKS_IO": "write", **failing},
        "fsync fails": {"KNOCKS_IO": "fsync", **failing},
        "the clock jumps": {"KNOCKS_CLOCK": str(generator.choice((-400_000_000, 7200, -7200, 2_000_000_000)))},
        "the clock says 1970": {"KNOCKS_CLOCK": str(86_400 - int(time.time())), "KNOCKS_ALWAYS": "1"},
    }[told]
    around = Surroundings(scratch, real=True, environment={**environment, "LD_PRELOAD": str(library)})
    first = run(stage.command(name, place), around)
    verdict = finished(stage, name, place, scratch, first)
    if told in ("no locks", "the clock jumps") and verdict.outcome == REJECTED:
        verdict = Verdict(LOST, f"it refuses: {verdict.story}")
    more = (
        f" of {where} from call {failing['KNOCKS_AFTER']}"
        if "fails" in told
        else f" {next(iter(environment.values()))}"
    )
    return f"{name}, {told}{more.replace(str(place), 'the copy')}", verdict


WAYS: tuple[Play, ...] = (
    play_two, play_descriptors, play_shim, play_changing, play_rights, play_shim, play_times, play_two, play_read_only,
    play_shim, play_remedy, play_repaired, play_ascii, play_shim, play_changing,
)  # fmt: skip


def play(stage: Stage, case: Case, folder: Path) -> Verdict:
    """Play a case."""
    story, verdict = WAYS[case.number % len(WAYS)](stage, folder / "place", folder / "tmp", case.random())
    return verdict._replace(story=f"{story}: {verdict.story}")


SURROUNDINGS = Kind(
    "surroundings",
    90,
    "two commands at once; few open files; files without rights, or that can only be read; images that change, "
    "vanish or have old times; no locks, EIO and a clock that jumps, by a library loaded before; ASCII "
    "terminals; odd names of folders, where the printed remedy is pasted",
    "the undisturbed result, or a message, after which the same command has it",
    one_by_one(play),
    needs=("report", "search", "predict"),
    modules=(*READING, *EXTRACTING, *LEARNING),
)
