"""Write a model of timm as a backbone of Headbank: OUT.onnx, and OUT.json, which says how images enter it.

Runs in your own environment of PyTorch: pip install torch timm onnx onnxscript. Nothing of Headbank is needed.
Usage: python export_timm.py NAME [WEIGHTS] OUT.onnx     e.g. vit_small_patch14_dinov2.lvd142m dino.onnx
WEIGHTS is a .safetensors or .pth file; `random` draws weights, for tests; without it timm downloads them.
Then: python -m extract run DATA --backbone NAME=OUT.onnx
"""

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

#: Pixels of a side: models that take any size of patches have by default one that is slow, DINOv2 518.
_VIT_SIZE = 224


def fail(message: str) -> NoReturn:
    """End with exit code 2 and one message."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def main(arguments: list[str]) -> None:
    """Export the model that the arguments name."""
    if arguments in (["-h"], ["--help"]):
        print(__doc__)
        return
    if len(arguments) not in (2, 3) or not arguments[-1].endswith(".onnx"):
        fail(f"export_timm.py takes NAME [WEIGHTS] OUT.onnx; received {' '.join(arguments) or 'nothing'}.")
    name, *weights, out = arguments
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
    model, sidecar = build(timm, torch, name, weights[0] if weights else "")
    size = sidecar["size"]
    example = torch.zeros(2, 3, size, size)
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
    width = model(example).shape[-1]
    print(f"{target} ({target.stat().st_size / 1e6:.1f} MB): images (N, 3, {size}, {size}) to features (N, {width})")
    print(f"{beside}: {json.dumps(sidecar)}")


def build(timm: Any, torch: Any, name: str, weights: str) -> tuple[Any, dict[str, Any]]:
    """Build a model without its classifier, and describe how images enter it.

    Args:
        timm: the package.
        torch: the package.
        name: of the model, such as `resnet18.a1_in1k`.
        weights: a file, `random`, or "" for those that timm downloads.

    Returns:
        The model, from (N, 3, S, S) to (N, D); and the fields of the sidecar.
    """
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:8]
        fail(f"timm {timm.__version__} has no model {name!r}. It has: {', '.join(near) or 'timm.list_models()'}.")
    config = timm.models.get_pretrained_cfg(name)
    if config is None:
        fail(f"timm {timm.__version__} says nothing of how images enter {name}. Name its weights, as name.tag.")
    size = config.input_size[-1]
    options = {}
    if size > _VIT_SIZE and name.startswith(("vit_", "eva")):
        options["img_size"] = size = _VIT_SIZE
    if weights and weights != "random" and not Path(weights).is_file():
        fail(f"{weights} is not a file. Give the weights of {name}, the word random, or nothing.")
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=not weights, num_classes=0, **options)
    if weights not in ("", "random"):
        from timm.models import load_state_dict

        found = load_state_dict(weights)
        filter_fn = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
        found = filter_fn(found, model) if filter_fn else found
        missing = model.load_state_dict(found, strict=False).missing_keys
        if missing:
            fail(f"{weights} does not fit {name}: it has no {missing[0]} ({len(missing)} missing).")
    return model.eval(), {
        "size": size,
        "layout": "NCHW",
        "mean": list(config.mean),
        "std": list(config.std),
        "interpolation": config.interpolation if config.interpolation in ("bilinear", "bicubic") else "bicubic",
        "pooling": "none",
        "licence": config.license or "",
        "source": f"timm {timm.__version__}, {name}, {Path(weights).name or config.hf_hub_id or config.url}",
    }


if __name__ == "__main__":
    main(sys.argv[1:])
