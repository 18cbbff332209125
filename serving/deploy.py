"""Puts exports where TensorFlow Serving takes them from: `python -m serving.deploy --models=DIR ...`.

    --name=NAME --artefact=ARTEFACT --version=N     a new version, served under its number; labelled with --label=stable
    --name=NAME --version=N --label=canary          a label moves to a version that is there
    --name=NAME --rollback                          `stable` goes back to the version before
    --list                                          versions, labels, sizes, sums

A server sees a version whole or not at all, and a run that is killed leaves the old state or the new one; what lies in
DIR, `versions.py` says.

**A label in use moves in two steps.** A server that reads of such a label on a version which it has not loaded refuses
all of models.config, and so never loads it. The version is therefore served first, under its number; when every server
at --server says that it is AVAILABLE, the label moves. Where no server runs, say --offline.
"""

import json
import re
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from keras_deartifact import console
from serving import folders, models_config, versions

FLAGS = flags.FLAGS

_POLL_SECONDS = 1.0
_LARGEST_VERSION = 2**63 - 1


def waiter(servers: Sequence[str], timeout_seconds: float) -> versions.Wait:
    """Returns a function that waits until every server has loaded a version, see `versions.Wait`.

    Args:
        servers: addresses of their REST interfaces, such as `127.0.0.1:8501`.
        timeout_seconds: for all of them together.
    """

    def wait(name: str, version: int) -> None:
        deadline = time.monotonic() + timeout_seconds
        for server in servers:
            while (state := _state(server, name, version)) != "AVAILABLE":
                if time.monotonic() > deadline or state.startswith("END"):
                    raise ValueError(
                        f"Version {version} of {name} is served, but {server} has not loaded it, and no label has "
                        f"moved: {state}"
                    )
                time.sleep(_POLL_SECONDS)

    return wait


def _state(server: str, name: str, version: int) -> str:
    """Returns what a server says of a version, or what is wrong with the server."""
    url = f"http://{server}/v1/models/{name}/versions/{version}"
    try:
        # Never through a proxy: it is a server of one's own.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
            status = json.load(answer)["model_version_status"][0]
        return " ".join(f"{status['state']} {status['status']['error_message']}".split())
    except (OSError, ValueError, LookupError, TypeError) as error:
        return " ".join(str(error).split())


def main(argv: list[str]) -> None:
    """Does what the flags say."""
    del argv
    models = Path(FLAGS.models)
    try:
        if FLAGS.list:
            for line in versions.describe(models, FLAGS.name):
                print(line)
            return
        _check_flags()
        with folders.locked(models):
            _change(models)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {console.sentence(error)}") from error


def _check_flags() -> None:
    if FLAGS.name is None or not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]*", FLAGS.name):
        raise ValueError(f"Expected a name of letters, digits, _ and -. Received: --name={FLAGS.name}")
    if FLAGS.rollback:
        if FLAGS.artefact or FLAGS.version or FLAGS.label:
            raise ValueError("Expected --rollback without --artefact, --version and --label.")
    elif FLAGS.version is None or not (FLAGS.artefact or FLAGS.label):
        raise ValueError("Expected --list, --rollback, or --version=N with --artefact, --label or both.")
    if FLAGS.server and FLAGS.offline:
        raise ValueError("Expected --server or --offline, not both.")


def _change(models: Path) -> None:
    name, version, label = FLAGS.name, FLAGS.version, FLAGS.label
    wait = waiter(FLAGS.server, FLAGS.timeout_seconds) if FLAGS.server else None
    # Before anything is copied.
    if (FLAGS.rollback or (label and versions.moves(models, name, label, version))) and not (wait or FLAGS.offline):
        raise ValueError(
            "A label in use moves: pass --server=HOST:PORT of the REST interface, or --offline if none runs."
        )
    if FLAGS.rollback:
        print(f"{name}: stable is {versions.rollback(models, name, wait)} again")
        return
    before = versions.served(models, name)
    if FLAGS.artefact:
        versions.add(Path(FLAGS.artefact), models, name, version, FLAGS.base)
        print(f"{name}: version {version} is served")
    if label:
        versions.point(models, name, label, version, wait)
        print(f"{name}: {label} is {version}")
    for removed in versions.prune(models, name, FLAGS.keep, before):
        print(f"{name}: version {removed} is removed")


def define_flags() -> None:
    """Defines the flags. Not at import: programs share names of flags, and tests import several programs."""
    flags.DEFINE_string("models", None, "The folder of all models, which the server reads.", required=True)
    flags.DEFINE_string("name", None, "The model's name.")
    flags.DEFINE_string("artefact", None, "The folder that python -m export made.")
    flags.DEFINE_integer("version", None, "A positive number.", 1, _LARGEST_VERSION)
    flags.DEFINE_enum("label", None, models_config.LABELS, "Names the version.")
    flags.DEFINE_bool("rollback", False, "Point stable at the version before.")
    flags.DEFINE_bool("list", False, "Show what there is.")
    flags.DEFINE_integer("keep", 3, "How many versions stay of those that are not served, the newest.", 0)
    flags.DEFINE_string("base", "/models", "What the server calls the folder of all models.")
    flags.DEFINE_list("server", [], "REST addresses of the servers, asked before a label in use moves.")
    flags.DEFINE_float("timeout_seconds", 300.0, "How long they are waited for.", 0.0)
    flags.DEFINE_bool("offline", False, "No server runs: labels move at once.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
