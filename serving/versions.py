"""The versions of a model that TensorFlow Serving may load: added, labelled, rolled back, removed.

    DIR/models.config    which versions are served, and their labels
    DIR/NAME/N/          a SavedModel, with its export's manifest in assets.extra
    DIR/NAME/.stable     the versions that `stable` named, one a line, the last one now

Served are those with a label, the one that was stable before, for a rollback, and the one that was named last.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from keras_deartifact import engines
from serving import folders, models_config

__all__ = ["Wait", "add", "describe", "moves", "numbers", "point", "prune", "rollback", "served"]

_MANIFEST = Path("assets.extra/manifest.json")
_HISTORY = ".stable"

Wait = Callable[[str, int], None]
"""Waits until every server has loaded a version of a model; raises ValueError if one does not."""


def add(artefact: Path, models: Path, name: str, version: int, base: str) -> None:
    """Adds a version, which is served under its number.

    Args:
        artefact: the folder that `python -m export` made, with a SavedModel.
        models: the folder of all models.
        name: of the model.
        version: positive, not there yet.
        base: what the server calls `models`.

    Raises:
        ValueError: the artefact is no export, or differs from its manifest, or the version is there.
        OSError: the file system does not give or take it.
    """
    target = models / name / str(version)
    if target.exists():
        raise ValueError(f"Version {version} of {name} is there already: versions never change, take a new number.")
    source, sums = _manifest(artefact)
    config = models_config.read(models)
    with folders.appearing(target) as folder:
        _copy(source, folder, sums)
        (folder / _MANIFEST).parent.mkdir(exist_ok=True)
        shutil.copyfile(artefact / "manifest.json", folder / _MANIFEST)
    # Only now: a server that reads of a model without a folder waits for it, and for nothing else.
    model = models_config.find(config, name)
    if model is None:
        model = config.model_config_list.config.add(name=name, base_path=f"{base}/{name}", model_platform="tensorflow")
    models_config.serve(model, _wanted(models, model, version))
    models_config.write(models, config)


def moves(models: Path, name: str, label: str, version: int) -> bool:
    """Whether a label would leave a version, for which a server must have loaded the other one."""
    model = models_config.find(models_config.read(models), name)
    return model is not None and model.version_labels.get(label, version) != version


def point(models: Path, name: str, label: str, version: int, wait: Wait | None) -> None:
    """Lets a label name a version.

    Args:
        models: the folder of all models.
        name: of the model.
        label: of `models_config.LABELS`.
        version: is there.
        wait: asks the servers, where the label leaves a version; None if none runs.

    Raises:
        ValueError: there is no such version, or a server does not load it.
        OSError: the file system does not give or take it.
    """
    config = models_config.read(models)
    model = models_config.known(models, config, name)
    if version not in numbers(models, name):
        raise ValueError(f"There is no version {version} of {name} in {models}. There are: {numbers(models, name)}")
    if wait is not None and moves(models, name, label, version):
        if version not in models_config.served(model):
            models_config.serve(model, {*models_config.served(model), version})
            models_config.write(models, config)
        wait(name, version)
    if label == "stable":
        past = _history(models, model)
        past = past[: past.index(version) + 1] if version in past else [*past, version]
        # Before it is so, and harmless if it never is: see `_history`.
        folders.write(models / name / _HISTORY, "".join(f"{each}\n" for each in past))
    model.version_labels[label] = version
    models_config.serve(model, _wanted(models, model, version))
    models_config.write(models, config)


def rollback(models: Path, name: str, wait: Wait | None) -> int:
    """Lets `stable` name the version that it named before, and returns that.

    Args:
        models: the folder of all models.
        name: of the model.
        wait: see `point`.

    Raises:
        ValueError: there is none, or a server does not load it.
    """
    model = models_config.known(models, models_config.read(models), name)
    there = numbers(models, name)
    before = [version for version in _history(models, model)[:-1] if version in there]
    if not before:
        raise ValueError(f"No version of {name} was stable before, or it is gone. There are: {there}")
    point(models, name, "stable", before[-1], wait)
    return before[-1]


def prune(models: Path, name: str, keep: int, served_before: set[int]) -> list[int]:
    """Removes old versions and returns which.

    Args:
        models: the folder of all models.
        name: of the model.
        keep: how many of those that are not served stay, the newest.
        served_before: these stay, too: a server may not have read yet that they are not served any more.
    """
    idle = [each for each in numbers(models, name) if each not in served_before | served(models, name)]
    removed = idle[: max(0, len(idle) - keep)]
    for version in removed:
        folders.remove(models / name / str(version))
    return removed


def served(models: Path, name: str) -> set[int]:
    """Returns the versions that `models.config` lets a server load."""
    return models_config.served(models_config.find(models_config.read(models), name))


def numbers(models: Path, name: str) -> list[int]:
    """Returns the versions that are there, sorted."""
    folder = models / name
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(int(each.name) for each in found if re.fullmatch("[1-9][0-9]*", each.name))


def describe(models: Path, only: str | None = None) -> Iterator[str]:
    """Yields a line about every version: its labels, bytes, the sum of its files, and whether they are as exported.

    The sum is that of the text that `sha256sum` prints of them, sorted by path.

    Args:
        models: the folder of all models.
        only: a model's name; None for all.

    Raises:
        ValueError: `models.config` is damaged.
    """
    for model in models_config.read(models).model_config_list.config:
        if only not in (None, model.name):
            continue
        for version in numbers(models, model.name):
            folder = models / model.name / str(version)
            labels = sorted(label for label, named in model.version_labels.items() if named == version)
            state = ", ".join(labels) or ("served" if version in models_config.served(model) else "not served")
            sums = _sums(folder)
            size = sum((folder / path).stat().st_size for path in sums)
            text = "".join(f"{value}  {path}\n" for path, value in sorted(sums.items()))
            damage = "" if _is_as_exported(folder, sums) else "  DAMAGED: not as exported"
            digest = hashlib.sha256(text.encode()).hexdigest()
            yield f"{model.name}  {version}  {state}  {size} bytes  sha256 {digest}{damage}"


def _wanted(models: Path, model: Any, version: int) -> set[int]:
    wanted = {version, *model.version_labels.values(), *_history(models, model)[-2:-1]}
    return wanted & set(numbers(models, model.name))


def _history(models: Path, model: Any) -> list[int]:
    """Returns the versions that `stable` named, the last one being that of `models.config`, which is the truth."""
    path = models / model.name / _HISTORY
    past = [int(line) for line in path.read_text().split() if line.isdecimal()] if path.exists() else []
    if "stable" not in model.version_labels:
        return []
    now = model.version_labels["stable"]
    # A run that was killed may have written one too many, or one too few.
    return past[: past.index(now) + 1] if now in past else [*past, now]


def _manifest(artefact: Path) -> tuple[Path, dict[str, str]]:
    """Returns an export's SavedModel and the sum of each file in it."""
    path = artefact / "manifest.json"
    if not path.is_file():
        raise ValueError(f"{artefact} is no export, which would hold manifest.json: make one with python -m export")
    try:
        source, sums = _parsed(path.read_text())
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
        raise ValueError(
            f"{path} is damaged, or tells of no SavedModel: export it with --formats=saved_model"
        ) from error
    there = set(_sums(artefact / source))
    for problem, names in (("is missing", set(sums) - there), ("is not in the manifest", there - set(sums))):
        if names:
            raise ValueError(f"{artefact / source / min(names)} {problem}: export it again.")
    return artefact / source, sums


def _parsed(manifest: str) -> tuple[str, dict[str, str]]:
    entry = next(each for each in json.loads(manifest)["artefacts"] if each["path"].startswith("saved_model/"))
    prefix = f"{entry['path']}/"
    return entry["path"], {name.removeprefix(prefix): file["sha256"] for name, file in entry["files"].items()}


def _is_as_exported(folder: Path, sums: dict[str, str]) -> bool:
    try:
        _, wanted = _parsed((folder / _MANIFEST).read_text())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration):
        return False
    return {path: value for path, value in sums.items() if path != _MANIFEST.as_posix()} == wanted


def _sums(folder: Path) -> dict[str, str]:
    files = (each for each in folder.rglob("*") if each.is_file())
    return {each.relative_to(folder).as_posix(): engines.digest(each) for each in files}


def _copy(source: Path, target: Path, sums: dict[str, str]) -> None:
    for name, wanted in sums.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, path)
        # Of the copy, so that nothing can change in between.
        if engines.digest(path) != wanted:
            raise ValueError(f"{source / name} differs from its manifest: export it again.")
