"""Makes the folder of a study from folders of pictures and short videos."""

import os
import random
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from keras_deartifact import colour, files, metrics, stills, video
from keras_deartifact.study import plan

QUESTION = "How good is the quality?"

# What every browser shows, by content; other pictures become PNG.
_PICTURES = {"PNG": ("png", "image/png"), "JPEG": ("jpg", "image/jpeg"), "WEBP": ("webp", "image/webp")}
# Extension -> type, codecs that browsers play in it.
_VIDEOS = {
    ".mp4": ("mp4", "video/mp4", ("h264", "vp9", "av1")),
    ".webm": ("webm", "video/webm", ("vp8", "vp9", "av1")),
}
_PLAYED_FORMATS = ("yuv420p", "yuvj420p")

# Of the frames of a video, one in so many is compared to find how strong its artefacts are.
_STRIDE = 10

_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)


@dataclass(frozen=True)
class _Source:
    """A file of a condition: what browsers get is `suffix` and `media_type`, a still only if it has to be converted."""

    path: Path
    suffix: str
    media_type: str
    width: int
    height: int
    is_video: bool
    converted: bool = False


def create_study(
    target: plan.StrPath,
    conditions: Mapping[str, plan.StrPath],
    reference: plan.StrPath,
    *,
    title: str = "Picture quality",
    question: str = QUESTION,
    training: int | None = None,
    repeats: int | None = None,
    training_items: Sequence[str] = (),
    seed: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> plan.Study:
    """Makes the folder of a study.

    Files are partners if they have the same name but for the extension; what is neither named like a picture nor like a
    video is left out. PNG, JPEG and WebP are copied as they are, other pictures become PNG; videos are `.mp4` or
    `.webm` that browsers play: H.264, VP8, VP9 or AV1 of 8 bits and 4:2:0.

    What is for practice spans the range of quality: all candidates are sorted by their PSNR to the original, the
    originals last, and one is chosen from each of as many equal parts.

    Args:
        target: the folder to make; it may exist if it is empty.
        conditions: a folder by the name of a condition.
        reference: the folder of the originals, which become one more condition.
        title: shown to raters.
        question: shown with every stimulus.
        training: how many are shown first for practice; 3 or as many as there are by default.
        repeats: how many are shown twice; 3 or as many as there are by default.
        training_items: names without extension that are for practice only, and everything for practice is of these;
            P.910 wants practice on other contents than the test. By default it is on those of the test.
        seed: of all random choices; random by default. It is in the plan.
        progress: told how many files are read.

    Returns:
        The plan.

    Raises:
        ValueError: names of conditions, files or numbers that do not fit, or a file that cannot be shown.
        OSError: the file system does not give or take a file.
    """
    target = Path(target)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ValueError(f"expected the name of a new folder; choose another one. Received: {target}")
    folders = {name: Path(folder) for name, folder in {**conditions, plan.REFERENCE: reference}.items()}
    if not conditions or "" in conditions or plan.REFERENCE in conditions:
        raise ValueError(
            f"expected conditions with names, other than {plan.REFERENCE!r}, which the originals have. "
            f"Received: {list(conditions)}"
        )
    sources = _sources(folders, progress)
    every = sorted(sources[plan.REFERENCE])
    if missing := sorted(set(training_items) - set(every)):
        raise ValueError(f"expected names for practice of {every}. Received: {missing}")
    seed = secrets.randbelow(2**32) if seed is None else seed
    chooser = random.Random(seed)
    tokens = {(name, item): f"{chooser.getrandbits(64):016x}" for name in folders for item in every}
    # By token, so that the order tells nothing either.
    stimuli = dict(
        sorted((token, _stimulus(token, name, item, sources[name][item])) for (name, item), token in tokens.items())
    )
    items = tuple(item for item in every if item not in set(training_items))
    for_test = [token for token, stimulus in stimuli.items() if stimulus.item in items]
    if not for_test:
        raise ValueError(f"expected at least one file that is not for practice only. Received: {every}")
    for_practice = [token for token in stimuli if token not in for_test] or for_test
    study = plan.Study(
        id=f"{chooser.getrandbits(64):016x}",
        title=title,
        question=question,
        labels=plan.LABELS,
        seed=seed,
        minimum_seconds=1.0,
        gap_seconds=0.5,
        conditions=tuple(folders),
        items=items,
        stimuli=stimuli,
        training=tuple(_spanning(stimuli, sources, for_practice, _count("training", training, for_practice), chooser)),
        repeats=tuple(_spread(stimuli, for_test, _count("repeats", repeats, for_test), chooser)),
    )
    _write(target, study, sources)
    return study


def _count(name: str, wanted: int | None, candidates: Sequence[str]) -> int:
    if wanted is None:
        return min(3, len(candidates))
    if not 0 <= wanted <= len(candidates):
        raise ValueError(f"expected {name} from 0 to {len(candidates)}, for so many there are. Received: {wanted}")
    return wanted


def _stimulus(token: str, condition: str, item: str, source: _Source) -> plan.Stimulus:
    return plan.Stimulus(condition, item, f"{token}.{source.suffix}", source.media_type, source.width, source.height)


# What is in the folders.


def _sources(folders: Mapping[str, Path], progress: Callable[[int], None] | None) -> dict[str, dict[str, "_Source"]]:
    """The files by condition and item, checked to be the same items, of the same kind and size."""
    paths = {name: _paths(folder) for name, folder in folders.items()}
    every = set().union(*paths.values())
    for name, found in paths.items():
        if absent := sorted(every - set(found)):
            raise ValueError(
                f"expected files of the same names, but for the extension, for every condition; {name!r} lacks "
                f"{', '.join(absent)}. Received: {folders[name]}"
            )
    if not every:
        raise ValueError(f"expected folders of pictures or videos. Received: {', '.join(map(str, folders.values()))}")
    sources: dict[str, dict[str, _Source]] = {name: {} for name in folders}
    done = 0
    for item in sorted(every):
        original = sources[plan.REFERENCE][item] = _source(paths[plan.REFERENCE][item])
        for name in folders:
            source = original if name == plan.REFERENCE else _source(paths[name][item])
            if (source.is_video, source.width, source.height) != (original.is_video, original.width, original.height):
                raise ValueError(
                    f"expected the kind and size of the original, {_described(original)}. "
                    f"Received: {source.path}, {_described(source)}"
                )
            sources[name][item] = source
            done += 1
            if progress is not None:
                progress(done)
    return sources


def _paths(folder: Path) -> dict[str, Path]:
    """The pictures and videos in a folder by their names without extension."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not files.has_media_name(path):
            continue
        if path.stem in found:
            raise ValueError(
                f"expected one file of a name in a folder, whatever its extension. Received: {found[path.stem]}, {path}"
            )
        found[path.stem] = path
    return found


def _described(source: _Source) -> str:
    return f"a {'video' if source.is_video else 'picture'} of {source.width}x{source.height}"


def _source(path: Path) -> _Source:
    return _picture(path) if files.kind(path) == "image" else _video(path)


def _picture(path: Path) -> _Source:
    still = stills.read(path)
    height, width = still.pixels.shape[:2]
    exif = Image.Exif()
    exif.load(still.exif or b"")
    # Browsers turn a picture as it says.
    if exif.get(_ORIENTATION) in _TURNED:
        width, height = height, width
    suffix, media_type = _PICTURES.get(still.format, _PICTURES["PNG"])
    return _Source(path, suffix, media_type, width, height, False, still.format not in _PICTURES)


def _video(path: Path) -> _Source:
    info = video.probe(path)
    suffix, media_type, codecs = _VIDEOS.get(path.suffix.lower(), ("", "", ()))
    if info.codec not in codecs or info.pix_fmt not in _PLAYED_FORMATS:
        raise ValueError(
            "expected a video that every browser plays; encode it without visible loss as H.264 of 8 bits and 4:2:0 in "
            f".mp4, or as VP9 in .webm. Received: {path}, {info.codec} {info.pix_fmt}"
        )
    width, height = round(info.width * (info.sample_aspect_ratio or 1)), info.height
    if info.rotation_degrees % 180:
        width, height = height, width
    return _Source(path, suffix, media_type, width, height, True)


# Which are for practice, and which are shown twice.


def _spanning(
    stimuli: Mapping[str, plan.Stimulus],
    sources: Mapping[str, Mapping[str, _Source]],
    candidates: Sequence[str],
    count: int,
    chooser: random.Random,
) -> list[str]:
    """One from each of `count` parts of the range of quality, of different items where that is possible."""
    if not count:
        return []
    qualities = {token: _quality(stimuli[token], sources) for token in candidates}
    ranked = sorted(candidates, key=lambda token: (*qualities[token], token))
    chosen: list[str] = []
    for number in range(count):
        group = ranked[number * len(ranked) // count : (number + 1) * len(ranked) // count]
        used = {stimuli[token].item for token in chosen}
        chosen.append(chooser.choice([token for token in group if stimuli[token].item not in used] or group))
    chooser.shuffle(chosen)
    return chosen


def _quality(stimulus: plan.Stimulus, sources: Mapping[str, Mapping[str, _Source]]) -> tuple[bool, float]:
    """Sorts by PSNR, the mean over some frames; the originals are the best, also of what has no difference."""
    if stimulus.condition == plan.REFERENCE:
        return True, 0.0
    original, restored = (_frames(sources[name][stimulus.item]) for name in (plan.REFERENCE, stimulus.condition))
    values = [metrics.psnr(*pair) for pair in zip(original, restored, strict=False)]
    return False, float(np.mean(values))


def _frames(source: _Source) -> Iterator[npt.NDArray[np.uint8]]:
    """8-bit RGB, upright: the picture, or one of so many frames of a video."""
    if source.is_video:
        for frame in islice(video.read_frames(source.path, quantisers=False), 0, None, _STRIDE):
            yield colour.to_rgb(frame.image)
    else:
        with Image.open(source.path, formats=stills.READ_FORMATS) as image:
            yield np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def _spread(
    stimuli: Mapping[str, plan.Stimulus], candidates: Sequence[str], count: int, chooser: random.Random
) -> list[str]:
    """Some at random, as many of one condition as of another."""
    seen: Counter[str] = Counter()
    ranked: list[tuple[int, int, str]] = []
    for token in chooser.sample(candidates, len(candidates)):
        condition = stimuli[token].condition
        ranked.append((seen[condition], len(ranked), token))
        seen[condition] += 1
    return [token for _, _, token in sorted(ranked)[:count]]


# The folder.


def _write(target: Path, study: plan.Study, sources: Mapping[str, Mapping[str, _Source]]) -> None:
    """Writes all files under another name, which becomes the folder's when they are complete."""
    if not target.parent.is_dir():
        raise ValueError(f"the folder of the target must exist; create it first. Received: {target.parent}")
    temporary = target.with_name(f"{files.TEMPORARY_PREFIX}{secrets.token_hex(4)}")
    media = temporary / plan.MEDIA
    try:
        media.mkdir(parents=True)
        for stimulus in study.stimuli.values():
            source = sources[stimulus.condition][stimulus.item]
            if source.converted:
                still = stills.read(source.path)
                stills.write(media / stimulus.file, still.pixels, still)
            else:
                shutil.copyfile(source.path, media / stimulus.file)
        page = resources.files(__package__).joinpath("page.html").read_bytes()
        (temporary / plan.PAGE).write_bytes(page)
        plan.write_study(temporary, study)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
