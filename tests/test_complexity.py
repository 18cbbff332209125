import keras
import pytest

from keras_deartifact.complexity import multiply_accumulates, parameters
from keras_deartifact.models import GENERATORS, make_generator
from keras_deartifact.models.folding import FoldingConv2D

# Multiply-accumulates of a 1280x720 frame that each generator is allowed (DESIGN.md, section 5).
BUDGETS = {
    "residual": 301e9,
    "fast": 51e9,
    "very_fast": 5.5e9,
    "arcnn": 109e9,
    "shuffle_pico": 2e9,
    "shuffle_nano": 5e9,
    "shuffle_small": 40e9,
}


class Toy(keras.Model):
    """One layer on the images; the map is not used."""

    size_multiple = 16

    def __init__(self, layer, pooled=False, channels=3):
        super().__init__()
        self.layer, self.pooled, self.channels = layer, pooled, channels

    def call(self, inputs):
        images, _ = inputs
        return self.layer(keras.ops.mean(images, axis=(1, 2)) if self.pooled else images)


def test_shuffle_nano_by_hand():
    # A cell of 4x4 pixels; what runs at cells of 8x8 counts a quarter.
    cell = (
        48 * 24  # to_planes, 1x1
        + 4 * 16 * 64  # luma bank, 2x2
        + 4 * 8 * 32  # chroma bank, 2x2
        + 96 * 32  # entry
        + 1 * 32  # step_entry
        + 4 * 9 * 32 * 32  # four 3x3 at 4x4 cells
        + (4 * 32 * 64 + 2 * 9 * 64 * 64 + 64 * 128) // 4  # down 2x2, two 3x3, up
        + 32 * (96 + 96 + 48)  # gate, coefficient and pixel corrections
        + 4 * 64 * 16  # transposed luma bank
        + 4 * 32 * 8  # transposed chroma bank
        + 24 * 48  # to_pixels
    )
    assert cell == 82720
    generator = make_generator("shuffle_nano")
    assert multiply_accumulates(generator) == cell * (720 // 4) * (1280 // 4)
    assert multiply_accumulates(generator, 16, 48) == cell * 4 * 12
    assert multiply_accumulates(generator.fold()) == multiply_accumulates(generator)


def test_luma_by_hand():
    # The same without what concerns chroma, see above.
    cell = (
        4 * 16 * 64  # luma bank, 2x2
        + 64 * 32  # entry
        + 1 * 32  # step_entry
        + 4 * 9 * 32 * 32  # four 3x3 at 4x4 cells
        + (4 * 32 * 64 + 2 * 9 * 64 * 64 + 64 * 128) // 4  # down 2x2, two 3x3, up
        + 32 * (64 + 64 + 16)  # gate, coefficient and pixel corrections
        + 4 * 64 * 16  # transposed luma bank
    )
    generator = make_generator("shuffle_nano", channels=1)
    assert multiply_accumulates(generator) == cell * (720 // 4) * (1280 // 4)
    assert multiply_accumulates(Toy(keras.layers.Conv2D(5, 3, padding="same"), channels=1), 16, 32) == 512 * 5 * 9


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_budget(name):
    assert 0.75 * BUDGETS[name] < multiply_accumulates(make_generator(name)) <= BUDGETS[name]


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        # 16x32 outputs of 5 channels, 3x3 of 3 inputs; the stride leaves a quarter of them.
        (keras.layers.Conv2D(5, 3, padding="same"), 512 * 5 * 27),
        (keras.layers.Conv2D(5, 3, strides=2, padding="same"), 128 * 5 * 27),
        (keras.layers.Conv2D(5, (1, 3), padding="valid"), 16 * 30 * 5 * 9),
        # Each group sees one of the three inputs.
        (keras.layers.Conv2D(6, 3, groups=3, padding="same"), 512 * 6 * 9),
        # Two outputs a channel, one input each.
        (keras.layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), 512 * 6 * 9),
        (keras.layers.DepthwiseConv2D(3, strides=2, padding="same"), 128 * 3 * 9),
        (keras.layers.SeparableConv2D(7, 3, padding="same"), 512 * (3 * 9 + 3 * 7)),
        # Every one of 512 * 3 inputs meets 4x4 taps of 5 outputs.
        (keras.layers.Conv2DTranspose(5, 4, strides=2, padding="same"), 512 * 3 * 16 * 5),
        (FoldingConv2D(3), 512 * 3 * 27),
        (keras.layers.ReLU(), 0),
    ],
    ids=lambda value: value.name if isinstance(value, keras.layers.Layer) else None,
)
def test_layers_by_hand(layer, expected):
    assert multiply_accumulates(Toy(layer), 16, 32) == expected


def test_matrix_product_by_hand():
    assert multiply_accumulates(Toy(keras.layers.Dense(7), pooled=True), 16, 32) == 3 * 7


@pytest.mark.parametrize("transposed", [False, True])
def test_products_of_many_matrices_by_hand(transposed):
    # 16 rows of 32 pixels by 3 channels, with the channels or with the pixels multiplied by themselves.
    def product(images):
        across = keras.ops.swapaxes(images, -1, -2)
        return keras.ops.matmul(across, images) if transposed else keras.ops.matmul(images, across)

    expected = 16 * 3 * 3 * 32 if transposed else 16 * 32 * 32 * 3
    assert multiply_accumulates(Toy(keras.layers.Lambda(product)), 16, 32) == expected


def test_images_alone_by_hand():
    class Alone(keras.Model):
        size_multiple, channels = 16, 3

        def __init__(self):
            super().__init__()
            self.layer = keras.layers.Conv2D(5, 3, padding="same")

        def call(self, inputs):
            return self.layer(inputs)

    assert multiply_accumulates(Alone(), 16, 32, takes_map=False) == 512 * 5 * 27


@pytest.mark.parametrize(("height", "width"), [(720, 1290), (17, 16)])
def test_size_is_no_multiple(height, width):
    with pytest.raises(ValueError, match=f"Expected multiples of 16. Received: height={height}, width={width}"):
        multiply_accumulates(Toy(keras.layers.ReLU()), height, width)


@pytest.mark.parametrize(
    ("channels", "folded", "expected"),
    [
        (3, False, 3 * 3 * 3 * 5 + 5 + 3 * 5),  # kernel, bias, 1x1
        (5, False, 3 * 3 * 5 * 5 + 5 + 5 * 5 + 5),  # and the identity
        (5, True, 3 * 3 * 5 * 5 + 5),
    ],
)
def test_parameters_by_hand(channels, folded, expected):
    layer = FoldingConv2D(5, folded=folded)
    layer.build((None, None, None, channels))
    assert parameters(layer) == expected


def test_parameters_of_shuffle_nano_by_hand():
    fixed = 96 + 48 * 24 + 4 * 16 * 64 + 4 * 8 * 32 + 4 * 64 * 16 + 4 * 32 * 8 + 24 * 48
    trunk = (96 * 32 + 32) + 32 + (4 * 32 * 64 + 64) + (64 * 128 + 128) + (32 * 96 + 96) + 32 * 96 + 32 * 48
    convolutions = 4 * (9 * 32 * 32 + 32) + 2 * (9 * 64 * 64 + 64)
    branches = 4 * (32 * 32 + 32) + 2 * (64 * 64 + 64)
    generator = make_generator("shuffle_nano")
    assert parameters(generator) == fixed + trunk + convolutions + branches
    assert parameters(generator.fold()) == fixed + trunk + convolutions


def test_parameters_leave_out_what_is_not_trained():
    layer = keras.layers.BatchNormalization()
    layer.build((None, 4))
    # Scale and offset; not the running mean and variance.
    assert parameters(layer) == 8
