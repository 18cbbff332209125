"""What a network gains, by how much of the quantiser's error its change is held to (`keras_deartifact.limit`).

    python -m training.sweep_shares --stills=DIR

Pictures below `--stills`, and pans over them (drawings scroll, see `motion`), go through codecs at several qualities
and through the network with the step that the file states. Each row is a codec and a quality, each column a share: the
mean gain over the pictures, and the smallest in brackets. The shares in `restore` were chosen from such tables of
training pictures: the largest gain whose smallest is not below zero. They belong to a model: another one has to be
looked at. Pictures must be clean: what was a JPEG already comes back (nearly) the same from quality 95, and any change
of it counts as a loss.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from absl import app, flags
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from keras_deartifact import codecs, data, engines, image, limit, metrics, quantiser
from training import motion
from training.evaluation.inputs import load_restorers
from training.evaluation.tables import Table, markdown

FLAGS = flags.FLAGS

FRAMES = 9
_SIDE = 288
_LUMA = np.array(image.LUMA_WEIGHTS, np.float32)
_MOST_DB = 80.0
"""What PSNR counts up to, in dB: frames of screens are often coded exactly, and one level in one pixel is no matter."""
Frames = NDArray[np.uint8]

# Name -> the codec, and the qualities of it.
STILLS: dict[str, Callable[[Frames, int], codecs.RoundTrip]] = {
    f"JPEG {subsampling}": lambda frames, quality, subsampling=subsampling: codecs.jpeg(frames, quality, subsampling)
    for subsampling in ("4:2:0", "4:4:4")
}
VIDEOS: dict[str, tuple[Callable[[Frames, int], codecs.RoundTrip], tuple[int, ...]]] = {
    "x264 CRF": (lambda frames, crf: codecs.h264(frames, crf=crf), (8, 12, 18, 22, 28, 34, 40)),
    "MPEG-4 q": (lambda frames, scale: codecs.mpeg4(frames, qscale=scale), (2, 4, 8, 12, 20)),
    "MPEG-2 q": (lambda frames, scale: codecs.mpeg2(frames, qscale=scale), (2, 4, 8, 12, 20)),
}
QUALITIES = (10, 20, 40, 60, 80, 90, 95, 98)


def gains(
    restorer: engines.Restorer, original: Frames, trip: codecs.RoundTrip, shares: Sequence[limit.Share], luma: bool
) -> NDArray[np.float64]:
    """Returns the mean gain in dB for each share.

    Args:
        restorer: what restores.
        original: uint8 `(n, height, width, 3)`, RGB, both sides multiples of 16.
        trip: what a codec made of it, quantisers included.
        shares: of the quantiser's error, see `limit.Share`; infinity for any change.
        luma: whether the frames are a video's, of which PSNR is that of luma in 8 bits; otherwise it is that of RGB.

    Returns:
        float64 `(len(shares),)`, the mean over the frames.
    """
    found = np.zeros((len(original), len(shares)))
    steps: NDArray[np.float32] | None = None
    for index, (frame, shown, stated) in enumerate(zip(original, trip.frames, trip.quantisers, strict=True)):
        steps = quantiser.smoothed(steps, stated)
        compressed = image.to_float(shown)
        change = restorer(compressed[None], steps[None])[0] - compressed
        results = [compressed, *(compressed + _held(shown, change, steps, share, luma) for share in shares)]
        wanted, *levels = (image.to_uint8(each @ _LUMA if luma else each) for each in (image.to_float(frame), *results))
        values = [min(metrics.psnr(wanted, each), _MOST_DB) for each in levels]
        found[index] = np.array(values[1:]) - values[0]
    return found.mean(0)


def _held(
    shown: Frames, change: NDArray[np.float32], steps: NDArray[np.float32], share: limit.Share, luma: bool
) -> NDArray[np.float32]:
    """As much of a change as `restore` takes: of a video, whose share is one number, less where it was drawn."""
    if not luma or isinstance(share, tuple) or share == np.inf:
        return limit.held(image.to_float(shown), change, steps, share)
    return limit.limited(change, steps, limit.shares(shown, steps, share))


def measure(
    restorer: engines.Restorer, files: list[str], shares: list[tuple[float, float]], seed: int = 0
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yields the name of each codec and quality with the gains on every picture, float64 `(pictures, shares)`.

    Args:
        restorer: what restores.
        files: pictures.
        shares: of luma and of chroma where that was reduced, which `restore` tells of pictures; the first for all else.
        seed: of the pans.
    """
    rng = np.random.default_rng(seed)
    pictures, clips = [], []
    for file in files:
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        side = min(_SIDE, min(picture.size) // 16 * 16)
        left, top = ((length - side) // 2 for length in picture.size)
        pictures.append(np.asarray(picture.crop((left, top, left + side, top + side)))[None])
        film = motion.scroll_over if motion.is_drawing(picture) else motion.pan_over
        clips.append(film(rng, picture, side, FRAMES))
    jobs = [(f"{name} {quality}", code, quality, pictures) for name, code in STILLS.items() for quality in QUALITIES]
    jobs += [(f"{name} {value}", code, value, clips) for name, (code, values) in VIDEOS.items() for value in values]
    for name, code, quality, originals in jobs:
        luma = originals is clips
        held = shares if name.startswith("JPEG 4:2:0") else [share for share, _ in shares]
        yield name, np.array([gains(restorer, each, code(each, quality), held, luma) for each in originals])


def _share(text: str) -> tuple[float, float]:
    """A share of luma and one of reduced chroma, such as `1.6/1.1`, or one for both."""
    luma, _, chroma = text.partition("/")
    return float(luma), float(chroma or luma)


def main(argv: list[str]) -> None:
    """Prints the table that the flags ask for."""
    del argv
    try:
        shares = [_share(text) for text in FLAGS.shares]
        files = data.image_files(FLAGS.stills)
        restorer = next(iter(load_restorers([FLAGS.model]).values()))
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    files = files[:: -(-len(files) // FLAGS.pictures)]
    jobs = len(STILLS) * len(QUALITIES) + sum(len(values) for _, values in VIDEOS.values())
    rows = []
    for name, found in tqdm(measure(restorer, files, shares, FLAGS.seed), total=jobs, disable=None):
        cells = [f"{mean:+.2f} ({least:+.2f})" for mean, least in zip(found.mean(0), found.min(0), strict=True)]
        rows.append([name, *cells])
    note = "JPEG: PSNR over RGB; video: over luma. Mean, and the smallest in brackets."
    head = ["", *(f"share {text}" for text in FLAGS.shares)]
    print("\n".join(markdown(Table(f"Gain in dB, {FLAGS.model}, {len(files)} pictures", note, head, rows))))


def define_flags() -> None:
    """Defines the flags. Not at import: programs share names of flags, and tests import several programs."""
    flags.DEFINE_string("stills", None, "Folder of clean pictures.", required=True)
    flags.DEFINE_string("model", "shuffle_nano", "A shipped model's name, or a model's file or folder.")
    flags.DEFINE_list(
        "shares",
        ["0.2", "0.4", "0.6", "0.8", "1.2", "inf"],
        "Shares to compare; 1.6/1.1 is another one for reduced chroma.",
    )
    flags.DEFINE_integer("pictures", 12, "Pictures to take, evenly spread over the folder's.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Seed of the pans.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
