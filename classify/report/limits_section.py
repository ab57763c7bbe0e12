"""What the report says of a run's limits: what was measured how, and what made it."""

from typing import Any

from classify.options import command_line
from classify.report.run_files import RunFiles


def describe_limits(run: RunFiles) -> dict[str, Any]:
    """Gather what made the run, for the section at the page's end."""
    record = run.record
    return {
        "command": command_line("classify run", run.folder, record),
        "versions": record["versions"],
        "backbones": {name: {"recipe": None} | backbone for name, backbone in record["backbones"].items()},
        "fingerprints": {name: split["fingerprints"] for name, split in record["splits"].items()},
        "folds": record["folds"],
        "intervals": record["intervals"],
        "undefined": record["undefined_metrics"],
        "incomplete": record["incomplete_intervals"],
        "seconds": record["seconds"],
        "arguments": record["arguments"],
        "not_converged": [name for name, entry in record["models"].items() if not entry["converged"]],
    }
