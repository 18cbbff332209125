"""How fast restoring is on this machine: each model, the stages around it, whole runs, and the memory those take.

What is timed at each size takes turns, round by round, so that a processor whose clock drifts treats all alike:

- a product of two large float32 matrices by numpy: the machine's peak, in multiply-accumulates a second;
- each model with each engine that has a form of it, and with each provider of ONNX Runtime, on a decoded frame and its
  quantiser map, through what `restore_video` calls (`restore_frames`);
- the quality predictor, on the same frame;
- the stages around the network, as `restore_video` has them: decoding with and without the export of quantisers,
  conversion to float RGB, adding the network's correction to the planes, encoding.

Then each model restores the whole clip, with its first engine and the fastest, again in turns, and each time in a
process of its own, because the peak memory of a process never falls. `remember` tells `engines` how fast the networks
are, for its choice. Absolute numbers are those of one machine in one state: compare ratios, which are taken round
by round. A model's work is

    GMAC = multiply-accumulates of a 720p frame * rows * columns / (720 * 1280) / 10^9

with rows and columns of the frame padded to a multiple of 16, which is what the network sees.
"""

from keras_deartifact.bench.hardware import machine, machine_lines
from keras_deartifact.bench.measurement import measure, turns
from keras_deartifact.bench.memory import remember
from keras_deartifact.bench.processes import in_own_process, peak_memory_bytes, run_pickled
from keras_deartifact.bench.results import (
    NetworkRow,
    RunRow,
    SizeReport,
    Spread,
    StageRow,
    gmac,
    ratio,
    read_sizes,
    spread,
)
from keras_deartifact.bench.settings import CRF, QUICK, SIZES, STANDARD, Settings
from keras_deartifact.bench.stages import make_clip
from keras_deartifact.bench.subjects import Skipped, Subject, digests, load, notes
from keras_deartifact.bench.tables import cell, network_table, run_table, stage_table
from keras_deartifact.bench.timing import interleaved

__all__ = [
    "CRF",
    "QUICK",
    "SIZES",
    "STANDARD",
    "NetworkRow",
    "RunRow",
    "Settings",
    "SizeReport",
    "Skipped",
    "Spread",
    "StageRow",
    "Subject",
    "cell",
    "digests",
    "gmac",
    "in_own_process",
    "interleaved",
    "load",
    "machine",
    "machine_lines",
    "make_clip",
    "measure",
    "network_table",
    "notes",
    "peak_memory_bytes",
    "ratio",
    "read_sizes",
    "remember",
    "run_pickled",
    "run_table",
    "spread",
    "stage_table",
    "turns",
]
