"""scripts/export_timm.py: which size and interpolation it takes; tests/extract/test_backends.py runs what it writes."""

import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from scripts.export_timm import build, main


def timm_of(**config: object) -> MagicMock:
    """Stands in for timm, with one model of this configuration."""
    known = {"input_size": (3, 224, 224), "fixed_input_size": True, "interpolation": "bicubic"}
    known |= {"mean": (0, 0, 0), "std": (1, 1, 1), "license": "", "hf_hub_id": "", "url": ""}
    timm = MagicMock()
    timm.__version__ = "1.0"
    timm.models.get_pretrained_cfg.return_value = SimpleNamespace(**{**known, **config})
    return timm


@pytest.mark.parametrize(
    ("name", "own", "fixed", "asked", "size", "options"),
    [
        ("vit_small_patch14_dinov2", 518, True, None, 224, {"img_size": 224}),
        ("vit_small_patch14_dinov2", 518, True, 518, 518, {}),
        ("vit_base_patch16_384", 384, True, None, 384, {}),
        ("eva02_large_patch14_448", 448, True, 224, 224, {"img_size": 224}),
        ("resnet18", 288, False, None, 288, {}),
        ("resnet18", 224, False, 384, 384, {}),
    ],
)
def test_a_model_keeps_its_own_size_but_for_dinov2_unless_another_is_asked_for(name, own, fixed, asked, size, options):
    timm = timm_of(input_size=(3, own, own), fixed_input_size=fixed, interpolation="bilinear")
    _, sidecar, own_size = build(timm, MagicMock(), name, "random", asked)
    assert (sidecar["size"], own_size, sidecar["interpolation"]) == (size, own, "bilinear")
    timm.create_model.assert_called_once_with(name, pretrained=False, num_classes=0, **options)


def test_an_interpolation_that_headbank_does_not_have_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        build(timm_of(interpolation="lanczos"), MagicMock(), "net", "random", None)
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "error: net takes images resized by lanczos; Headbank resizes by bilinear or bicubic alone.\n"
    )


def test_weights_that_cannot_be_downloaded_are_one_message(capsys):
    timm = timm_of(interpolation="bicubic")
    timm.create_model.side_effect = RuntimeError("no hub here. Run `pip install hub`.\nmore")
    with pytest.raises(SystemExit) as caught:
        build(timm, MagicMock(), "net", "", None)
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "error: the weights of net cannot be downloaded: no hub here. Run `pip install hub`. "
        "Or give a file of weights: net WEIGHTS OUT.onnx.\n"
    )


@pytest.mark.parametrize(
    ("patch", "fixed", "refused"), [((14, 14), True, True), (16, True, True), ((7, 7), False, False)]
)
def test_a_size_that_is_not_a_multiple_of_the_patches_is_refused(capsys, patch, fixed, refused):
    timm = timm_of(fixed_input_size=fixed)
    timm.create_model.return_value.patch_embed.patch_size = patch
    build(timm, MagicMock(), "vit", "random", 224)
    if not refused:
        build(timm, MagicMock(), "vit", "random", 225)
        return
    with pytest.raises(SystemExit) as caught:
        build(timm, MagicMock(), "vit", "random", 225)
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "error: vit does not take images of 225 x 225 pixels: they are not a multiple of its patches of "
        f"{patch if isinstance(patch, int) else patch[0]} pixels. Its own size: --size 224.\n"
    )


@pytest.mark.parametrize("stage", ["create", "run"])
def test_a_size_that_a_model_does_not_take_is_one_message(capsys, monkeypatch, tmp_path, stage):
    timm, torch = timm_of(), MagicMock()
    fault = AssertionError("Height (150) should be divisible.\nmore")
    if stage == "create":
        timm.create_model.side_effect = fault
    else:
        timm.create_model.return_value.eval.return_value.side_effect = fault
    for name, module in {"timm": timm, "torch": torch, "onnx": MagicMock(), "onnxscript": MagicMock()}.items():
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(SystemExit) as caught:
        main(["vit", "random", str(tmp_path / "vit.onnx"), "--size", "150"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "error: vit does not take images of 150 x 150 pixels: Height (150) should be divisible. Its own size: "
        "--size 224.\n"
    )
    torch.onnx.export.assert_not_called()


@pytest.mark.parametrize("stage", ["read", "fit"])
def test_weights_that_are_damaged_or_of_another_model_are_one_message(capsys, tmp_path, stage):
    (tmp_path / "net.pth").write_text("garbage")
    timm = timm_of()
    of_stage = timm.models if stage == "read" else timm.create_model.return_value
    of_stage.load_state_dict.side_effect = RuntimeError("Errors in loading:\n\tsize mismatch for fc")
    with pytest.raises(SystemExit) as caught:
        build(timm, MagicMock(), "net", str(tmp_path / "net.pth"), None)
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/net.pth does not hold weights of net: size mismatch for fc\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["net"], "the following arguments are required: OUT.onnx"),
        (["net", "random", "net.pth"], "error: net.pth does not end in .onnx"),
        (["net", "--size", "9", "net.onnx"], "error: --size 9: expected 32 to 4096 pixels."),
        (["net", "--size", "big", "net.onnx"], "argument --size: invalid int value: 'big'"),
    ],
)
def test_wrong_arguments_are_one_message(capsys, arguments, said):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
