"""The network to export: found by a run's folder, a .keras file or a shipped model's name, checked, and loaded."""

import zipfile
from pathlib import Path

import keras
import numpy as np

from keras_deartifact import engines, models

__all__ = ["find", "for_deployment", "load_generator", "load_network"]

_IN_A_RUN = ("generator.keras", "predictor.keras")


def find(source: str | Path) -> Path:
    """Returns the .keras file that a source stands for.

    Args:
        source: the folder of a run, a .keras file, or the name of a model that ships with the package.

    Raises:
        ValueError: there is no such file.
    """
    path = Path(source)
    # A name comes first, as in `engines.load`.
    if str(source) in engines.pretrained_models():
        path = engines.pretrained_path(str(source)).with_suffix(".keras")
        if not path.exists():
            raise ValueError(f"{source} ships without its .keras file: give the folder of a run, or a .keras file.")
        return path
    if path.is_dir():
        for name in _IN_A_RUN:
            if (path / name).exists():
                return path / name
        raise ValueError(f"There is no {' or '.join(_IN_A_RUN)} in {path}: train first, or give the run's folder.")
    if path.suffix != ".keras":
        raise ValueError(
            f"Expected a run's folder, a .keras file or one of {engines.pretrained_models()}. Received: {source}"
        )
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    return path


def load_network(source: str | Path) -> tuple[keras.Model, Path]:
    """Loads a network as it was trained, with its branches.

    Args:
        source: see `find`.

    Returns:
        The network, a generator or a quality predictor, and its file.

    Raises:
        ValueError: there is no such file, or it is damaged, or it holds something else.
    """
    path = find(source)
    try:
        with zipfile.ZipFile(path) as archive:
            # Keras seeks in the weights, so that nobody would notice a wrong sum.
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"its part {damaged} is damaged")
        network = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # zipfile, zlib, json, h5py and Keras, each with its own ways to fail.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} is no whole .keras file of a network: {reason}") from error
    if not isinstance(network, (*_generators(), models.QualityPredictor)):
        raise ValueError(f"Expected a generator or a quality predictor. Received: a {type(network).__name__} in {path}")
    for weight in network.weights:
        if not np.isfinite(weight.numpy()).all():
            raise ValueError(f"The weight {weight.path} in {path} is not finite: take an earlier checkpoint.")
    return network, path


def load_generator(source: str | Path) -> tuple[keras.Model, Path]:
    """Loads a generator for deployment, see `for_deployment`.

    Args:
        source: see `find`.

    Returns:
        The generator and its file.

    Raises:
        ValueError: as `load_network`, or the network is a quality predictor.
    """
    network, path = load_network(source)
    if isinstance(network, models.QualityPredictor):
        raise ValueError(
            f"{path} holds a quality predictor, which the library takes as a LiteRT file: python -m export.predictor"
        )
    return for_deployment(network), path


def for_deployment(network: keras.Model) -> keras.Model:
    """Returns a built generator folded where it can be, and computing in float32 whatever it trained in."""
    if network.dtype_policy.compute_dtype != "float32":
        copy = type(network).from_config({**network.get_config(), "dtype": "float32"})
        copy.build([(None, None, None, network.channels), (None, None, None, 1)])
        copy.set_weights(network.get_weights())
        network = copy
    return network.fold() if hasattr(network, "fold") else network


def _generators() -> tuple[type[keras.Model], ...]:
    made = (getattr(make, "func", make) for make in models.GENERATORS.values())
    return tuple({make for make in made if isinstance(make, type)})
