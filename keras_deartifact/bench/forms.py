"""Which models are measured by default, what they are called, and the files that each of them has."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from keras_deartifact import engines
from keras_deartifact.engines.loading import engine_of

__all__ = ["Form", "default_models", "forms", "names", "twins"]


class Form(NamedTuple):
    """A file of a model.

    Attributes:
        name: of the model or of the file, for the reader.
        engine: what takes it; "auto" where its name does not tell.
        file: what `engines.load` takes, together with the engine.
    """

    name: str
    engine: str
    file: str


def default_models() -> list[str]:
    """Returns a model of every architecture that ships, the default one first: others cost the same."""
    shipped = sorted(engines.pretrained_models(), key=lambda name: name != engines.DEFAULT_MODEL)
    return [name for index, name in enumerate(shipped) if not set(twins(name)) & set(shipped[:index])]


def twins(name: str) -> list[str]:
    """Returns the other models that ship with the architecture of one that ships."""
    architecture = _architecture(name)
    others = (each for each in engines.pretrained_models() if each != name)
    return [each for each in others if architecture is not None and _architecture(each) == architecture]


def _architecture(name: str) -> tuple[object, object] | None:
    config = engines.card(name).get("config", {})
    return (config["generator"], config.get("generator_arguments", {})) if "generator" in config else None


def names(models: Sequence[str]) -> dict[str, str]:
    """Returns what models are called: a file by its name, or as it was given where two have one name.

    A SavedModel's folder that is a version for a server, such as model/1, is called by both.
    """
    short = {model: Path(model).name for model in models}
    short |= {model: "/".join(Path(model).parts[-2:]) for model, name in short.items() if name.isdecimal()}
    counts = Counter(short.values())
    return {model: name if name and counts[name] == 1 else model for model, name in short.items()}


def forms(model: str, name: str) -> list[Form]:
    """Returns the files of a model, in the order of `engines.ENGINES`.

    Args:
        model: as `engines.load` takes it.
        name: what it is called.

    Raises:
        ValueError: an export whose manifest cannot be read or names nothing.
    """
    path = Path(model)
    # A name comes first, as in `engines.load`.
    if model in engines.pretrained_models():
        found = [Form(name, engine, model) for engine in engines.forms(model)]
    elif path.is_dir() and (path / "manifest.json").exists():
        files = {file: path / file for file in _artefacts(path)}
        found = [Form(f"{name}/{short}", engine_of(file) or "auto", str(file)) for short, file in files.items()]
    else:
        found = [Form(name, engine_of(path) or "auto", model)]
    order = [*engines.ENGINES, "auto"]
    return sorted(found, key=lambda form: order.index(form.engine))


def _artefacts(folder: Path) -> list[str]:
    """What the manifest of an export names, by their paths in its folder."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        found = [Path(each["path"]).as_posix() for each in manifest["artefacts"]]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"expected an export's manifest in {folder / 'manifest.json'}") from error
    if not found:
        raise ValueError(f"expected an export with a model. Received: {folder}")
    return found
