"""scripts.benchmark_extract and benchmark_peers: what is timed, that peers compute the same, and what is refused."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from extract.backbones.table import BACKBONES
from extract.images.decoding import decode
from extract.images.reading import Reading
from extract.images.resizing import resize
from features.common.errors import InputError
from scripts.benchmark import app
from scripts.benchmark_extract import benchmark_extract, make_frozen
from scripts.benchmark_peers import PEERS, TIMM, Setting, _plain, build_module, check_peers
from tests import ROOT
from tests.extract.backbones.test_efficientnet_lite import draw_image


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    """What the command sets for its processes ends with the test."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")


@pytest.fixture
def paths(tmp_path):
    """Five different images of 96 x 96."""
    found = []
    for number in range(5):
        found.append(tmp_path / f"{number}.png")
        cv2.imwrite(str(found[-1]), np.roll(draw_image(96), 17 * number, axis=1)[..., ::-1])
    return found


def rows_of(printed: str) -> dict[str, list[str]]:
    """The figures of the table by way, and of the line below by its first word."""
    lines = [line.strip() for line in printed.splitlines()]
    first = next(number for number, line in enumerate(lines) if line.startswith("way "))
    return {line.split("  ")[0]: line.split("  ", 1)[-1].split() for line in lines[first + 1 :] if line}


def test_each_way_is_timed_beside_ours(capsys):
    benchmark_extract(6, 1, [("mobilenet",)], "keras,views8", "cpu")
    printed = capsys.readouterr().out
    assert "6 phantom slices of 512 x 512, CPU" in printed
    assert "mobilenet, random weights" in printed
    rows = rows_of(printed)
    ours = next(figures for title, figures in rows.items() if title.startswith(("ours, openvino", "ours, tensorflow")))
    for title in ("Keras' own loop", "ours, 8 views"):
        rate, ratio, least, _, most = rows[title]
        assert float(ratio) == pytest.approx(float(ours[0]) / float(rate), rel=0.1)
        assert (least, most) == (ratio, ratio)  # of one repeat
    assert "ours: device busy " in printed
    assert " of a float32 matrix product (" in printed
    assert " s for inceptionv3 + xception + resnet50 + efficientnetb2: ratio " in printed


def test_a_gpu_that_is_not_there_ends_in_one_message(monkeypatch):
    monkeypatch.setattr("scripts.benchmark_extract.device_name", lambda: "CPU")
    result = CliRunner().invoke(app, ["extract", "--device", "gpu"])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: --device gpu: Keras on tensorflow finds no GPU: ")
    assert result.stderr.count("\n") == 1


def test_peers_that_cannot_run_are_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr("scripts.benchmark_peers.find_spec", lambda name: None if name in ("timm", "grain") else True)
    with pytest.raises(InputError, match=r"--against openvino needs timm, not .* Run scripts/test_backends"):
        check_peers(["openvino"], ["resnet50"], gpu=False)
    check_peers(["keras"], ["nasnetmobile"], gpu=False)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(InputError, match=r"--against keras needs grain, not .* on jax reads .* pip install grain"):
        check_peers(["keras"], ["resnet50"], gpu=False)
    monkeypatch.setattr("scripts.benchmark_peers.find_spec", lambda name: True)
    with pytest.raises(InputError, match="--against onnxruntime is for CPUs"):
        check_peers(["torch", "onnxruntime"], ["resnet50"], gpu=True)
    with pytest.raises(InputError, match="--against torch: timm has no nasnetmobile"):
        check_peers(["torch"], ["resnet50", "nasnetmobile"], gpu=True)


def test_a_plain_loop_keeps_the_order_and_leaves_nothing_out(paths):
    shapes = []

    def infer(batches):
        batches = list(batches)
        shapes.append([batch.shape for batch in batches])
        return [batch.mean(axis=(1, 2), dtype=np.float32) for batch in batches]

    (backbone,) = make_frozen(("mobilenet",), "random")
    features = _plain(Setting(backbone, images=5, batch=2, gpu=False), infer)(paths)
    pixels = [resize(decode(path.read_bytes(), path.stem, Reading())[0], 224) for path in paths]
    assert np.allclose(features, np.stack(pixels).mean(axis=(1, 2)))
    assert len(np.unique(features[:, 0])) > 1
    assert shapes == [[(2, 224, 224, 3)], [(2, 224, 224, 3)] * 3]


def test_timm_has_all_backbones_but_one():
    assert {*BACKBONES} - {*TIMM} == {"nasnetmobile"}


@pytest.mark.backends
@pytest.mark.parametrize("name", TIMM)
def test_the_architectures_of_peers_are_those_of_the_table(name):
    import torch

    (backbone,) = make_frozen((name,), "random")
    with torch.device("meta"):
        module = build_module(backbone)
        features = module(torch.zeros(1, backbone.input_size, backbone.input_size, 3, dtype=torch.uint8))
    assert features.shape == (1, BACKBONES[name].width)
    heads = ("classifier", "fc", "head", "pre_logits", "last_linear", "conv_head", "classif")
    heads = tuple(f"maps.{head}." for head in heads if name == "mobilenetv3large" or head != "conv_head")
    held = {key: value.numel() for key, value in module.state_dict().items() if not key.startswith(heads)}
    # Keras' ResNet has biases in its convolutions, its Inception no scales in its batch norms: 0.1 %.
    assert sum(held.values()) == pytest.approx(BACKBONES[name].parameters, rel=2e-3)


@pytest.mark.backends
def test_the_peers_of_one_graph_give_the_same_features(paths, monkeypatch):
    import torch

    monkeypatch.setattr(torch, "compile", lambda module: module)  # a minute
    (backbone,) = make_frozen(("mobilenetv2",), "random")
    setting = Setting(backbone, images=5, batch=2, gpu=False)
    features = {name: PEERS[name].open(setting)[0](paths) for name in ("torch", "onnxruntime", "openvino")}
    assert features["torch"].shape == (5, 1280)
    for name in ("onnxruntime", "openvino"):
        assert np.abs(features[name] - features["torch"]).max() < 1e-3 * features["torch"].std(), name


@pytest.mark.backends
def test_pytorch_is_eager_where_it_does_not_compile_and_says_so(paths, monkeypatch):
    import torch

    def refuse(graph, examples):
        raise RuntimeError("no compiler\nis here")

    compile_by = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: compile_by(module, backend=refuse))
    (backbone,) = make_frozen(("mobilenetv2",), "random")
    extraction, note = PEERS["torch"].open(Setting(backbone, images=5, batch=2, gpu=False))
    assert note == "eager, as torch.compile fails (no compiler)"
    assert extraction(paths).shape == (5, 1280)


@pytest.mark.backends
def test_the_same_is_measured_on_jax():
    command = [sys.executable, "scripts/benchmark.py", "extract", "--images", "32", "--repeats", "1"]
    command += ["--backbones", "mobilenet", "--against", "mid"]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"ours, jax", "ours, last and mid"} <= rows_of(done.stdout).keys()
