"""Measures models beside the compressed input and classical filters, all in the same run.

    python -m training.evaluate --model=shuffle_nano --stills=DIR --grey=DIR --videos=DIR --json=FILE --report=FILE.html

Pictures below `--stills` (colour) and `--grey` (the luma of grey JPEGs, the literature's protocol) are compressed by
Pillow, clips in `--videos` (lossless, 8 bit) by the encoders of `evaluation.videos`; all are restored as `deartifact
restore` does. What is measured, and how: `evaluation.stills`, `evaluation.videos`, `evaluation.rate`.

Figures are means over pictures or clips, gains those of each one's gain, with the 95 % bootstrap interval of that mean
over the pictures or clips. A filter gets the strength that is best for each setting, which favours it. The tables go to
standard output in Markdown; `--json` keeps every figure, `--report` is one HTML file with tables, curves and pictures.
What a detector finds and how fast the machine is belong to the same report: `--detection` and `--bench` take the files
that `training.evaluate_detection --json` and `deartifact bench --json` wrote.
"""

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from absl import app, flags

from keras_deartifact import engines
from training import baselines
from training.evaluation import report, tables
from training.evaluation.inputs import check_targets, load_restorers, model_files, usable_filters
from training.evaluation.other_programs import read_detection, read_speed
from training.evaluation.records import Records
from training.evaluation.stills import Shown, measure_stills
from training.evaluation.videos import measure_videos, speeds_720p

FLAGS = flags.FLAGS

_STILL_METRICS = ("psnr", "psnr_y", "ssim", "deep")
_VIDEO_METRICS = ("psnr_y", "vmaf", "ssim", "flicker")


def make_tables(records: Records, needs_rates: bool, speeds: dict[str, float] | None = None) -> list[tables.Table]:
    """Returns the tables of a run's records.

    Args:
        records: of any sets and protocols.
        needs_rates: with the delta rates, for which the package bjontegaard is needed.
        speeds: frames a second at 720p, by method.
    """
    made = []
    for protocol in ("colour", "grey", "video"):
        for data in records.where(protocol=protocol).names("data"):
            chosen = records.where(protocol=protocol, data=data)
            if protocol == "grey":
                made.append(tables.fidelity(chosen))
                continue
            is_video = protocol == "video"
            measured = {name for record in chosen for name in record.values}
            names = [name for name in (_VIDEO_METRICS if is_video else _STILL_METRICS) if name in measured]
            made += [tables.gains(chosen, name) for name in names]
            judges = ("viideo", "niqe", "brisque") if is_video else ("niqe", "brisque")
            if measured.issuperset(judges):
                made += [
                    tables.no_reference(chosen.where(setting=setting), judges, speeds if is_video else None)
                    for setting in chosen.names("setting")
                ]
            if needs_rates:
                made += tables.delta_rates(chosen, [name for name in names if name not in ("flicker", "deep")])
    return made


def make_plots(records: Records) -> list[report.Plot]:
    """Returns the curves of quality over rate of a run's records."""
    plots = []
    for protocol, metrics in (("colour", _STILL_METRICS[:3]), ("video", _VIDEO_METRICS[:3])):
        for data in records.where(protocol=protocol).names("data"):
            for metric in metrics:
                for codec, curves in tables.rates(records.where(protocol=protocol, data=data), metric):
                    plots.append((f"{data}, {codec}", tables.METRICS[metric][0], curves))
    return plots


def _measure(models: list[str], filters: list[str]) -> tuple[list[Any], list[Shown], dict[str, float]]:
    restorers = load_restorers(models, [float(share) for share in FLAGS.perceptions])
    qualities = [int(quality) for quality in FLAGS.qualities]
    more: dict[str, Any] = {}
    if FLAGS.deep_features:
        from keras_deartifact.deep_distance import deep_distance

        more["deep"] = deep_distance("hed_vgg16", FLAGS.deep_features)
    records, shown = [], []
    for folder in FLAGS.stills:
        made, kept = measure_stills(folder, "colour", qualities, restorers, filters, FLAGS.shown, more)
        records += made
        shown += kept
    for folder in FLAGS.grey:
        records += measure_stills(folder, "grey", qualities, restorers, filters)[0]
    for folder in FLAGS.videos:
        records += measure_videos(folder, FLAGS.frames, restorers, filters)
    speeds = speeds_720p(FLAGS.videos[0], FLAGS.frames, restorers) if FLAGS.videos else {}
    return records, shown, speeds


def _digests(models: list[str]) -> dict[str, str]:
    """The hash of every model that is one file."""
    return {name: engines.digest(file) for name, file in model_files(models).items() if file.is_file()}


def _other_figures() -> tuple[list[tables.Table], dict[str, str]]:
    """Tables of what other programs measured, and where they come from."""
    made: list[tables.Table] = []
    facts: dict[str, str] = {}
    for file, read in ((FLAGS.detection, read_detection), (FLAGS.bench, read_speed)):
        if file:
            more, sources = read(file)
            made += more
            facts |= sources
    return made, facts


def _has_rates() -> bool:
    try:
        import bjontegaard  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        print(f"no rates and curves: they need {error.name} (pip install '.[measure]')", file=sys.stderr)
        return False
    return True


def main(argv: list[str]) -> None:
    """Prints the tables that the flags ask for."""
    del argv
    if not (FLAGS.stills or FLAGS.grey or FLAGS.videos):
        raise SystemExit("error: give --stills, --grey, --videos or several of them.")
    has_rates = _has_rates()
    try:
        check_targets(FLAGS.json, FLAGS.report)
        other_tables, sources = _other_figures()
        filters = usable_filters(list(baselines.FILTERS) if FLAGS.filters == ["all"] else FLAGS.filters)
        records, shown, speeds = _measure(FLAGS.model, filters)
        digests = _digests(FLAGS.model)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    made = make_tables(Records(records), has_rates, speeds) + other_tables
    print(*(line for table in made for line in tables.markdown(table)), sep="\n")
    if FLAGS.json:
        figures = {
            "sha256": digests,
            "fps at 720p": speeds,
            "sources": sources,
            "tables": [dataclasses.asdict(table) for table in made],
            "records": [dataclasses.asdict(record) for record in records],
        }
        Path(FLAGS.json).write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n")
    if FLAGS.report:
        facts = {"command": f"python -m training.evaluate {shlex.join(sys.argv[1:])}"}
        facts |= {f"SHA-256 of {name}": digest for name, digest in digests.items()} | sources
        plots = make_plots(Records(records)) if has_rates else []
        Path(FLAGS.report).write_text(report.render("What restoring gains", facts, made, plots, shown), "utf-8")


def define_flags() -> None:
    """Defines the flags. Not at import: programs share names of flags, and tests import several programs."""
    flags.DEFINE_multi_string("model", [engines.DEFAULT_MODEL], "A shipped model's name, or a model's file or folder.")
    flags.DEFINE_list("perceptions", [], "Of the default model, as of 'deartifact restore --perception'.")
    flags.DEFINE_multi_string("stills", [], "Folder of clean pictures; may be given several times.")
    flags.DEFINE_multi_string("grey", [], "Folder of clean pictures to measure as grey JPEGs; likewise.")
    flags.DEFINE_multi_string("videos", [], "Folder of lossless clips; likewise.")
    flags.DEFINE_list("qualities", ["10", "20", "30", "40", "90", "95"], "JPEG qualities.")
    flags.DEFINE_list("filters", ["spp"], f"Filters to compare with, of {', '.join(baselines.FILTERS)}; or all.")
    flags.DEFINE_string("deep_features", None, "File of HED VGG-16 (training/README.md) to measure distances in.")
    flags.DEFINE_integer("frames", 30, "Frames of a clip; VIIDEO needs 22.", lower_bound=1)
    flags.DEFINE_integer("shown", 4, "Pictures of each folder of --stills to show in the report.", lower_bound=0)
    flags.DEFINE_string("detection", None, "What training.evaluate_detection --json wrote, to show it as well.")
    flags.DEFINE_string("bench", None, "What deartifact bench --json wrote, to show it as well.")
    flags.DEFINE_string("json", None, "File for the figures.")
    flags.DEFINE_string("report", None, "HTML file for the report.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
