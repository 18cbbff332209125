"""TensorFlow and Keras: run .keras files and SavedModels."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_deartifact.engines.network import Network, fixed_shape

__all__ = ["load_keras", "load_saved_model"]

# In the order in which they are looked for. Exports have the first beside one that takes uint8 frames for a server.
_SIGNATURES = ("network", "serving_default")


def _limit(threads: int | None) -> tuple[str, ...]:
    """Gives TensorFlow its number of threads, which it takes for the whole process, before it first computes."""
    if threads is None:
        return ()
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        actual = tf.config.threading.get_intra_op_parallelism_threads()
        if actual != threads:
            had = actual or "its default"
            return (f"TensorFlow has {had} as its number of threads, not {threads}: it was in use already",)
    return ()


def load_keras(path: Path, threads: int | None) -> Network:
    """Loads a .keras file; see `ENGINES`. It runs no code of the file's."""
    import zipfile

    import keras

    from keras_deartifact import models  # noqa: F401  (registers the generators)

    backend = keras.backend.backend()
    if backend == "tensorflow":
        notes = _limit(threads)
    else:
        notes = () if threads is None else (f"Keras runs on {backend}, which is not told a number of threads",)
    with zipfile.ZipFile(path) as archive:
        # Keras reads the weights in pieces, so that nobody would notice a wrong sum.
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"Its part {damaged} is damaged.")
    generator = keras.models.load_model(path, compile=False, safe_mode=True)

    def run(images: NDArray[Any], quantiser_map: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(generator((images, quantiser_map), training=False), np.float32)

    return Network(run, generator.channels, has_other_threads=bool(notes), notes=notes)


def load_saved_model(path: Path, threads: int | None) -> Network:
    """Loads a SavedModel's folder; see `ENGINES`."""
    import tensorflow as tf

    notes = _limit(threads)
    module = tf.saved_model.load(str(path))
    name = next((each for each in _SIGNATURES if each in module.signatures), None)
    if name is None:
        raise ValueError(f"Expected a signature of {list(_SIGNATURES)}. Received: {sorted(module.signatures)}")
    specs = module.signatures[name].structured_input_signature[1]
    channels = {name: spec.shape[-1] or 0 for name, spec in specs.items()}
    # The number of channels tells the inputs apart. Where both have one, their names are in the order of the call:
    # `images` and `quantiser_map`, or `args_0` and `args_0_1` from `Model.export`.
    names = sorted(channels, key=lambda name: (-channels[name], name))
    if [channels[name] for name in names] not in ([3, 1], [1, 1]):
        raise ValueError(f"Expected inputs of 3 channels and of 1, or of 1 and of 1. Received: {specs}")
    if any(spec.dtype != tf.float32 for spec in specs.values()):
        raise ValueError(f"Expected inputs of float32. Received: {specs}")
    images_name, map_name = names
    batch, tile = fixed_shape(specs[images_name].shape, specs[map_name].shape)

    def run(images: NDArray[Any], quantiser_map: NDArray[Any]) -> NDArray[Any]:
        # Through `module`: a signature by itself does not keep its variables alive.
        signature = module.signatures[name]
        outputs = signature(**{images_name: tf.constant(images), map_name: tf.constant(quantiser_map)})
        restored = outputs["restored"] if "restored" in outputs else next(iter(outputs.values()))
        return np.asarray(restored, np.float32)

    return Network(run, channels[images_name], batch, tile, has_other_threads=bool(notes), notes=notes)
