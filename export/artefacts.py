"""Writes and verifies all the artefacts of a generator into one folder; `__main__.py` says what it holds."""

import contextlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras

from export import manifest, metadata, networks, onnx, pictures, saved_model, tflite, verify
from keras_deartifact import engines, image, restore

__all__ = ["FORMATS", "Artefact", "Job", "export"]

# Of the requests that warm a server up, in pixels, where no tile is given.
_WARM_UP_SIDES = (32, 256)


class Artefact(NamedTuple):
    """A model that was written.

    Attributes:
        path: of the file, or of the SavedModel's folder.
        precision: one of `tflite.PRECISIONS`.
        tile: height and width of the one size that it takes; None for any.
    """

    path: Path
    precision: str
    tile: tuple[int, int] | None = None


class Job(NamedTuple):
    """What is exported.

    Attributes:
        network: the generator, folded.
        source: its .keras file.
        pictures: to be measured on, uint8 `(height, width, 3)`.
        calibration: others, which integers take their ranges from; the same where there are no others.
        tile: as of `Artefact`.
        precisions: of LiteRT, of `tflite.PRECISIONS`.
        say: what is told about the run, in lines.
    """

    network: keras.Model
    source: Path
    pictures: list[pictures.Frame]
    calibration: list[pictures.Frame]
    tile: tuple[int, int] | None
    precisions: Sequence[str]
    say: Callable[[str], None]


def _saved_model(job: Job, root: Path) -> Iterator[Artefact]:
    folder = root / "saved_model" / "1"
    folder.parent.mkdir()
    saved_model.write(job.network, folder)
    if saved_model.has_serving_api():
        sides = (_WARM_UP_SIDES[0], max(job.tile)) if job.tile else _WARM_UP_SIDES
        saved_model.warm_up(folder, manifest.source_name(job.source), job.network.channels, sides)
    else:
        job.say("saved_model: no warm-up requests: pip install tensorflow-serving-api")
    yield Artefact(folder, "float32")


def _tflite(job: Job, root: Path) -> Iterator[Artefact]:
    folder = root / "tflite"
    folder.mkdir()
    for tile in (None, job.tile) if job.tile else (None,):
        size = tile or (pictures.SIDE, pictures.SIDE)
        for precision in job.precisions:
            seen = pictures.degraded(pictures.exactly(job.calibration, *size)) if precision == "int8" else []
            examples = pictures.network_inputs(seen, job.network.channels)
            name = f"model.{precision}.tflite" if tile is None else f"model.{precision}.{tile[0]}x{tile[1]}.tflite"
            model = tflite.convert(job.network, precision, tile, examples)
            (folder / name).write_bytes(metadata.write(model, _facts(job, precision, tile)))
            yield Artefact(folder / name, precision, tile)


def _facts(job: Job, precision: str, tile: tuple[int, int] | None) -> dict[str, Any]:
    """What a LiteRT file says of itself."""
    margins = [restore.margin_of_tile(side) for side in tile or (restore.TILE, restore.TILE)]
    return {
        **manifest.source(job.network, job.source),
        "precision": precision,
        # Neighbouring tiles share twice the margin: of each result what lies within its margins is used.
        "tile": tile and list(tile),
        "margin": margins,
        "overlap": [2 * margin for margin in margins],
    }


def _onnx(job: Job, root: Path) -> Iterator[Artefact]:
    folder = root / "onnx"
    folder.mkdir()
    content = onnx.convert(job.network, manifest.as_text(manifest.source(job.network, job.source)))
    (folder / "model.onnx").write_bytes(content)
    yield Artefact(folder / "model.onnx", "float32")
    (folder / "model.float16.onnx").write_bytes(onnx.to_float16(content))
    yield Artefact(folder / "model.float16.onnx", "float16")


FORMATS: dict[str, Callable[[Job, Path], Iterator[Artefact]]] = {
    "saved_model": _saved_model,
    "tflite": _tflite,
    "onnx": _onnx,
}


def export(
    source: str | Path,
    out: Path,
    formats: Sequence[str] = tuple(FORMATS),
    folder: Path | None = None,
    tile: int | None = None,
    precisions: Sequence[str] = tflite.PRECISIONS,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Writes the folder `out` and returns its manifest.

    Args:
        source: see `networks.find`.
        out: the folder to make; nothing is left there, and an older one stays, where the export fails.
        formats: keys of `FORMATS`.
        folder: of pictures to measure on; None for the packaged demo's.
        tile: side in pixels, a multiple of 16, of LiteRT models for one size, beside those for any.
        precisions: of the LiteRT models, of `tflite.PRECISIONS`.
        overwrite: whether `out` may be replaced, if it is an export.
        say: is given a line about every artefact.

    Raises:
        ValueError: there is no generator, or it cannot be exported, or an artefact differs from it by more than its
            precision allows; an unknown format or precision, or a tile that is no multiple of 16.
        OSError: the file system does not give or take it.
    """
    unknown = set(formats) - set(FORMATS)
    if unknown or not formats:
        raise ValueError(f"Expected formats of {list(FORMATS)}. Received: {list(formats)}")
    if not precisions or set(precisions) - set(tflite.PRECISIONS):
        raise ValueError(f"Expected precisions of {list(tflite.PRECISIONS)}. Received: {list(precisions)}")
    if tile is not None and (tile < image.GRID or tile % image.GRID):
        raise ValueError(f"Expected a tile's side that is a multiple of {image.GRID}. Received: tile={tile}")
    with _replacing(out, overwrite) as root:
        network, path = networks.load_generator(source)
        size = None if tile is None else (tile, tile)
        found = pictures.load(folder, 2 * pictures.COUNT)
        job = Job(network, path, found[::2], found[1::2] or found, size, precisions, say)
        restorer = engines.load(path)
        given: dict[tuple[int, int] | None, list[verify.Batch]] = {}
        expected: dict[tuple[int, int] | None, list[verify.Floats]] = {}
        entries = []
        for name in FORMATS:
            for artefact in FORMATS[name](job, root) if name in formats else ():
                if artefact.tile not in given:
                    given[artefact.tile] = _batches(job.pictures, artefact.tile)
                    expected[artefact.tile] = _expected(restorer, given[artefact.tile])
                parity = _verified(artefact, root, given[artefact.tile], expected[artefact.tile])
                entries.append(manifest.entry(root, artefact.path, artefact.precision, parity))
                say(_line(entries[-1]))
            if name == "saved_model" and name in formats:
                verify.check_signatures(root / entries[-1]["path"], given[None][0], restorer)
        made = {**manifest.source(network, path), "artefacts": entries}
        (root / manifest.NAME).write_text(json.dumps(made, indent=2) + "\n")
    return made


def _batches(frames: Sequence[pictures.Frame], tile: tuple[int, int] | None) -> list[verify.Batch]:
    if tile is None:
        return verify.batches(pictures.degraded(frames))
    return verify.one_by_one(pictures.degraded(pictures.exactly(frames, *tile)))


def _expected(restorer: engines.Restorer, given: Sequence[verify.Batch]) -> list[verify.Floats]:
    try:
        expected = verify.restored_by(restorer, given)
    except ValueError as error:
        raise ValueError(f"The Keras model: {error}") from error
    verify.check_changes(given, expected)
    return expected


def _verified(
    artefact: Artefact, root: Path, given: Sequence[verify.Batch], expected: Sequence[verify.Floats]
) -> verify.Parity:
    name = artefact.path.relative_to(root).as_posix()
    try:
        # Graphics processors compute with fewer bits.
        restorer = engines.load(artefact.path, provider="cpu" if artefact.path.suffix == ".onnx" else None)
        parity = verify.measure(restorer, given, expected, clipped=artefact.precision == "int8")
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    verify.check(name, artefact.precision, parity)
    return parity


def _line(entry: dict[str, Any]) -> str:
    measured = entry["measured"]
    # Zero is added so that no minus stands before zeros.
    gain = round(-measured["psnr_cost_db"], 4) + 0.0
    return (
        f"{entry['path']}: {entry['size_bytes']} bytes, {measured['max_difference']:.2g} from Keras at most, "
        f"{measured['mean_difference']:.2g} on average, {gain:+.4f} dB"
    )


@contextlib.contextmanager
def _replacing(out: Path, overwrite: bool) -> Iterator[Path]:
    """Gives a temporary folder beside `out` that takes its name if the block succeeds, and vanishes if it fails."""
    final = out.resolve()
    _check_free(out, overwrite)
    unique = secrets.token_hex(4)
    partial, old = (final.with_name(f".{final.name}-{role}-{unique}") for role in ("new", "old"))
    partial.mkdir()
    try:
        yield partial
        # It may have taken minutes.
        _check_free(out, overwrite)
        if final.exists():
            final.rename(old)
        try:
            partial.rename(final)
        except OSError:
            if old.exists():
                old.rename(final)
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _check_free(out: Path, overwrite: bool) -> None:
    final = out.resolve()
    if not final.parent.is_dir():
        raise ValueError(f"The folder of the export must exist; create it first. Received: {out.parent}")
    if final.exists() and not overwrite:
        raise ValueError(f"{out} exists already; pass --overwrite to replace it, or choose another name.")
    if final.exists() and not (final / manifest.NAME).is_file():
        raise ValueError(f"{out} is no export, which would hold {manifest.NAME}: it is not replaced.")
