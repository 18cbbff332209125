"""`deartifact demo`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from keras_deartifact import console
from keras_deartifact.cli.common import DONE, Parser, frame_count, load_networks


def add(add_parser: Callable[..., Parser], parents: list[Parser]) -> None:
    """Adds the sub-command."""
    parser = add_parser(
        "demo",
        parents=parents,
        help="make a short clip look old, restore it, and print what that gained",
        description="Encodes a short lossless clip as an old video, restores that, and compares both files with the "
        "clip. Leaves before.mp4, after.mp4 and side-by-side.png. The clip is from Big Buck Bunny (c) 2008 Blender "
        "Foundation, www.bigbuckbunny.org, CC BY 3.0.",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("deartifact-demo"),
        metavar="FOLDER",
        help="where to; what an earlier demonstration left there is replaced (default: deartifact-demo)",
    )
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from keras_deartifact import demo, restore

    restorer, predictor = load_networks(arguments)
    folder: Path = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    before, after, sheet = (folder / name for name in ("before.mp4", "after.mp4", "side-by-side.png"))
    demo.compress(before)
    with console.progress(frame_count(before), before.name) as step_to:
        report = restore.restore_video(restorer, before, after, predictor=predictor, overwrite=True, progress=step_to)
    rows = {"before.mp4": demo.measure(before), "after.mp4": demo.measure(after)}
    old, new = rows.values()
    labels = ["original", f"H.264, CRF {demo.CRF}: {old.psnr:.2f} dB", f"restored: {new.psnr:.2f} dB"]
    demo.side_by_side(sheet, [demo.CLIP, before, after], labels)
    print(f"Big Buck Bunny (c) 2008 Blender Foundation, CC BY 3.0; {report.frames} frames by x264 at CRF {demo.CRF}")
    print(f"{'':<12}{'PSNR RGB':>10}{'PSNR Y':>10}{'SSIM Y':>10}{'bits/pixel':>12}")
    for name, row in rows.items():
        print(f"{name:<12}{row.psnr:>7.2f} dB{row.psnr_y:>7.2f} dB{row.ssim:>10.4f}{row.bits_per_pixel:>12.3f}")
    gains = new.psnr - old.psnr, new.psnr_y - old.psnr_y, new.ssim - old.ssim
    print(f"{'gain':<12}{gains[0]:>+7.2f} dB{gains[1]:>+7.2f} dB{gains[2]:>+10.4f}")
    print("Means over the frames of the files themselves, decoded: after.mp4 includes the loss of its own encode.")
    print(f"{report.fps:.1f} fps at 640x360, inference busy {100 * report.inference_busy:.0f} %")
    print(f"See {sheet}, {before} and {after}")
    return DONE
