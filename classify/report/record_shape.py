"""Check that run.json holds what the report shows of it."""

from typing import Any

_NUMBER = (int, float)
_REASON = dict.fromkeys(("model", "split", "label", "metric", "reason"), str)
#: Types by name: a tuple is any of its types, a list holds items of one shape, `...` stands for every other name, and a
#: name that ends in `?` may lack.
_SHAPE: dict[Any, Any] = {
    "data": str,
    "cache": str,
    "arguments": {"seed": int},
    "seconds": {"read": _NUMBER, "fit": _NUMBER},
    "versions": {...: str},
    "labels": [str],
    "backbones": {...: {"width": int, "recipe?": {"weights": str, "preprocessing": str, "input_size": int}}},
    "splits": {
        "train": {"positives": {...: int}},
        ...: {"images": int, "rejected": [str], "positives": (dict, type(None)), "fingerprints": {...: str}},
    },
    "folds": {
        "count": int,
        "repeats": int,
        "groups": (int, type(None)),
        "rows": [int],
        "positives": {...: [int]},
    },
    "models": {
        ...: {
            "converged": bool,
            "fit_seconds": _NUMBER,
            "backbones": [str],
            "shares": {...: _NUMBER},
            "members": [str],
            "spec?": {"epochs": int},
            "best_epochs?": [int],
        }
    },
    "final_model": str,
    "selection": {"rule": str, "means": str},
    "calibration": (str, type(None)),
    "thresholds": {"rule": str},
    "intervals": {"percentiles": [_NUMBER], "draws": int, "unit": str},
    "undefined_metrics": [_REASON],
    "incomplete_intervals": [_REASON],
    "warnings": [str],
}


def check_record(record: Any) -> None:
    """Refuse a record of another shape, or one that contradicts itself.

    Args:
        record: what `run.json` holds.

    Raises:
        ValueError: the message says what lacks or is of another kind, and where.
    """
    _check(record, _SHAPE, "")
    labels, models, backbones = record["labels"], record["models"], record["backbones"]
    if not labels or len(set(labels)) < len(labels):
        raise ValueError("it names no labels, or one twice")
    if record["final_model"] not in models:
        raise ValueError(f"its final model {record['final_model']!r} is none of its models")
    for name, split in record["splits"].items():
        _check_names(backbones, split["fingerprints"], f"splits.{name}.fingerprints")
        if split["positives"] is not None:
            _check_names(labels, split["positives"], f"splits.{name}.positives")
    folds = record["folds"]
    _check_names(labels, folds["positives"], "folds.positives")
    for where, counts in (("rows", folds["rows"]), *folds["positives"].items()):
        if len(counts) != folds["count"] or (where == "rows" and 0 in counts):
            raise ValueError(f"folds.{where} is not of {folds['count']} folds")
    for name, entry in models.items():
        if ("spec" in entry) != ("best_epochs" in entry):
            raise ValueError(f"models.{name} lacks its spec or its best_epochs")
    if len(record["intervals"]["percentiles"]) != 2:
        raise ValueError("intervals.percentiles are not two")


def _check_names(wanted: Any, found: Any, where: str) -> None:
    """Refuse a part that lacks a name."""
    lacking = [name for name in wanted if name not in found]
    if lacking:
        raise ValueError(f"{where} lacks {lacking[0]!r}")


def _check(value: Any, shape: Any, where: str) -> None:
    """Compare a part with its shape; `where` is its path."""
    if isinstance(shape, dict):
        _check_kind(value, dict, where)
        for name, inner in shape.items():
            if name is ...:
                for key in value:
                    _check(value[key], inner, f"{where}.{key}")
            elif name.removesuffix("?") in value:
                key = name.removesuffix("?")
                _check(value[key], inner, f"{where}.{key}")
            elif not name.endswith("?"):
                raise ValueError(f"{f'{where}.{name}'.lstrip('.')} is missing")
    elif isinstance(shape, list):
        _check_kind(value, list, where)
        for index, item in enumerate(value):
            _check(item, shape[0], f"{where}[{index}]")
    else:
        _check_kind(value, shape, where)


def _check_kind(value: Any, kind: Any, where: str) -> None:
    """Refuse a value of another type."""
    if not isinstance(value, kind):
        raise ValueError(f"{where.lstrip('.') or 'the whole of it'} is of type {type(value).__name__}")
