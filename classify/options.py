"""The options of the commands of `python -m classify`, each declared once, and what can be checked before any import.

Importing this module loads neither numpy nor scikit-learn: a wrong name is reported at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from classify.ensembles.ensembles import CALIBRATIONS, ENSEMBLES
from classify.models.baselines import BASELINES, DEFAULT_BASELINES
from classify.models.heads import DEFAULT_PRESETS, OF_CHALLENGE, PRESETS, choose_heads
from classify.scores.metrics import CLASS_SELECTORS, MACRO_SELECTORS, THRESHOLD_RULES, ThresholdRule
from classify.scores.prevalence import parse_prevalences
from features.common.cli import choose_names, split_names
from features.common.commands import option_words, write_command
from features.common.errors import InputError
from features.options import (
    OF_DATASET,
    OF_IMAGES,
    CacheFolder,
    ClusterAddress,
    ClusterChoice,
    DatasetOptions,
    ExcelSafe,
)
from features.store.recipe import FEATURES, TTA

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin

    from classify.settings import Settings

#: Options that say where things are, or that change no result: `run.json` has its own words for them.
_NO_ARGUMENTS = ("data", "out", "overwrite", "note", "fits_gb", "cluster", "address")

#: What `--exclusive` takes.
EXCLUSIVE = ("auto", "yes", "no")

#: Options that are fields of `Settings` as they are.
_AS_GIVEN = ("folds", "repeats", "refit", "seed", "gap", "nested", "permutations", "select")

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.", show_default=False)]
FitsGb = Annotated[
    float, typer.Option(min=0, max=1e6, help="Gigabytes of fits to keep in CACHE/fits for later runs; 0 keeps none.")
]
ModelName = Annotated[
    str | None, typer.Option(metavar="NAME", help="A model of the run.", show_default="the run's final model")
]

Prevalences = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LABEL=SHARE",
        help="How common a label is where the model is used, such as epidural=0.01; repeatable.",
        show_default="its share of the training images",
    ),
]


Kinds = Annotated[
    str | None,
    typer.Option(
        metavar="A,B",
        help="Kinds of features to use: last, the average of the last map; mid, mid-level features.",
        show_default=f"mid, where they are cached; last with {' or '.join(OF_CHALLENGE)}",
    ),
]
Exclusive = Annotated[
    str,
    typer.Option(
        metavar=f"[{'|'.join(EXCLUSIVE)}]",
        help="Whether the labels are classes, of which each image has exactly one; auto: if all images have.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class RunOptions(DatasetOptions):
    """The options of `python -m classify run`."""

    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="Folder of the data set: train/, train.csv; optional test/, test.csv."),
    ]
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder to write to.")]
    cache: CacheFolder = None
    backbones: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Backbones to use, such as resnet50; at its own input size alone resnet50.native; or a file of CACHE, "
            "resnet50.mid.",
            show_default="all that are cached",
        ),
    ] = None
    features: Kinds = None
    tta: Annotated[
        str,
        typer.Option(
            metavar=f"[{'|'.join(TTA)}]",
            help="What is made of several cached views of an image: the mean of their features; none: the first alone.",
        ),
    ] = "mean"
    augment: Annotated[
        bool,
        typer.Option("--augment", help="Let heads learn from a cached view of each image, drawn again in each epoch."),
    ] = False
    folds: Annotated[int, typer.Option(min=2, help="Number of folds.")] = 5
    holdout: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of the training images to set aside and test on, by group and label; labels.csv names them.",
            show_default="none",
        ),
    ] = None
    repeats: Annotated[
        int,
        typer.Option(min=1, help="Times that other folds are drawn; out-of-fold probabilities are the mean over them."),
    ] = 1
    refit: Annotated[
        bool,
        typer.Option("--refit", help="Predict test by each model fitted on all rows, not by the mean over the folds'."),
    ] = False
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the folds, the heads and the intervals.")] = 0
    baselines: Annotated[str, typer.Option(metavar="A,B", help=f"Baselines: {', '.join(BASELINES)}.")] = ",".join(
        DEFAULT_BASELINES
    )
    preset: Annotated[
        str,
        typer.Option(metavar="A,B", help=f"Heads: {', '.join(PRESETS)}; files of presets (FILE.json); or none."),
    ] = ",".join(DEFAULT_PRESETS)
    ensemble: Annotated[
        str | None,
        typer.Option(metavar="A,B", help=f"Ensembles to make: {', '.join(ENSEMBLES)}; or none.", show_default="all"),
    ] = None
    select: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help=f"How the final model is chosen: best cross-fitted macro {', '.join(MACRO_SELECTORS)}; of exclusive "
            f"classes also {' or '.join(CLASS_SELECTORS)}; or a model's name.",
        ),
    ] = "roc_auc"
    calibration: Annotated[
        str,
        typer.Option(metavar=f"[{'|'.join(('none', *CALIBRATIONS))}]", help="Calibrate the final model, cross-fitted."),
    ] = "none"
    threshold: Annotated[
        str,
        typer.Option(metavar="RULE", help=f"Aim of thresholds: {', '.join(rule.form for rule in THRESHOLD_RULES)}."),
    ] = "f1"
    prevalence: Prevalences = None
    by: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="Also score subgroups of the images, by columns of the table such as scanner."
        ),
    ] = None
    gap: Annotated[
        bool, typer.Option("--gap", help="Also score by folds that cut groups: what the leak would be worth.")
    ] = False
    nested: Annotated[
        bool,
        typer.Option(
            "--nested", help="Run again without each fold, to score what choosing the final model is worth on new data."
        ),
    ] = False
    permutations: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Run again N times on labels shuffled by group: how often chance does as well as the final model.",
        ),
    ] = 0
    exclusive: Exclusive = "auto"
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Fits at a time; changes no result.", show_default="all cores")
    ] = None
    cluster: ClusterChoice = None
    address: ClusterAddress = None
    note: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What you want to know of this run later; decides nothing.")
    ] = None
    fits_gb: FitsGb = 2.0
    excel_safe: ExcelSafe = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that RUN holds.")] = False

    def arguments(self) -> dict[str, Any]:
        """What `run.json` records of them: plain values by name."""
        names = [field.name for field in fields(RunOptions) if field.name not in _NO_ARGUMENTS]
        values = {name: getattr(self, name) for name in names}
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}

    def settings(self, estimators: "Mapping[str, ClassifierMixin] | None" = None) -> "Settings":
        """Read what was chosen about folds and models.

        Args:
            estimators: baselines of a person's own, by the names that `baselines` has for them.

        Raises:
            InputError: a name is not known, or is duplicated.
        """
        estimators = estimators or {}
        known = (*BASELINES, *estimators)
        baselines = choose_names(self.baselines, "--baselines", "a baseline", known)
        heads = choose_heads(split_names(self.preset, "--preset") or (), {*known, *ENSEMBLES})
        ensembles = tuple(ENSEMBLES)
        if self.ensemble is not None:
            ensembles = choose_names(self.ensemble, "--ensemble", "an ensemble", ENSEMBLES, none=True)
        if self.calibration not in ("none", *CALIBRATIONS):
            names = ", ".join(CALIBRATIONS)
            raise InputError(f"--calibration: {self.calibration!r} is not a calibration. Expected {names}; or none.")
        check_exclusive(self.exclusive)
        if self.tta not in TTA:
            raise InputError(f"--tta: {self.tta!r} is none of {', '.join(TTA)}.")
        from joblib import cpu_count  # both here, as they take half a second, and asking for help needs neither

        from classify.settings import Settings

        cores = cpu_count()
        return Settings(
            **{name: getattr(self, name) for name in _AS_GIVEN},
            jobs=min(self.jobs or cores, cores) if self.cluster else self.jobs or cores,  # what is not a fit stays here
            baselines=baselines,
            heads=heads,
            ensembles=ensembles,
            calibration=None if self.calibration == "none" else self.calibration,
            threshold=ThresholdRule.parse(self.threshold),
            prevalences=parse_prevalences(self.prevalence),
            estimators=estimators,
        )


def choose_kinds(choice: str | None) -> tuple[str, ...] | None:
    """Read what `--features` takes; an `InputError` says which kinds there are."""
    return None if choice is None else choose_names(choice, "--features", "a kind of features", FEATURES)


def check_exclusive(choice: str) -> None:
    """Refuse, by an `InputError`, what `--exclusive` does not take."""
    if choice not in EXCLUSIVE:
        raise InputError(f"--exclusive: {choice!r} is none of {', '.join(EXCLUSIVE)}.")


def command_line(name: str, run: Path, record: Mapping[str, Any]) -> str:
    """Write the command that made a run or goes on from it, with the run's own data, cache and columns.

    Args:
        name: `classify run`, `extract heat`, `classify report` or `features audit`.
        run: the run's folder.
        record: its `run.json`: `data`, `cache`, `arguments`, `note`.

    Returns:
        The command, quoted for a shell.
    """
    data, cache, given = Path(record["data"]), Path(record["cache"]), record["arguments"]
    of_audit = {name: given.get(name) for name in (*OF_DATASET, "excel_safe")}
    words: dict[str, list[object]] = {
        "classify run": [data, "--out", run, *option_words({**given, "note": record.get("note")})],
        # Without labels and groups: it reads images, and of the tables only which row names which.
        "extract heat": [data, run, *option_words({name: given.get(name) for name in OF_IMAGES})],
        "classify report": [run],
        "features audit": [
            cache,
            "--data",
            data,
            "--run",
            run,
            *option_words(of_audit),
        ],
    }
    return write_command(name, *words[name])


@dataclass(frozen=True, kw_only=True)
class SearchOptions(DatasetOptions):
    """The options of `python -m classify search`."""

    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder of the data set: train.csv and train/.")]
    out: Annotated[Path, typer.Option(metavar="STUDY", help="Folder of the study; an existing study is continued.")]
    cache: CacheFolder = None
    backbones: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Backbones whose features the heads see side by side.",
            show_default="all that are cached",
        ),
    ] = None
    features: Kinds = None
    trials: Annotated[int, typer.Option(min=1, help="Trials that the study holds in the end.")] = 200
    minutes: Annotated[float, typer.Option(min=0.01, help="Time after which no trial is begun or trained.")] = 2.0
    batch: Annotated[int, typer.Option(min=1, help="Trials that are proposed and trained together.")] = 20
    folds: Annotated[int, typer.Option(min=2, help="Number of folds.")] = 3
    exclusive: Exclusive = "auto"
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of the folds, the proposals and the training.")
    ] = 0
    cluster: ClusterChoice = None
    address: ClusterAddress = None


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """The options of `python -m classify predict`."""

    run: RunFolder
    cache: Annotated[Path, typer.Option(metavar="CACHE", help="Folder of the features.")]
    split: Annotated[str, typer.Option(metavar="NAME", help="The split of the cache to predict.")]
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write to.")]
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The images that were extracted: only these are predicted, in the order of their ids; they are not "
            "opened.",
            show_default="every image that the cache holds",
        ),
    ] = None
    model: ModelName = None
    prevalence: Prevalences = None
    heat: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Write DIR/gradients.h5 for extract heat: the N surest images a label."),
    ] = 0
    excel_safe: ExcelSafe = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the predictions that DIR holds.")] = False


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """The options of `python -m classify export`."""

    run: RunFolder
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="What to write: NAME.keras, NAME.onnx, NAME.xml for OpenVINO, or a folder for a SavedModel.",
            show_default=False,
        ),
    ]
    model: ModelName = None
    weights_dir: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder that may hold the ImageNet weights, under Keras' names."),
    ] = None
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Export the cheapest model that is as good: within 0.005 of its AUC."),
    ] = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what OUT and OUT.md hold.")] = False


@dataclass(frozen=True, kw_only=True)
class GradientsOptions:
    """The options of `python -m classify gradients`."""

    run: RunFolder
    cache: Annotated[
        Path | None,
        typer.Option(metavar="CACHE", help="Folder of the features.", show_default="the one that RUN learnt from"),
    ] = None
    model: ModelName = None
    ids: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Ids of the images to show, at all labels, in every split of CACHE that has them.",
            show_default="those of the run's gallery",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """The options of `python -m classify compare`."""

    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN1 RUN2 ...",
            help="Folders of finished runs; the first is what the others are compared with.",
            show_default=False,
        ),
    ]
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="A model of all runs.", show_default="each run's final model")
    ] = None
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The page to write; an earlier comparison there is replaced.")
    ] = Path("compare.html")


@dataclass(frozen=True, kw_only=True)
class LearnOptions:
    """The options of `python -m classify learn`."""

    run: RunFolder
    model: ModelName = None
    draws: Annotated[int, typer.Option(min=1, help="Times that each share of the groups is drawn.")] = 3
    fits_gb: FitsGb = 2.0
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Fits at a time; changes no result.", show_default="all cores")
    ] = None
