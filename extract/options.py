"""The options of the commands of `python -m extract`, each declared once. Importing this module loads no numpy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from extract.backbones.table import CHALLENGE, EMBEDDED
from extract.images.reading import MAX_PIXELS, Ranges
from extract.scans.windows import WINDOW_CHOICES
from features.options import CacheFolder, ClusterAddress, ClusterChoice, DatasetOptions, ImageOptions
from features.store.recipe import FEATURES

WeightsChoice = Annotated[
    str, typer.Option(help="imagenet, random (seeded), or a folder with {backbone}.weights.h5 files.")
]
WeightsDir = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Folder that may hold the ImageNet weights, under Keras' names."),
]
ScanWindow = Annotated[
    str | None,
    typer.Option(
        metavar="W",
        help=f"Intensity window of DICOM and NIfTI: {WINDOW_CHOICES}.",
        show_default="that of the cache, or brain for CT of the head",
    ),
]
OwnModels = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=FILE",
        help="A model of your own: name=file.keras or name=file.onnx. May be given several times.",
    ),
]
Pooling = Annotated[
    Literal["cls", "mean", "cls+mean"] | None,
    typer.Option(
        help="What becomes of the tokens (B, T, D) of a model of your own: the first one, of the class; the mean of "
        "those of the image; or both.",
        show_default="none: it gives no tokens",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ExtractOptions(ImageOptions):
    """The options of `python -m extract run`."""

    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder with train/ and test/.", show_default=False)]
    backbones: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help=f"Backbones. Without any download: {', '.join(EMBEDDED)}. All: python -m extract list.",
            show_default=", ".join(CHALLENGE),
        ),
    ] = None
    backbone: OwnModels = None
    layer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The layer of a model of your own that gives the features; maps are averaged.",
            show_default="its last one",
        ),
    ] = None
    taps: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="The two layers of a model of your own that give the mid-level features.",
            show_default="the last outputs of blocks at its two coarsest resolutions",
        ),
    ] = None
    pooling: Pooling = None
    features: Annotated[
        str,
        typer.Option(
            metavar="A,B",
            help="What one pass gives: last, the average of the last map; mid, average, maximum and deviation of the "
            "last maps at stride 16 and 32.",
        ),
    ] = ",".join(FEATURES)
    sizes: Annotated[
        str,
        typer.Option(
            metavar="A,B",
            help="Input sizes of the backbones, in pixels: native is each one's own; features of another size have "
            "names such as resnet50.384.",
        ),
    ] = "native"
    views: Annotated[
        str | None,
        typer.Option(
            metavar="N|hflip",
            help="Views of each image: the plain one and N - 1 random ones; or the plain one and its mirror image.",
            show_default="as in CACHE, else 1",
        ),
    ] = None
    ranges: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=VALUE,...",
            help="How far random views may be from the plain one.",
            show_default=f"as in CACHE, else {Ranges()}",
        ),
    ] = None
    cache: CacheFolder = None
    weights: WeightsChoice = "imagenet"
    weights_dir: WeightsDir = None
    precision: Annotated[
        Literal["float32", "mixed"],
        typer.Option(help="Arithmetic; mixed is float16 where it is safe, meant for GPUs."),
    ] = "float32"
    dtype: Annotated[Literal["float32", "float16"], typer.Option(help="Stored type; float16 takes half.")] = "float32"
    engine: Annotated[
        Literal["auto", "tensorflow", "openvino"],
        typer.Option(help="What computes; auto: OpenVINO on a CPU where it is installed, else Keras' backend."),
    ] = "auto"
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=4096,
            help="Images a batch; on a CPU rounded up to a multiple of those computed at a time.",
            show_default="by the device",
        ),
    ] = None
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that read and decode.", show_default="one a core")
    ] = None
    range: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH|auto",
            help="Stored values of 16-bit images that become black and white; auto: almost all that train has.",
            show_default="as in CACHE, else auto",
        ),
    ] = None
    fit: Annotated[
        Literal["squash", "pad", "crop"] | None,
        typer.Option(
            help="How images become square: squashed, padded with black, or cropped to the square in the middle.",
            show_default="as in CACHE, else squash",
        ),
    ] = None
    orientation: Annotated[
        Literal["exif", "stored"] | None,
        typer.Option(
            help="exif: tags turn images upright; stored: only those of TIFF files do, as in early caches.",
            show_default="as in CACHE, else exif",
        ),
    ] = None
    window: ScanWindow = None
    max_pixels: Annotated[
        int, typer.Option(min=1, metavar="N", help="Images with more pixels are rejected before they are decoded.")
    ] = MAX_PIXELS
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Read DATA as a folder of images, without CSV files: the split NAME of the cache.",
        ),
    ] = None
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be done, the time and the room; extract some images to tell."),
    ] = False
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="Extract the share K of N alone, such as 3/16, beside the others; assemble puts them together.",
            show_default="all images",
        ),
    ] = None
    cluster: ClusterChoice = None
    address: ClusterAddress = None
    actor_cpus: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Cores of an actor of the cluster.", show_default="all of a machine, by its GPUs"
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(DatasetOptions):
    """The options of `python -m extract finetune`."""

    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder with train/ and its labels.", show_default=False)]
    backbone: Annotated[
        str, typer.Option(metavar="NAME", help="A backbone of the table; its rows are called NAME.tuned.")
    ]
    unfreeze: Annotated[
        str,
        typer.Option(
            metavar="BLOCKS", help="Blocks that are trained, from the first one named to the end, such as block14."
        ),
    ]
    lr: Annotated[float, typer.Option(help="Learning rate of Adam, for blocks and head.")] = 1e-5
    epochs: Annotated[int, typer.Option(min=1, max=10_000, help="Epochs at most.")] = 30
    patience: Annotated[
        int, typer.Option(min=1, help="Epochs without a lower loss on groups set aside, after which training ends.")
    ] = 5
    batch_size: Annotated[int, typer.Option(min=1, max=4096, help="Images a batch.")] = 32
    augment: Annotated[
        bool, typer.Option("--augment", help="Read images again in each epoch, a random view of each; slow on a CPU.")
    ] = False
    ranges: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=VALUE,...",
            help="How far random views may be from the plain one.",
            show_default=str(Ranges()),
        ),
    ] = None
    folds: Annotated[int, typer.Option(min=2, max=100, help="As of the runs that use the features.")] = 5
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="As of these runs.")] = 0
    features: Annotated[
        str, typer.Option(metavar="A,B", help="What the backbones give: last, mid, as of extract run.")
    ] = ",".join(FEATURES)
    cache: CacheFolder = None
    weights: WeightsChoice = "imagenet"
    weights_dir: WeightsDir = None
    precision: Annotated[
        Literal["float32", "mixed"],
        typer.Option(help="Arithmetic of the training; mixed is float16 where it is safe, meant for GPUs."),
    ] = "float32"
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that read and decode.", show_default="one a core")
    ] = None
    window: ScanWindow = None


@dataclass(frozen=True, kw_only=True)
class AssembleOptions:
    """The options of `python -m extract assemble`."""

    cache: Annotated[Path, typer.Argument(metavar="CACHE", help="Folder of the cache.", show_default=False)]


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """The options of `python -m extract check`."""

    backbones: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Backbones.", show_default="those whose ImageNet weights are on this machine"),
    ] = None
    backbone: OwnModels = None
    pooling: Pooling = None
    weights_dir: WeightsDir = None


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(ImageOptions):
    """The options of `python -m extract convert`."""

    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder with train/ and test/.", show_default=False)]
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make; absent or empty.", show_default=False)]
    window: ScanWindow = None


@dataclass(frozen=True, kw_only=True)
class HeatOptions(ImageOptions):
    """The options of `python -m extract heat`."""

    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="The data set, or the folder of predicted images.", show_default=False),
    ]
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="Folder with gradients.h5: of a run, or of predictions made with --heat.",
            show_default=False,
        ),
    ]
    weights_dir: WeightsDir = None
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Read DATA as the folder of the images of the split NAME."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ThumbnailOptions(ImageOptions):
    """The options of `python -m extract thumbnails`."""

    data: Annotated[Path, typer.Argument(metavar="DATA", help="Data set of the cache.", show_default=False)]
    cache: Annotated[
        Path | None, typer.Option(metavar="CACHE", help="Folder of the features.", show_default="DATA's own")
    ] = None
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Read DATA as the folder of the images of the split NAME."),
    ] = None
