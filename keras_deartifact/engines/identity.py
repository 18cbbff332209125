"""What tells one network from another, so that a run is continued by the same one."""

import hashlib
import json
from pathlib import Path

from keras_deartifact.engines import choice, shipped
from keras_deartifact.engines.restorer import LoadedPredictor, LoadedRestorer

__all__ = ["identity"]


def identity(network: object) -> dict[str, str | None]:
    """Returns all of a network that can change a bit of what it gives.

    Args:
        network: of `load` or `load_predictor`; or any other function, which goes by its name.

    Returns:
        Under names for a reader: the model, by the SHA-256 of its files, or its name and version on a server; and
        what runs it.
    """
    if isinstance(network, LoadedPredictor):
        return {"model": _digest(network.path), "engine": f"litert {choice.version('litert')}", "provider": None}
    if not isinstance(network, LoadedRestorer):
        name = getattr(network, "__qualname__", type(network).__qualname__)
        return {"model": name, "engine": None, "provider": None}
    if network.engine == "serving":
        return {"model": f"{network.path} version {network.version}", "engine": network.engine, "provider": None}
    engine = f"{network.engine} {choice.version(network.engine)}"
    model = _digest(network.path)
    if network.perception:
        variant = shipped.pretrained_path(shipped.perceptual_variant(network.path.stem))
        model = f"{model} with {network.perception:g} of {_digest(variant)}"
    return {"model": model, "engine": engine, "provider": network.provider}


def _digest(path: Path) -> str:
    """The SHA-256 of a model's files; of an ensemble, of its members too."""
    if path.name == "ensemble.json":
        members = [path.parent / member["model"] for member in json.loads(path.read_text("utf-8"))]
        digests = [shipped.digest(path), *map(_digest, members)]
    elif path.is_dir():
        digests = [shipped.digest(each) for each in sorted(path.rglob("*")) if each.is_file()]
    else:
        return shipped.digest(path)
    return hashlib.sha256("".join(digests).encode()).hexdigest()
