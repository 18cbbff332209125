"""The networks of a job, the same on every machine, or none at all."""

import functools
import hashlib
import os
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_deartifact import engines
from keras_deartifact.archive.storage import WORK, Place, place
from keras_deartifact.engines import Predictor, Restorer, Server
from keras_deartifact.restore import journal
from keras_deartifact.restore.plan import identity


@dataclass(frozen=True)
class Networks:
    """What `engines.load` is told, and what has to come of it.

    Attributes:
        model: see `engines.load`.
        engine: likewise.
        provider: likewise.
        threads: likewise.
        server: likewise.
        perception: likewise.
        packed: name, below the destination, of a zip file with the model's files, for machines that do not have them.
        identity: what `restore.plan.identity` has to return, in pairs; None where that is not known yet.
    """

    model: str
    engine: str = "auto"
    provider: str | None = None
    threads: int | None = None
    server: Server | None = None
    perception: float = 0.0
    packed: str | None = None
    identity: tuple[tuple[str, Any], ...] | None = None


class OtherNetworksError(ValueError):
    """A machine has other networks than the job began with, or cannot load them: no file is the cause."""


@functools.lru_cache(maxsize=1)
def load(networks: Networks, destination: str, scratch: Path) -> tuple[Restorer, Predictor]:
    """Loads the networks, once in a process.

    Args:
        networks: which.
        destination: URL of the archive's.
        scratch: a folder of this machine.

    Raises:
        OtherNetworksError: they cannot be loaded here, or are not the ones that the job began with.
    """
    try:
        model = (
            networks.model if networks.packed is None else os.fspath(_unpacked(networks, place(destination), scratch))
        )
        restorer, predictor = engines.load_both(
            model,
            networks.engine,
            networks.threads,
            networks.provider,
            networks.server,
            networks.perception,
        )
    except ValueError as error:
        raise OtherNetworksError(str(error)) from error
    if networks.identity is not None:
        differing = journal.differences(dict(networks.identity), identity(restorer, predictor))
        if differing:
            raise OtherNetworksError(f"the job began with another {differing}")
    return restorer, predictor


def pack(model: str, destination: Place) -> str | None:
    """Puts a model's files beside the destination, for machines that do not have them.

    Returns:
        The name of the zip file there; None for a model that ships.
    """
    path = Path(model)
    if model in engines.pretrained_models() or not path.exists():
        return None
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    lines = [f"{each.relative_to(path.parent)} {engines.digest(each)}" for each in files]
    name = f"{WORK}/model-{hashlib.sha256(os.fsencode(chr(10).join(lines))).hexdigest()[:32]}.zip"
    if destination.find(name) is None:
        with destination.writing(name) as target, zipfile.ZipFile(target, "w") as packed:
            for each in files:
                packed.write(each, each.relative_to(path.parent))
    return name


def _unpacked(networks: Networks, destination: Place, scratch: Path) -> Path:
    """The model's files, unpacked on this machine."""
    name = networks.packed or ""
    folder = scratch / Path(name).stem
    if not folder.exists():
        scratch.mkdir(parents=True, exist_ok=True)
        with (
            destination.reading(name) as local,
            tempfile.TemporaryDirectory(dir=scratch) as part,
            zipfile.ZipFile(local) as packed,
        ):
            packed.extractall(part)
            fresh = Path(part) / "model"
            os.mkdir(fresh)
            for each in list(Path(part).iterdir()):
                if each != fresh:
                    shutil.move(each, fresh)
            try:
                os.rename(fresh, folder)
            except OSError:
                # Another process has just done the same.
                if not folder.exists():
                    raise
    return folder / Path(networks.model).name
