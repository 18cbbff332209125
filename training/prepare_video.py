"""Makes pairs of video patches for training: aligned original and compressed frames with their quantiser maps.

    python -m training.prepare_video --data=DIR --out=DIR --clips=1500

`--data` is searched for videos (any that ffmpeg reads; they should be lossless or nearly) and for photographs, over
which a virtual camera pans (`motion.py`). Every clip is encoded by a random codec (`degradations.py`), decoded, and cut
into patches on the codec's 16-pixel grid, which go to TFRecord shards that `data.video_pairs` reads.
"""

import itertools
import os
from collections.abc import Sequence
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


def patches(
    rng: np.random.Generator,
    pair: tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]],
    count: int,
    side: int,
) -> list[bytes]:
    """Cuts `count` random patches on the 16-pixel grid, the flattest half of the candidates left out."""
    original, compressed, maps = pair
    candidates = []
    for _ in range(2 * count):
        index = int(rng.integers(len(original)))
        row, column = (16 * int(rng.integers((size - side) // 16 + 1)) for size in original.shape[1:3])
        area = (index, slice(row, row + side), slice(column, column + side))
        detail = float(np.abs(np.diff(original[area][..., 1].astype(np.int16), axis=1)).mean())
        candidates.append((detail, area))
    candidates.sort(key=lambda candidate: -candidate[0])
    records = []
    for _, (index, rows, columns) in candidates[:count]:
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
    folders: Sequence[str],
    out: Path,
    clips: int,
    side: int = 272,
    frames: int = 20,
    patches_per_clip: int = 12,
    patch: int = 128,
    video_share: float = 0.3,
    seed: int = 0,
) -> None:
    """Makes the shards; the arguments are what the flags of their names say.

    Raises:
        ValueError: a side is no multiple of 16, the patch does not fit, or there is nothing to make clips of.
    """
    if side % 16 or patch % 16 or patch > side - 16:
        raise ValueError(f"Expected multiples of 16, patch <= side - 16. Received: side={side}, patch={patch}")
    rng = np.random.default_rng(seed)
    # A clip that is cropped between two encodes loses 16 pixels.
    smallest_side = patch + 16
    files = [path for folder in folders for path in sorted(Path(folder).rglob("*"))]
    videos = read_clips([path for path in files if path.suffix.lower() in _VIDEO_EXTENSIONS])
    videos = [clip for clip in videos if min(clip.shape[1:3]) >= smallest_side]
    photographs = usable_photographs(folders, smallest_side)
    if not videos and not photographs:
        raise ValueError(f"There is no video or photograph of {smallest_side} pixels each way below {list(folders)}.")
    os.makedirs(out, exist_ok=True)
    config = degradations.VideoConfig()
    made = 0
    for shard in itertools.count():
        name = out / f"pairs-{seed:03d}-{shard:04d}.tfrecord"
        records: list[bytes] = []
        for _ in range(min(_CLIPS_PER_SHARD, clips - made)):
            if videos and (not photographs or rng.random() < video_share):
                clip = cut_clip(rng, videos[int(rng.integers(len(videos)))], side, frames)
            else:
                with Image.open(photographs[int(rng.integers(len(photographs)))]) as photograph:
                    rgb = photograph.convert("RGB")
                clip = motion.pan_over(rng, rgb, min(side, min(rgb.size) // 16 * 16), frames)
            pair = degradations.degrade_clip(rng, np.ascontiguousarray(clip), config)
            records += patches(rng, pair, patches_per_clip, patch)
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
        prepare(
            FLAGS.data,
            Path(FLAGS.out),
            FLAGS.clips,
            FLAGS.side,
            FLAGS.frames,
            FLAGS.patches,
            FLAGS.patch,
            FLAGS.video_share,
            FLAGS.seed,
        )
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


def define_flags() -> None:
    """Defines the flags. Not at import: programs share names of flags, and tests import several programs."""
    flags.DEFINE_multi_string("data", None, "Folder of videos and photographs; may be repeated.", required=True)
    flags.DEFINE_string("out", None, "Folder for the shards.", required=True)
    flags.DEFINE_integer("clips", 1500, "Clips to make.", lower_bound=1)
    flags.DEFINE_integer("side", 272, "Side of the square clips, in pixels.", lower_bound=144)
    flags.DEFINE_integer("frames", 20, "Frames of a clip.", lower_bound=3)
    flags.DEFINE_integer("patches", 12, "Patches taken from a clip.", lower_bound=1)
    flags.DEFINE_integer("patch", 128, "Side of a patch, a multiple of 16.", lower_bound=16)
    flags.DEFINE_float("video_share", 0.3, "Share of clips cut from real videos, where there are any.")
    flags.DEFINE_integer("seed", 0, "Seed of every choice; another seed makes other shards.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
