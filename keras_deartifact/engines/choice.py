"""Which engine runs a model that comes in several forms: the fastest on this machine, measured once (`speeds.py`).

LiteRT and ONNX Runtime, with each of its providers, are cheap to have and are measured where nothing is remembered of
them. Keras takes part only with what `record` was told: TensorFlow takes seconds to import. Speeds are compared at the
largest size of frames at which all cheap ones are known. The first one, LiteRT, stays unless another is faster by
`LEAD`: differences below that change from one measurement to the next.
"""

import os
from collections.abc import Callable, Mapping
from importlib import util
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_deartifact.engines import onnx, shipped, speeds
from keras_deartifact.engines.restorer import LoadedRestorer

__all__ = ["LEAD", "Candidate", "candidates", "choose", "record", "remembered", "speed", "version"]

LEAD = 1.1

SPEED_SIZE = (368, 640)
"""Height and width in pixels of the frames at which `speed` measures."""


class Candidate(NamedTuple):
    """An engine for a model.

    Attributes:
        engine: key of `ENGINES`.
        path: the model's file for it.
        provider: of ONNX Runtime; None for another engine.
    """

    engine: str
    path: Path
    provider: str | None

    @property
    def name(self) -> str:
        """For the reader."""
        return self.engine if self.provider in (None, "cpu") else f"{self.engine} with {self.provider}"


def candidates(forms: Mapping[str, Path]) -> list[Candidate]:
    """Returns the engines that are cheap to have for a model, or the first of the others, if those are all."""
    found = [Candidate("litert", forms["litert"], None)] if "litert" in forms else []
    version = onnx.version() if "onnx" in forms else None
    if version is not None:
        found += [Candidate("onnx", forms["onnx"], provider) for provider in _providers(version)]
    if not found:
        engine, path = next(iter(forms.items()))
        found = [Candidate(engine, path, None)]
    return found


def _costly(forms: Mapping[str, Path]) -> list[Candidate]:
    """Those that import TensorFlow."""
    return [Candidate(engine, forms[engine], None) for engine in ("keras", "saved_model") if engine in forms]


def _providers(version: str) -> list[str]:
    """The providers that are tried. They are remembered: to ask for them takes the import of ONNX Runtime."""
    names = speeds.read_providers(version)
    if names is None:
        try:
            names = onnx.providers()
        except ImportError:
            return []
        speeds.write({}, {version: names})
    return names


def choose(
    forms: Mapping[str, Path], threads: int | None, load: Callable[[Candidate], LoadedRestorer]
) -> tuple[list[Candidate], str | None, dict[Candidate, LoadedRestorer]]:
    """Ranks the engines for a model.

    Args:
        forms: the model's files, by engine.
        threads: of the engines; one for each processor by default.
        load: loads a candidate, or raises ValueError; called for those that have to be measured.

    Returns:
        The candidates that are known to load, the best first; why that one, None where there was no choice; and those
        that were loaded on the way.
    """
    cheap = candidates(forms)
    if len(cheap) == 1 and not ("keras" in forms and speeds.cache_file().exists()):
        return cheap, None, {}
    known = speeds.read()
    keys = {each: _key(each, threads) for each in cheap}
    loaded: dict[Candidate, LoadedRestorer] = {}
    if len(cheap) > 1 and not _common_sizes([known.get(key, {}) for key in keys.values()]):
        measured = {}
        for each in cheap:
            try:
                loaded[each] = load(each)
                measured[keys[each]] = _measured(loaded[each])
            except ValueError:
                # It is not there, or does not load: `load` says so where it was asked for by name.
                measured[keys[each]] = {speeds.size_name(speeds.SIDE, speeds.SIDE): 0.0}
        known |= speeds.write(measured)
    keys |= {each: _key(each, threads) for each in _costly(forms) if _may_be_recorded(each, known)}
    table = {each: known.get(key, {}) for each, key in keys.items()}
    working = [each for each in cheap if not _failed(table[each])] or cheap[:1]
    size = max(_common_sizes([table[each] for each in cheap]), key=_pixels, default="")
    compared = {each: sizes[size] for each, sizes in table.items() if sizes.get(size)}
    if len(compared) < 2:
        return working, None, loaded
    first = next(iter(compared))
    # Stable: where two are equal, the first of them.
    ranked = sorted(compared, key=lambda each: -compared[each] * (LEAD if each == first else 1.0))
    return ranked, _reason(ranked, compared, size), loaded


def _failed(sizes: speeds.Sizes) -> bool:
    return bool(sizes) and not any(sizes.values())


def _common_sizes(speeds_of_each: list[speeds.Sizes]) -> set[str]:
    """The sizes of frames at which all speeds are known, but of what does not load."""
    known = [set(sizes) for sizes in speeds_of_each if not _failed(sizes)]
    return set.intersection(*known) if known else set()


def remembered(name: str, threads: int | None = None) -> dict[str, speeds.Sizes]:
    """Returns the engines that can run a model that ships, and their speeds as far as they are remembered.

    Args:
        name: of the model.
        threads: of the engines; one for each processor by default.

    Returns:
        Frames a second by "WIDTHxHEIGHT" (0: the engine does not load), by the engine's name for a reader.

    Raises:
        ValueError: there is no such model.
    """
    forms = shipped.forms(name)
    known = speeds.read()
    every = candidates(forms) + _costly(forms)
    return {each.name: known.get(_key(each, threads), {}) for each in every}


def record(restorer: LoadedRestorer, fps: float, height: int, width: int) -> bool:
    """Remembers a speed that was measured, so that "auto" goes by it from now on.

    It counts at sizes of frames at which all engines that are cheap to have are known.

    Args:
        restorer: what was measured, from `load`.
        fps: frames a second, above 0.
        height: of the frames, in pixels.
        width: of the frames, in pixels.

    Returns:
        Whether it is remembered: not of an ensemble or a server, nor of an engine that has another number of threads
        than it was asked for, nor where the cache cannot be written.

    Raises:
        ValueError: `fps` is not a number above 0.
    """
    if not 0 < fps < float("inf"):
        raise ValueError(f"Expected fps above 0. Received: fps={fps}")
    if restorer.engine in ("ensemble", "serving") or restorer.has_other_threads:
        return False
    key = _key(Candidate(restorer.engine, restorer.path, restorer.provider), restorer.threads)
    size = speeds.size_name(height, width)
    speeds.write({key: {size: fps}}, replace=True)
    return speeds.read().get(key, {}).get(size) == fps


def speed(restorer: LoadedRestorer, height: int, width: int) -> float:
    """Returns how many frames of a size a network restores in a second, alone: from what is remembered, or measured.

    Speeds are taken for proportional to the number of pixels.

    Args:
        restorer: from `load`.
        height: of the frames, in pixels.
        width: of the frames, in pixels.
    """
    key = _key(Candidate(restorer.engine, restorer.path, restorer.provider), restorer.threads)
    sizes = {_pixels(size)[0]: fps for size, fps in speeds.read().get(key, {}).items() if fps}
    # Small ones say little of large ones.
    large = [pixels for pixels in sizes if pixels >= SPEED_SIZE[0] * SPEED_SIZE[1]]
    if not large:
        rows, columns = restorer.tile or SPEED_SIZE
        frames = np.full((1, rows, columns, 3), 0.5, np.float32)
        fps = speeds.frames_a_second(lambda: restorer(frames))
        record(restorer, fps, rows, columns)
        sizes, large = {rows * columns: fps}, [rows * columns]
    pixels = min(large, key=lambda each: abs(each - height * width))
    return sizes[pixels] * pixels / (height * width)


def _measured(restorer: LoadedRestorer) -> speeds.Sizes:
    height, width = restorer.tile or (speeds.SIDE, speeds.SIDE)
    frames = np.full((1, height, width, 3), 0.5, np.float32)
    return {speeds.size_name(height, width): speeds.frames_a_second(lambda: restorer(frames))}


def _key(candidate: Candidate, threads: int | None) -> str:
    """All that would change a candidate's speed."""
    parts = [_digest(candidate.path), candidate.engine, version(candidate.engine)]
    parts += [candidate.provider or "-", f"{threads or os.cpu_count() or 1} threads", speeds.machine()]
    return " | ".join(parts)


def _digest(path: Path) -> str:
    if not path.is_dir():
        return shipped.digest(path)
    # Of a SavedModel, what tells one from another.
    return shipped.digest(path / "saved_model.pb")


def version(engine: str) -> str:
    """Returns the version of the package that an engine runs on, `-` where that is not known."""
    if engine == "litert":
        import ai_edge_litert

        return str(getattr(ai_edge_litert, "__version__", "-"))
    if engine == "onnx":
        return onnx.version() or "-"
    # It takes longer to import than all of this package.
    from importlib import metadata

    versions = []
    for package in ("tensorflow", "keras"):
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(versions) or "-"


def _may_be_recorded(candidate: Candidate, known: Mapping[str, speeds.Sizes]) -> bool:
    """Whether it is worth to find the whole key; versions of packages take longer to find than the rest."""
    of_engine = [key for key in known if f" | {candidate.engine} | " in key]
    if not of_engine or util.find_spec("tensorflow") is None:
        return False
    digest = _digest(candidate.path)
    return any(key.startswith(digest) for key in of_engine)


def _pixels(size: str) -> tuple[int, str]:
    sides = size.split("x")
    return (int(sides[0]) * int(sides[1]) if len(sides) == 2 and all(map(str.isdecimal, sides)) else 0), size


def _reason(ranked: list[Candidate], compared: Mapping[Candidate, float], size: str) -> str:
    best, *others = ranked
    rest = ", ".join(f"{each.name} {_rounded(compared[each])}" for each in others)
    return f"engine: {best.name}, {_rounded(compared[best])} fps at {size} ({rest})"


def _rounded(fps: float) -> str:
    return f"{fps:.0f}" if fps >= 10 else f"{fps:.2g}"
