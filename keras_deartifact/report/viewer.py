"""Two versions of a picture with a line between them, as part of a page: viewer.css and viewer.js."""

import base64
import io
import json
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["picture_address", "script_data", "text_of", "with_viewer"]


def text_of(name: str) -> str:
    """Returns a file of this package."""
    return resources.files("keras_deartifact.report").joinpath(name).read_text("utf-8")


def with_viewer(template: str) -> str:
    """Puts what all pages share where they have it: `/* page.css */`, `/* viewer.css */` and `// viewer.js`."""
    for place, name in {
        "/* page.css */": "page.css",
        "/* viewer.css */": "viewer.css",
        "// viewer.js": "viewer.js",
    }.items():
        template = template.replace(place, text_of(name))
    return template


def picture_address(pixels: NDArray[np.uint8]) -> str:
    """Returns a picture, RGB or grey, as an address that holds it, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def script_data(values: Any) -> str:
    """Returns values as JSON to put into a page's script element, which no text in them can end."""
    return json.dumps(values, allow_nan=False).replace("<", "\\u003c")
