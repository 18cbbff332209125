"""What the measuring programs are given: models and filters by name."""

import sys
from collections.abc import Sequence
from pathlib import Path

from keras_deartifact import engines
from training import baselines

__all__ = ["check_targets", "load_restorers", "model_files", "usable_filters"]


def load_restorers(models: Sequence[str]) -> dict[str, engines.Restorer]:
    """Loads shipped models and models' files or folders, which are called by their names without extension.

    Raises:
        ValueError: there is no such model, or two have one name.
    """
    restorers = {Path(model).stem if Path(model).exists() else model: engines.load(model) for model in models}
    if len(restorers) < len(models):
        raise ValueError(f"Expected models of different names. Received: {models}")
    return restorers


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
    return {model: Path(model) if Path(model).exists() else engines.pretrained_path(model) for model in models}


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
