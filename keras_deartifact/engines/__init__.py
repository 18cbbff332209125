"""Engines: `load(path)` gives a `Restorer` for a model file, whatever runs it.

A `Restorer` is a function `(frames, quantiser_map) -> frames`:

- frames uint8 `(n, height, width, 3)` RGB, or float32 of the same shape in `[0, 1]`; the result has the same shape and
  dtype, uint8 rounded and clipped, float32 as the network gives it;
- quantiser_map float32 `(n, height / 16, width / 16)` log2 steps, or None for `quantiser.DEFAULT_LOG2_STEP`;
- height and width are multiples of 16: padding and tiling are the caller's (`restore`). A model that takes frames of
  one size only says so in the attribute `tile`, `(height, width)`, and refuses others.

A model file whose images have one channel is a luma-only network; its `Restorer` takes and returns RGB all the same:

    Y      = 0.299 R + 0.587 G + 0.114 B            BT.601, full range
    result = frames + (network(Y) - Y)              the same in every channel

which is exact: R = Y + 1.402 Cr and so on, so that a change of Y alone changes R, G and B by as much.

An ensemble, `ensemble.json` in a run's folder, is a list of `{"log2_step": ..., "model": FILE}`, one generator for each
quality (Galteri et al.). Each frame goes to the one whose step is nearest to the mean of its quantiser map.

A model on a server runs on the engine "serving", which has no file: `serving/`.

Each engine imports its runtime when it is first used. A model in several forms runs on the engine that is the fastest
here: `choice.py`.
"""

from keras_deartifact.engines.both import load_both
from keras_deartifact.engines.choice import SPEED_SIZE, record, remembered, speed
from keras_deartifact.engines.identity import identity
from keras_deartifact.engines.loading import ENGINES, SERVING, load, load_predictor
from keras_deartifact.engines.network import Network
from keras_deartifact.engines.onnx import PROVIDERS
from keras_deartifact.engines.restorer import LoadedRestorer, Predictor, Restorer
from keras_deartifact.engines.selection import Selection, select
from keras_deartifact.engines.serving import Server, ServingError
from keras_deartifact.engines.shipped import (
    DEFAULT_MODEL,
    PREDICTOR,
    card,
    digest,
    forms,
    general_models,
    predictor_path,
    pretrained_models,
    pretrained_path,
)

__all__ = [
    "DEFAULT_MODEL",
    "ENGINES",
    "PREDICTOR",
    "PROVIDERS",
    "SERVING",
    "SPEED_SIZE",
    "LoadedRestorer",
    "Network",
    "Predictor",
    "Restorer",
    "Selection",
    "Server",
    "ServingError",
    "card",
    "digest",
    "forms",
    "general_models",
    "identity",
    "load",
    "load_both",
    "load_predictor",
    "predictor_path",
    "pretrained_models",
    "pretrained_path",
    "record",
    "remembered",
    "select",
    "speed",
]
