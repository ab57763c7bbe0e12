"""Hostile files: backbones, the models and the record of a run, parts of an extraction, kept fits and studies.

Many hold code that would make a file, the canary: if it is there afterwards, that code was run.
"""

import base64
import importlib
import io
import json
import marshal
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from scripts.knocks.case import CORRECT, EXECUTED, LOST, REJECTED, WRONG, Case, Kind, Verdict, one_by_one
from scripts.knocks.commands import EXTRACTING, LEARNING, READING, Ended, Surroundings, run
from scripts.knocks.damage import DAMAGES, choose
from scripts.knocks.stage import NAME, SIDE, Stage, rows_of

#: What plays a way: the stage, an empty place, the canary's path, a generator of random numbers.
Play = Callable[[Stage, Path, Path, random.Random], tuple[str, Verdict]]


class Payload:
    """What a pickle of it does when it is loaded: it makes a file."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self._canary}",)


def keras_file(layers: list[dict[str, Any]], extra: dict[str, bytes] | None = None) -> bytes:
    """Write a Sequential .keras file of layers as their descriptions say, without Keras."""
    described = [_layer("InputLayer", {"batch_shape": [None, SIDE, SIDE, 3], "name": "images"}), *layers]
    config = {"module": "keras", "class_name": "Sequential", "config": {"name": "net", "layers": described}}
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        file.create_group("layers")
    files = {
        "metadata.json": json.dumps({"keras_version": "3.15.1"}).encode(),
        "config.json": json.dumps({**config, "registered_name": None, "build_config": {}}).encode(),
        "model.weights.h5": weights.getvalue(),
    }
    return zipped({**files, **(extra or {})})


def zipped(files: dict[str, bytes]) -> bytes:
    """Write a zip archive."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, of_file in files.items():
            archive.writestr(zipfile.ZipInfo(name), of_file, zipfile.ZIP_DEFLATED)
    return content.getvalue()


def _layer(kind: str, config: dict[str, Any], module: str = "keras.layers") -> dict[str, Any]:
    return {"module": module, "class_name": kind, "config": config, "registered_name": None}


_FLATTEN = _layer("Flatten", {"name": "flat"})


def _lambda(canary: Path) -> dict[str, Any]:
    """A layer whose function is compiled Python."""
    code = compile(f"__import__('os').system('touch {canary}')", "x", "eval")
    text = base64.b64encode(marshal.dumps(code)).decode()
    function = {"class_name": "__lambda__", "config": {"code": text, "defaults": None, "closure": None}}
    return _layer("Lambda", {"name": "evil", "function": function, "arguments": {}})


def _keras_contents(canary: Path, generator: random.Random) -> tuple[str, bytes]:
    """A hostile .keras file, in words and bytes."""
    command = f"touch {canary}"
    system = {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}
    execute = {"module": "builtins", "class_name": "function", "config": "exec", "registered_name": "exec"}
    pickled = base64.b64encode(pickle.dumps(Payload(canary))).decode()
    deep: Any = {}
    for _ in range(5000):
        deep = [deep]
    huge = io.BytesIO()
    with h5py.File(huge, "w") as file:
        file.create_dataset("layers/x", (1 << 34,), "f4", chunks=(1 << 20,), compression="gzip")
    ways: dict[str, Callable[[], bytes]] = {
        "a Lambda of compiled code": lambda: keras_file([_lambda(canary), _FLATTEN]),
        "os.system as an activation": lambda: keras_file([_layer("Activation", {"activation": system}), _FLATTEN]),
        "exec as an initialiser": lambda: keras_file(
            [_FLATTEN, _layer("Dense", {"units": 4, "kernel_initializer": execute})]
        ),
        "a layer of the module os": lambda: keras_file([_layer("system", {"command": command}, "os"), _FLATTEN]),
        "subprocess.Popen as a layer": lambda: keras_file(
            [_layer("Popen", {"args": command, "shell": True}, "subprocess"), _FLATTEN]
        ),
        "a pickled PyTorch module": lambda: keras_file(
            [_layer("TorchModuleWrapper", {"module": pickled}, "keras.utils"), _FLATTEN]
        ),
        "files outside of the archive": lambda: keras_file([_FLATTEN], {f"../../../../..{canary}": b"x"}),
        "weights of 64 GB": lambda: keras_file([_FLATTEN], {"model.weights.h5": huge.getvalue()}),
        "a description of 60 MB": lambda: keras_file([_FLATTEN], {"config.json": b" " * 60_000_000 + b"{}"}),
        "a pickle": lambda: pickle.dumps(Payload(canary)),
        "an input of 10^9 pixels": lambda: keras_file(
            [_layer("InputLayer", {"batch_shape": [None, 10**9, 10**9, 3]}), _FLATTEN]
        ),
        "damaged bytes": lambda: DAMAGES[choose(generator)](keras_file([_FLATTEN]), generator),
        "a description nested 5,000 deep": lambda: keras_file([_FLATTEN], {"config.json": _nested(deep)}),
        "a layer of 10^12 weights": lambda: keras_file([_FLATTEN, _layer("Dense", {"units": 10**10})]),
    }
    told = generator.choice(list(ways))
    return told, ways[told]()


def _nested(deep: Any) -> bytes:
    """Write deeply nested lists, which `json` itself refuses to."""
    return b"[" * 5000 + b"]" * 5000


def play_keras(stage: Stage, place: Path, canary: Path, generator: random.Random) -> tuple[str, Verdict]:
    """Extract by a hostile .keras backbone."""
    importlib.import_module("extract.backbones.own_model")
    from features.common.keras_import import import_keras

    import_keras()  # once for the cases of this process
    told, content = _keras_contents(canary, generator)
    path = place / "evil.keras"
    path.write_bytes(content)
    return f".keras, {told}", _extract_by(stage, place, path)


def _extract_by(stage: Stage, place: Path, path: Path) -> Verdict:
    """Extract the stage's data by a backbone; rows that come out have to be finite."""
    words = ["extract", "run", str(stage.data), "--backbone", f"evil={path}", "--features", "last"]
    ended = run([*words, "--cache", str(place / "cache")], Surroundings(place / "tmp"))
    verdict = ended.verdict()
    if verdict.outcome == CORRECT:
        from features.store.cache import FeatureCache

        ids, rows = FeatureCache(place / "cache").read("train", ["evil"])
        if len(ids) != len(list((stage.data / "train").iterdir())) or not np.isfinite(rows).all():
            return Verdict(WRONG, f"{len(ids)} rows, finite: {np.isfinite(rows).all()}")
    return verdict


def play_onnx(stage: Stage, place: Path, canary: Path, generator: random.Random) -> tuple[str, Verdict]:
    """Extract by a damaged .onnx backbone, or one whose sidecar is hostile."""
    model, sidecar = stage.model.read_bytes(), {"size": SIDE, "layout": "NHWC"}
    text = json.dumps(sidecar)
    if generator.random() < 0.5:
        damage = choose(generator)
        model, told = DAMAGES[damage](model, generator), f"model, {damage}"
    else:
        odd: Any = generator.choice((
            '{"size": 1000000000, "layout": "NHWC"}', '{"size": -1, "layout": "NHWC"}', '{"size": 16}', "[]", "", "{",
            '{"size": 16, "layout": "NHWC", "mean": [NaN, 0, 0], "std": [1, 1, 1]}', "[" * 100_000, "null", "\x00",
            '{"size": 16, "layout": "NHWC", "output": "../../x"}', '{"size": 16, "layout": "NHWC", "pooling": "evil"}',
            '{"size": 16.5, "layout": "NHWC"}', '{"size": 16, "layout": "NHWC", "extra": 1}', '{"size": 1e400}',
            '{"size": 16, "layout": "NHWC", "prefix_tokens": 99999999999999999999}',
        ))  # fmt: skip
        text, told = str(odd), f"sidecar {odd[:40]!r}"
    path = place / "evil.onnx"
    path.write_bytes(model)
    path.with_suffix(".json").write_text(text)
    return f".onnx, {told}", _extract_by(stage, place, path)


def play_run(stage: Stage, place: Path, canary: Path, generator: random.Random) -> tuple[str, Verdict]:
    """Predict by a run whose models or record are hostile; half of them sealed again by whoever changed them.

    Of a record that was changed and sealed again a report is asked for, too.
    """
    from classify.rundir.folder import seal

    stage.copy(place, "predict")
    folder = place / "run"
    record = json.loads((folder / "run.json").read_text())
    told = generator.choice(
        ("model damaged", "model of a pickle", "skops of a function", "record damaged", "record odd")
    )
    models = [file for entry in record["models"].values() for file in entry["files"]]
    path = folder / generator.choice(models)
    sealed = generator.random() < 0.6
    if told == "model damaged":
        path.write_bytes(DAMAGES[choose(generator)](path.read_bytes(), generator))
    elif told == "model of a pickle":
        content = pickle.dumps(Payload(canary))
        path.write_bytes(generator.choice((content, zipped({"schema.json": content, "config.json": content}))))
    elif told == "skops of a function":
        schema = {
            "__class__": "system", "__module__": generator.choice(("os", "posix", "builtins")), "__id__": 1,
            "__loader__": generator.choice(("TypeNode", "FunctionNode", "ObjectNode", "MethodNode", "ReduceNode")),
            "content": {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode",
                        "content": f'"touch {canary}"', "__id__": 2},
            "protocol": 2, "_skops_version": "0.16.0",
        }  # fmt: skip
        path.write_bytes(zipped({"schema.json": json.dumps(schema).encode()}))
    elif told == "record damaged":
        whole = (folder / "run.json").read_bytes()
        (folder / "run.json").write_bytes(DAMAGES[choose(generator)](whole, generator))
        sealed = False
    else:
        told = f"record, {_change_record(record, generator)}"
    if sealed:
        seal(folder, {name: value for name, value in record.items() if name not in ("format", "files", "seal")})
    elif told.startswith("record, "):
        (folder / "run.json").write_text(json.dumps(record))
    ended = run(stage.command("predict", place), Surroundings(place / "tmp"))
    verdict = ended.verdict()
    if verdict.outcome == CORRECT and not sealed:
        verdict = stage.compare("predict", place) or verdict
    if sealed and told.startswith("record, "):
        verdict = run(stage.command("report", place), Surroundings(place / "tmp")).failure() or verdict
    return f"run, {told}{', sealed again' if sealed else ''}", verdict


def _change_record(record: dict[str, Any], generator: random.Random) -> str:
    """Change a field of a run's record, however deep; in words."""
    within: Any = record
    path = []
    while isinstance(within, dict | list) and within:
        parent = within
        key = generator.choice(sorted(within) if isinstance(within, dict) else range(len(within)))
        path.append(str(key))
        within = parent[key]
        if generator.random() < 0.2:
            break
    value: Any = generator.choice(("../../../../etc/passwd", None, -1, 10**30, [], {}, "", "\x1b[31m", True, 0.5))
    parent[key] = value
    return f"{'.'.join(path[:4])[:60]} is {value!r}"


def play_parts(stage: Stage, place: Path, canary: Path, generator: random.Random) -> tuple[str, Verdict]:
    """Go on with an extraction whose parts are hostile: such parts must be dropped, and their rows made again."""
    from features.common.files import digest
    from features.store.cache_file import CacheFile
    from features.store.images_table import ImageFacts
    from features.store.parts import PartStore, Rows

    stage.copy(place, "run")
    file = place / "cache" / "train" / f"{NAME}.h5"
    opened, rows = CacheFile.open(file), rows_of(place / "cache", "train")
    half = opened.image_ids[: len(opened.image_ids) // 2]
    facts = (ImageFacts(SIDE, SIDE, 3, 8, 0.0, 50.0),) * len(half)
    features = np.stack([rows[name] for name in half])[:, np.newaxis].astype(np.float32)
    store = PartStore(file.with_suffix(".parts") / opened.fingerprint)
    store.add(Rows(half, tuple(opened.index[name] for name in half), features, facts))
    file.unlink()
    (part,) = store.folder.glob("*.npz")
    whole = part.read_bytes()
    told = generator.choice(("damaged", "of pickled objects", "of another width", "of other types", "not an archive"))
    archive = io.BytesIO()
    with np.load(io.BytesIO(whole[:-16])) as loaded:
        arrays = {name: loaded[name] for name in loaded.files}
    if told == "of pickled objects":
        np.savez(archive, **{name: np.array([Payload(canary)], object) for name in arrays})  # type: ignore[arg-type]
    elif told == "of another width":
        np.savez(archive, **{**arrays, "features": arrays["features"][..., :-1]})
    elif told == "of other types":
        np.savez(archive, **{**arrays, "features": arrays["features"].astype("U4"), "digests": np.zeros((1, 3))})
    else:
        archive.write(b"PK\x03\x04" + generator.randbytes(500))
    damage = choose(generator)
    content = archive.getvalue()
    part.write_bytes(DAMAGES[damage](whole, generator) if told == "damaged" else content + digest(content))
    ended = run(stage.command("extract", place), Surroundings(place / "tmp"))
    verdict = ended.verdict()
    if verdict.outcome == CORRECT:
        verdict = stage.compare("extract", place) or verdict
    return f"part {told}{', ' + damage if told == 'damaged' else ', with the right checksum'}", verdict


def play_fits(stage: Stage, place: Path, canary: Path, generator: random.Random) -> tuple[str, Verdict]:
    """Make a run again from kept fits that are hostile: they must be dropped, and made again."""
    stage.copy(place, "run")
    kept = sorted((stage.root / "cache" / "fits").glob("*.fit"))
    (place / "cache" / "fits").mkdir()
    damaged = generator.randrange(len(kept)) if kept else -1
    told = generator.choice(("damaged", "a pickle", "another's"))
    for number, path in enumerate(kept):
        content = path.read_bytes()
        if number == damaged or generator.random() < 0.3:
            other = generator.choice(kept).read_bytes()
            damaged_content = DAMAGES[choose(generator)](content, generator)
            content = {"damaged": damaged_content, "a pickle": pickle.dumps(Payload(canary)), "another's": other}[told]
        (place / "cache" / "fits" / path.name).write_bytes(content)
    return f"kept fit, {told}", _compared(stage, "run", place)


def play_study(stage: Stage, place: Path, canary: Path, generator: random.Random) -> tuple[str, Verdict]:
    """Go on with a study whose journal is damaged."""
    stage.copy(place, "search")
    (place / "study").mkdir()
    for path in (stage.root / "study").iterdir():
        if path.is_file():
            (place / "study" / path.name).write_bytes(path.read_bytes())
    journal = place / "study" / "study.journal"
    damage = choose(generator)
    journal.write_bytes(DAMAGES[damage](journal.read_bytes(), generator))
    ended = run(stage.command("search", place), Surroundings(place / "tmp"))
    verdict = ended.verdict()
    if verdict.outcome == CORRECT and not (place / "study" / "best.json").exists():
        verdict = Verdict(LOST, "the study has no best heads")
    return f"journal, {damage}", verdict


def _compared(stage: Stage, name: str, place: Path) -> Verdict:
    """Run a command whose end has to be the undisturbed one."""
    ended: Ended = run(stage.command(name, place), Surroundings(place / "tmp"))
    verdict = ended.verdict()
    if verdict.outcome == REJECTED:
        return Verdict(LOST, f"it does not go on: {verdict.story}")
    return (stage.compare(name, place) or verdict) if verdict.outcome == CORRECT else verdict


#: In the order of the cases' numbers.
WAYS: tuple[Play, ...] = (
    play_keras, play_onnx, play_run, play_run, play_parts, play_onnx, play_run, play_fits, play_study, play_run,
)  # fmt: skip


def play(stage: Stage, case: Case, folder: Path) -> Verdict:
    """Play a case, and look for the canary."""
    canary, place = folder / "canary", folder / "place"
    place.mkdir()
    way = WAYS[case.number % len(WAYS)]
    if way in (play_run, play_parts, play_fits, play_study):
        place.rmdir()
    story, verdict = way(stage, place, canary, case.random())
    if canary.exists():
        verdict = Verdict(EXECUTED, f"what it held was run; {verdict.story}")
    return verdict._replace(story=f"{story}: {verdict.story}")


MODELS = Kind(
    "models",
    200,
    "hostile .keras, .onnx and .skops files, sidecars, `run.json` (half of them sealed again, and "
    "shown by `classify report`, too), parts, kept fits and journals; many hold code that would make a file",
    "no such file; refused, or the undisturbed result where only kept work is hostile",
    one_by_one(play),
    batch=20,
    needs=("search", "predict"),
    modules=(*READING, *EXTRACTING, *LEARNING),
)
