"""Makes pairs of video patches for training: aligned original and compressed frames with their quantiser maps.

    python -m training.prepare_video --data=DIR --out=DIR --clips=1500
    python -m training.prepare_video --data=DIR --out=DIR --clips=4000 --purpose=predicting    (the quality predictor's)

`--data` is searched for videos (any that ffmpeg reads; they should be lossless or nearly) and for pictures: a virtual
camera pans over photographs, and drawings scroll as on a screen (`motion.py`). Every clip is encoded by a random codec
(`degradations.py`), decoded, and cut into patches on the codec's 16-pixel grid, which go to TFRecord shards that
`data.video_pairs` reads.
"""

import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import app, flags, logging
from numpy.typing import NDArray
from PIL import Image

from keras_deartifact import colour, data, degradations, video
from training import motion

FLAGS = flags.FLAGS

_VIDEO_EXTENSIONS = {".mkv", ".mp4", ".mov", ".webm", ".avi", ".y4m", ".ts"}
_CLIPS_PER_SHARD = 50

SCROLL_SHARE = 0.8
"""Of clips of drawings, those as `motion.scroll_over` has them."""


@dataclass(frozen=True)
class Preparation:
    """What kind of pairs to make.

    Attributes:
        side: of the square clips, in pixels, a multiple of 16.
        frames: of a clip.
        patches: taken from a clip.
        candidates: so many times as many are cut, of which the flattest are left out.
        patch: side of a patch, a multiple of 16.
        video_share: share of clips that are cut from real videos, where there are any.
        soft_share: see `motion.soften_and_grain`.
        grain_share: see there.
        config: how clips are degraded.
    """

    side: int = 272
    frames: int = 20
    patches: int = 12
    candidates: int = 2
    patch: int = 128
    video_share: float = 0.3
    soft_share: float = 0.0
    grain_share: float = 0.0
    config: degradations.VideoConfig = degradations.VideoConfig()


PREPARATIONS = {
    "restoring": Preparation(),
    # Many short clips: what has to be learnt differs from clip to clip. Only codecs that state their steps.
    "predicting": Preparation(
        side=224,
        frames=10,
        patches=4,
        candidates=1,
        patch=160,
        video_share=0.2,
        soft_share=0.3,
        grain_share=0.5,
        config=degradations.VideoConfig(
            codec_shares=(("h264", 0.8), ("mpeg2", 0.08), ("mpeg4", 0.12)),
            crf_range=(14, 46),
            wide_share=0.0,
            bitrate_share=0.1,
            qscale_range=(2, 28),
            double_share=0.2,
            unknown_share=0.0,
            still_first_share=0.3,
            coarser_of_double=True,
            clean_share=0.12,
        ),
    ),
}


def read_clips(files: list[Path]) -> list[NDArray[np.uint8]]:
    """Reads whole videos into memory as uint8 RGB `(n, height, width, 3)`."""
    return [
        np.stack([colour.to_rgb(frame.image) for frame in video.read_frames(str(file), quantisers=False)])
        for file in files
    ]


def cut_clip(rng: np.random.Generator, clip: NDArray[np.uint8], side: int, count: int) -> NDArray[np.uint8]:
    """Cuts a random `(count, side, side, 3)` out of a clip, shorter and smaller where the clip is."""
    sizes = (count, min(side, clip.shape[1] // 16 * 16), min(side, clip.shape[2] // 16 * 16))
    begin = [int(rng.integers(0, max(0, have - want) + 1)) for have, want in zip(clip.shape, sizes, strict=False)]
    window = tuple(slice(start, start + size) for start, size in zip(begin, sizes, strict=True))
    cut = clip[window]
    return cut[:, :, ::-1] if rng.random() < 0.5 else cut


def still_clip(rng: np.random.Generator, file: str, side: int, count: int) -> NDArray[np.uint8]:
    """Films a picture, `(count, side, side, 3)` or smaller where that is: a drawing mostly as a screen shows it."""
    with Image.open(file) as picture:
        rgb = picture.convert("RGB")
    film = motion.scroll_over if motion.is_drawing(rgb) and rng.random() < SCROLL_SHARE else motion.pan_over
    return film(rng, rgb, min(side, min(rgb.size) // 16 * 16), count)


def patches(
    rng: np.random.Generator,
    pair: tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]],
    preparation: Preparation,
) -> list[bytes]:
    """Cuts random patches on the 16-pixel grid, the flattest of the candidates left out."""
    original, compressed, maps = pair
    side = preparation.patch
    candidates = []
    for _ in range(preparation.candidates * preparation.patches):
        index = int(rng.integers(len(original)))
        row, column = (16 * int(rng.integers((size - side) // 16 + 1)) for size in original.shape[1:3])
        area = (index, slice(row, row + side), slice(column, column + side))
        detail = float(np.abs(np.diff(original[area][..., 1].astype(np.int16), axis=1)).mean())
        candidates.append((detail, area))
    candidates.sort(key=lambda candidate: -candidate[0])
    records = []
    for _, (index, rows, columns) in candidates[: preparation.patches]:
        blocks = (index, slice(rows.start // 16, rows.stop // 16), slice(columns.start // 16, columns.stop // 16))
        area = (index, rows, columns)
        records.append(data.serialise_pair(original[area], compressed[area], maps[blocks]))
    return records


def usable_photographs(folders: Sequence[str], smallest_side: int) -> list[str]:
    """Returns the pictures that can be opened and are no smaller; the others are named in the log."""
    usable = []
    for folder in folders:
        try:
            files = data.image_files(folder)
        except ValueError:
            continue
        for file in files:
            try:
                with Image.open(file) as photograph:
                    size = photograph.size
                    photograph.verify()
            except (OSError, SyntaxError) as error:
                logging.warning("left out %s: %s", file, error)
                continue
            if min(size) < smallest_side:
                logging.warning("left out %s: %d x %d pixels", file, *size)
                continue
            usable.append(file)
    return usable


def prepare(
    folders: Sequence[str], out: Path, clips: int, preparation: Preparation = PREPARATIONS["restoring"], seed: int = 0
) -> None:
    """Makes the shards; the arguments are what the flags of their names say.

    Raises:
        ValueError: a side is no multiple of 16, the patch does not fit, or there is nothing to make clips of.
    """
    side, patch = preparation.side, preparation.patch
    # A clip that is cropped between two encodes loses 16 pixels, and one that is not encoded is reduced.
    reduction = degradations.CLEAN_REDUCTION if preparation.config.clean_share else 1.0
    smallest_side = max(patch + 16, math.ceil(patch * reduction))
    if side % 16 or patch % 16 or side < smallest_side:
        raise ValueError(f"Expected multiples of 16, side >= {smallest_side}. Received: side={side}, patch={patch}")
    rng = np.random.default_rng(seed)
    files = [path for folder in folders for path in sorted(Path(folder).rglob("*"))]
    videos = read_clips([path for path in files if path.suffix.lower() in _VIDEO_EXTENSIONS])
    videos = [clip for clip in videos if min(clip.shape[1:3]) >= smallest_side]
    photographs = usable_photographs(folders, smallest_side)
    if not videos and not photographs:
        raise ValueError(f"There is no video or photograph of {smallest_side} pixels each way below {list(folders)}.")
    os.makedirs(out, exist_ok=True)
    made = 0
    for shard in itertools.count():
        name = out / f"pairs-{seed:03d}-{shard:04d}.tfrecord"
        records: list[bytes] = []
        for _ in range(min(_CLIPS_PER_SHARD, clips - made)):
            if videos and (not photographs or rng.random() < preparation.video_share):
                clip = cut_clip(rng, videos[int(rng.integers(len(videos)))], side, preparation.frames)
            else:
                clip = still_clip(rng, photographs[int(rng.integers(len(photographs)))], side, preparation.frames)
            clip = motion.soften_and_grain(rng, clip, preparation.soft_share, preparation.grain_share)
            pair = degradations.degrade_clip(rng, np.ascontiguousarray(clip), preparation.config)
            records += patches(rng, pair, preparation)
            made += 1
        # The shard appears whole or not at all: training may be reading the folder already.
        temporary = name.with_suffix(".part")
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for index in rng.permutation(len(records)):
                writer.write(records[index])
        temporary.rename(name)
        logging.info("%s: %d of %d clips", name.name, made, clips)
        if made >= clips:
            return


def main(argv: list[str]) -> None:
    """Makes the shards that the flags ask for."""
    del argv
    try:
        prepare(FLAGS.data, Path(FLAGS.out), FLAGS.clips, PREPARATIONS[FLAGS.purpose], FLAGS.seed)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


def define_flags() -> None:
    """Defines the flags. Not at import: programs share names of flags, and tests import several programs."""
    flags.DEFINE_multi_string("data", None, "Folder of videos and photographs; may be repeated.", required=True)
    flags.DEFINE_string("out", None, "Folder for the shards.", required=True)
    flags.DEFINE_integer("clips", 1500, "Clips to make.", lower_bound=1)
    flags.DEFINE_enum("purpose", "restoring", sorted(PREPARATIONS), "What is to be trained on them.")
    flags.DEFINE_integer("seed", 0, "Seed of every choice; another seed makes other shards.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
