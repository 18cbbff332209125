"""What the measuring programs are given: models and filters by name."""

import sys
from collections.abc import Sequence
from pathlib import Path

from keras_deartifact import engines
from training import baselines

__all__ = ["check_targets", "load_restorers", "model_files", "usable_filters"]


def load_restorers(models: Sequence[str], perceptions: Sequence[float] = ()) -> dict[str, engines.Restorer]:
    """Loads shipped models and models' files or folders, which are called by their names without extension.

    With `perceptions`, the default model with so much of its perceptual variant, too.

    What comes in several forms, a shipped model or the folder of an export, runs on LiteRT: figures must not depend on
    which engine is the fastest here.

    Raises:
        ValueError: there is no such model, or two have one name.
    """
    restorers = {}
    for model in models:
        is_file = _is_file(model)
        has_forms = not is_file or (Path(model) / "manifest.json").exists()
        restorers[Path(model).stem if is_file else model] = engines.load(model, "litert" if has_forms else "auto")
    if len(restorers) < len(models):
        raise ValueError(f"Expected models of different names. Received: {models}")
    for share in perceptions:
        name = f"{engines.DEFAULT_MODEL}, perception {share:g}"
        restorers[name] = engines.load(engines.DEFAULT_MODEL, "litert", perception=share)
    return restorers


def _is_file(model: str) -> bool:
    """Whether a model is no name of one that ships; that comes first, as in `engines.load`."""
    return model not in engines.pretrained_models() and Path(model).exists()


def check_targets(*files: str | None) -> None:
    """Makes sure, before the work, that there is a folder for each file to write.

    Raises:
        ValueError: there is none.
    """
    for file in files:
        if file and not Path(file).absolute().parent.is_dir():
            raise ValueError(f"There is no folder for {file}.")


def model_files(models: Sequence[str]) -> dict[str, Path]:
    """Returns the file or folder of every model."""
    return {model: Path(model) if _is_file(model) else engines.pretrained_path(model) for model in models}


def usable_filters(filters: Sequence[str]) -> list[str]:
    """Returns the filters that can run here, and names the others on stderr.

    Raises:
        ValueError: there is no such filter.
    """
    wanted = [name for name in filters if name]
    if not set(wanted) <= set(baselines.FILTERS):
        raise ValueError(f"Expected filters of {list(baselines.FILTERS)}. Received: {wanted}")
    kept = []
    for name in wanted:
        lacking = baselines.missing(name)
        if lacking:
            print(f"left out {name}: it needs {lacking}", file=sys.stderr)
        else:
            kept.append(name)
    return kept
