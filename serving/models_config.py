"""The file that says which versions of which models TensorFlow Serving loads, and their labels: `models.config`.

A text of the message `tensorflow.serving.ModelServerConfig`, which the server reads again every
`--model_config_file_poll_wait_seconds`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from serving import folders

__all__ = ["LABELS", "NAME", "find", "known", "read", "serve", "served", "write"]

NAME = "models.config"
LABELS = ("stable", "canary")

_HEADER = "# Written by serving.deploy, which keeps other models and settings, but no comments.\n"


def read(models: Path) -> Any:
    """Returns the `ModelServerConfig` of a folder of models, an empty one where there is no file yet.

    Raises:
        ValueError: it is damaged, or of another kind, or the messages are not installed.
    """
    try:
        from tensorflow_serving.config import model_server_config_pb2
    except ImportError as error:
        raise ValueError(
            "The messages of TensorFlow Serving are missing: pip install tensorflow-serving-api"
        ) from error
    path = models / NAME
    config = model_server_config_pb2.ModelServerConfig()
    if path.exists():
        try:
            text_format.Parse(path.read_text(), config)
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is no text of a ModelServerConfig: {error}") from error
    if config.HasField("custom_model_config"):
        raise ValueError(f"Expected a model_config_list in {path}. Received: a custom_model_config")
    for model in config.model_config_list.config:
        policy = model.model_version_policy.WhichOneof("policy_choice")
        if policy not in (None, "specific"):
            raise ValueError(f"Expected specific versions of {model.name} in {path}. Received: the policy {policy}")
    return config


def write(models: Path, config: Any) -> None:
    """Replaces the file, in one step."""
    folders.write(models / NAME, _HEADER + text_format.MessageToString(config))


def find(config: Any, name: str) -> Any | None:
    """Returns the `ModelConfig` of that name."""
    return next((model for model in config.model_config_list.config if model.name == name), None)


def known(models: Path, config: Any, name: str) -> Any:
    """Returns the `ModelConfig` of that name.

    Raises:
        ValueError: there is none.
    """
    model = find(config, name)
    if model is None:
        names = [each.name for each in config.model_config_list.config]
        raise ValueError(f"There is no model {name} in {models / NAME}. There are: {names}")
    return model


def served(model: Any | None) -> set[int]:
    """Returns the versions that a server is to load."""
    return set() if model is None else set(model.model_version_policy.specific.versions)


def serve(model: Any, versions: Iterable[int]) -> None:
    """Lets a server load these versions."""
    model.model_version_policy.specific.versions[:] = sorted(versions)
