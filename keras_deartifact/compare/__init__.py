"""Compares restored files with their originals, and with what they were restored from: pictures, videos, folders.

Up to three roles, `original`, `restored` and `compressed`; where there is no original, the metrics that need none are
left. What is measured:

| | pictures | videos |
|---|---|---|
| against the original | `metrics.METRICS`, of RGB and of luma | PSNR over RGB; PSNR and SSIM over luma; flicker |
| without one | NIQE, BRISQUE | the same of every Nth frame; VIIDEO |
| cost | bits of the file a pixel | bits of the video's packets a pixel |

Pictures are compared as stored, in 8 bits: 16 are rounded. They are turned upright only where their EXIF orientations
differ, and pixels that alpha hides count as black; alpha itself has to be equal.

Frames are partners if they are shown at the same time (`timeline`); a frame without one in every other file is counted
and not measured. The luma of a video is its decoded plane, at its own depth on the scale of 8 bits (code 64 of 10 bits
is 16), peak 255; where range, matrix or kind of planes differ, the full-range luma of the frame's RGB. PSNR over RGB
and all but PSNR and SSIM take 8 bits.

A value is a number, infinite where a metric's docstring says so (the PSNR of equal pictures, the NIQE of a constant
one), and None where a metric cannot be measured, with a note that says why. There is no NaN. A mean over frames or
files leaves out those where the metric is infinite in any role, so that the mean gain is the difference of the means; a
note counts them.
"""

from keras_deartifact.compare.paths import compare_files, compare_folders
from keras_deartifact.compare.results import METRICS, ROLES, Comparison, FolderComparison, Gain, Metric, Sample

__all__ = [
    "METRICS",
    "ROLES",
    "Comparison",
    "FolderComparison",
    "Gain",
    "Metric",
    "Sample",
    "compare_files",
    "compare_folders",
]
