"""One HTML file that shows what was restored: opened in any browser, without a network.

`samples` looks at a file and its restored copy: pictures to compare by eye, and how the compression and the change went
over time. `page` puts what was found and done around them. `with_viewer`, `picture_address` and `script_data` are what
other pages share with it.
"""

from keras_deartifact.report.page import Entry, page
from keras_deartifact.report.samples import Curve, Samples, Shown, samples
from keras_deartifact.report.viewer import picture_address, script_data, with_viewer

__all__ = [
    "Curve",
    "Entry",
    "Samples",
    "Shown",
    "page",
    "picture_address",
    "samples",
    "script_data",
    "with_viewer",
]
