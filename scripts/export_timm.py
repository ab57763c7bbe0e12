"""Write a model of timm as a backbone of Headbank: OUT.onnx, and OUT.json, which says how images enter it.

Runs in your own environment of PyTorch: pip install torch timm onnx onnxscript. Nothing of Headbank is needed.
WEIGHTS is a .safetensors or .pth file; `random` draws weights, for tests; without it timm downloads them.
Example: python export_timm.py vit_small_patch14_dinov2.lvd142m dino.onnx
Then: python -m extract run DATA --backbone NAME=OUT.onnx
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NoReturn

#: Pixels of a side of a DINOv2 without --size: its own 518 take five times the patches.
_DINOV2_SIZE = 224


def fail(message: str) -> NoReturn:
    """End with exit code 2 and one message."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def refuse_size(name: str, size: int, own_size: int, why: object) -> NoReturn:
    """End as `fail` does: a model does not take images of this size."""
    said = (str(why).strip() or type(why).__name__).splitlines()[0].removesuffix(".")
    fail(f"{name} does not take images of {size} x {size} pixels: {said}. Its own size: --size {own_size}.")


def main(arguments: list[str]) -> None:
    """Export the model that the arguments name."""
    parser = argparse.ArgumentParser(
        "export_timm.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help="a model of timm, such as resnet18.a1_in1k")
    parser.add_argument("weights", metavar="WEIGHTS", nargs="?", default="", help="a file, or random")
    parser.add_argument("out", metavar="OUT.onnx")
    parser.add_argument("--size", type=int, metavar="N", help="pixels of a side; else its own, or 224 of a DINOv2")
    options = parser.parse_intermixed_args(arguments)
    name, weights, out = options.name, options.weights, options.out
    if not out.endswith(".onnx"):
        fail(f"{out} does not end in .onnx. Name the file to write.")
    if options.size is not None and not 32 <= options.size <= 4096:
        fail(f"--size {options.size}: expected 32 to 4096 pixels.")
    target = Path(out)
    if not target.parent.is_dir():
        fail(f"{target.parent} is not a folder. Make it first.")
    try:
        import onnx  # noqa: F401 - torch.onnx needs them
        import onnxscript  # noqa: F401
        import timm
        import torch
    except ImportError as error:
        fail(f"{error.name} is not installed in {sys.executable}. Run: pip install torch timm onnx onnxscript")
    model, sidecar, own_size = build(timm, torch, name, weights, options.size)
    size = sidecar["size"]
    other = "" if size == own_size else f" instead of its own {own_size}; --size {own_size} keeps these"
    print(f"{name}: images of {size} x {size} pixels{other}; {sidecar['interpolation']} interpolation")
    example = torch.zeros(2, 3, size, size)
    try:
        width = model(example).shape[-1]
    except Exception as error:  # noqa: BLE001 - timm has no one error for it
        refuse_size(name, size, own_size, error)
    torch.onnx.export(
        model,
        (example,),
        str(target),
        input_names=["images"],
        output_names=["features"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    beside = target.with_suffix(".json")
    beside.write_text(json.dumps(sidecar, indent=2) + "\n", encoding="utf-8")
    print(f"{target} ({target.stat().st_size / 1e6:.1f} MB): images (N, 3, {size}, {size}) to features (N, {width})")
    print(f"{beside}: {json.dumps(sidecar)}")


def build(timm: Any, torch: Any, name: str, weights: str, size: int | None) -> tuple[Any, dict[str, Any], int]:
    """Build a model without its classifier, and describe how images enter it.

    Args:
        timm: the package.
        torch: the package.
        name: of the model, such as `resnet18.a1_in1k`.
        weights: a file, `random`, or "" for those that timm downloads.
        size: pixels of a side; None for its own, or of a DINOv2 224.

    Returns:
        The model, from (N, 3, S, S) to (N, D); the fields of the sidecar; and its own size.
    """
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:8]
        fail(f"timm {timm.__version__} has no model {name!r}. It has: {', '.join(near) or 'timm.list_models()'}.")
    config = timm.models.get_pretrained_cfg(name)
    if config is None:
        fail(f"timm {timm.__version__} says nothing of how images enter {name}. Name its weights, as name.tag.")
    if config.interpolation not in ("bilinear", "bicubic"):
        fail(f"{name} takes images resized by {config.interpolation}; Headbank resizes by bilinear or bicubic alone.")
    own_size = config.input_size[-1]
    size = size or (_DINOV2_SIZE if "dinov2" in name else own_size)
    options = {"img_size": size} if size != own_size and config.fixed_input_size else {}
    if weights and weights != "random" and not Path(weights).is_file():
        fail(f"{weights} is not a file. Give the weights of {name}, the word random, or nothing.")
    torch.manual_seed(0)
    try:
        model = timm.create_model(name, pretrained=not weights, num_classes=0, **options)
    except Exception as error:  # hub and network can fail in any way
        if weights and options:
            refuse_size(name, size, own_size, error)
        if weights:
            raise
        cause = (str(error).strip() or type(error).__name__).splitlines()[0]
        fail(f"the weights of {name} cannot be downloaded: {cause} Or give a file of weights: {name} WEIGHTS OUT.onnx.")
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    patch = max(patch) if isinstance(patch, tuple) else patch
    # Models of any size have patches that overlap, or fill the last ones.
    if config.fixed_input_size and isinstance(patch, int) and size % patch:
        refuse_size(name, size, own_size, f"they are not a multiple of its patches of {patch} pixels")
    if weights not in ("", "random"):
        try:
            found = timm.models.load_state_dict(weights)
            filter_fn = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
            found = filter_fn(found, model) if filter_fn else found
            missing = model.load_state_dict(found, strict=False).missing_keys
        except Exception as error:  # noqa: BLE001 - a file can be damaged in any way
            cause = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
            fail(f"{weights} does not hold weights of {name}: {cause}")
        if missing:
            fail(f"{weights} does not fit {name}: it has no {missing[0]} ({len(missing)} missing).")
    return (
        model.eval(),
        {
            "size": size,
            "layout": "NCHW",
            "mean": list(config.mean),
            "std": list(config.std),
            "interpolation": config.interpolation,
            "pooling": "none",
            "licence": config.license or "",
            "source": f"timm {timm.__version__}, {name}, {Path(weights).name or config.hf_hub_id or config.url}",
        },
        own_size,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
