"""The flags that say how a copy is made, of every command that makes one."""

import argparse
from pathlib import Path
from typing import Any

from keras_deartifact.cli.common import Parser, within


def add_flags(parser: Parser) -> None:
    """Adds them."""
    parser.add_argument(
        "--strength",
        type=_strength,
        metavar="S",
        help="0 changes nothing, 1 takes what the network makes, up to 2 exaggerates it (default: 1, held back where "
        "it would change more than the compression can account for)",
    )
    parser.add_argument(
        "--codec",
        help="encoder of a video: libx264 (the default, because everything plays it; up to 10 bits), libx265 (the "
        "default for 12 bits; smaller and several times slower), libx264rgb (the default for RGB), libvpx-vp9 (the "
        "default for .webm), libsvtav1, ffv1 (lossless; the default for alpha in .mkv)",
    )
    parser.add_argument(
        "--crf",
        type=float,
        metavar="N",
        help="quality of a video in the encoder's own scale, down is better (default: 14 for H.264 and H.265, 10 for "
        "VP9 and AV1, at which the second encode takes back 0.02 dB of a source of CRF 40 and about 0.1 dB of one of "
        "CRF 28)",
    )
    parser.add_argument(
        "--preset",
        metavar="P",
        help="speed of the encoder against size, in its own words (default: faster for H.264 and H.265, because slower "
        "ones make files a few percent smaller and take the processor from the network)",
    )
    parser.add_argument(
        "--quality",
        type=int,
        metavar="Q",
        help="of a JPEG, 1 to 100 (default: 98, at which a restored picture keeps what it gained), or of a lossy WebP "
        "(default: lossless)",
    )
    parser.add_argument(
        "--bits",
        type=int,
        choices=(8, 16),
        help="of a picture's samples (default: as many as the input has); 16, for PNG and TIFF, keep what the network "
        "makes finer than 8 can hold; in a folder as output, other pictures then become .png",
    )
    parser.add_argument(
        "--within-quantisation",
        action="store_true",
        help="of a JPEG: bring the result into the intervals that the file's own quantisation leaves open, so that it "
        "is a picture which this file can have been made from: recompressed in the same way it gives the same "
        "coefficients, of fine steps nearly all. With a folder as input, files of other formats are restored without "
        "it",
    )
    parser.add_argument(
        "--drop",
        action="store_true",
        help="leave out, and name before work starts, what the output's container or codec cannot hold of a video: "
        "streams, alpha, HDR metadata of single frames; without this such a video is refused, with what can hold it",
    )
    parser.add_argument(
        "--deinterlace",
        action="store_true",
        help="make one progressive frame of each interlaced frame of a video, after it was restored (by default its "
        "fields are restored one by one, and stay fields)",
    )


def add_choice(group: Any, folder: str) -> None:
    """Adds the flags that choose among the files of a folder, whose name in the help is given; see `plan.chosen`."""
    group.add_argument(
        "--include",
        action="append",
        metavar="GLOB",
        help=f"only files whose path below {folder} matches, such as '*.mp4'; may be given several times, and one "
        "match is enough. * stands for any characters, / too, upper and lower case are alike, and what matches a "
        "folder holds for all in it",
    )
    group.add_argument(
        "--exclude",
        action="append",
        metavar="GLOB",
        help="leave out files that match, such as 'drafts/*'; several times, too, and stronger than --include",
    )


def of_file(arguments: argparse.Namespace, source: Path, media: str) -> dict[str, Any]:
    """What the arguments are to `restore_image` or `restore_video`."""
    options: dict[str, Any] = {"strength": arguments.strength, "overwrite": arguments.overwrite}
    if media == "image":
        from keras_deartifact import files

        within = arguments.within_quantisation and (not arguments.input.is_dir() or files.is_jpeg(source))
        return options | {"quality": arguments.quality, "bits": arguments.bits, "within_quantisation": within}
    return options | {
        "codec": arguments.codec,
        "crf": arguments.crf,
        "preset": arguments.preset,
        "drop": arguments.drop,
        "deinterlace": arguments.deinterlace,
    }


def _strength(text: str) -> float:
    return within(text, float(text), 0.0, 2.0)
