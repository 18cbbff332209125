"""What libtiff says of a broken file: it writes to the process's stderr, past Python, and goes on where it can."""

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from typing import BinaryIO

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SHOWN = 3

# There is one stderr.
_lock = threading.RLock()


@contextlib.contextmanager
def overheard(stream: BinaryIO) -> Iterator[list[str]]:
    """Keeps stderr for itself while the block reads a TIFF; does nothing for other files.

    Args:
        stream: the file, from its beginning; its position is kept.

    Yields:
        A list that holds, after the block, what libtiff said: distinct lines, the first ones where there are many.
    """
    said: list[str] = []
    place = stream.tell()
    is_tiff = stream.read(4) in _MAGIC
    stream.seek(place)
    if not is_tiff:
        yield said
        return
    with _lock, tempfile.TemporaryFile() as kept:
        saved = os.dup(2)
        try:
            os.dup2(kept.fileno(), 2)
            yield said
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            kept.seek(0)
            lines = [" ".join(line.decode(errors="replace").split()) for line in kept]
            said += [line for line in dict.fromkeys(lines) if line][:_SHOWN]
