"""What the tests of stage 1 share: Keras is imported once, and so is the tiny model."""

import pytest

from features.common.keras_import import import_keras


@pytest.fixture(scope="session")
def own_model(tmp_path_factory):
    """The file of a tiny model of one's own: 16 x 16 pixels to 4 features."""
    keras = import_keras()
    keras.utils.set_random_seed(3)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Rescaling(1 / 255, name="rescaling"),
            layers.Conv2D(4, 3),
            layers.ReLU(name="re_lu"),
        ]
    )
    path = tmp_path_factory.mktemp("model") / "own.keras"
    model.save(path)
    return path
