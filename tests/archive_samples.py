"""Trees of files to restore, and the command as a process whose workers can be made to misbehave."""

import contextlib
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from keras_deartifact import cli
from keras_deartifact.archive import storage

# The models that ship are here in several forms, of which the fastest is taken: not always the same.
ENGINE = ("--engine", "litert")

ROOT = Path(__file__).resolve().parents[1]

# Workers of this machine import the script of the command again, so that what it changes holds there, too.
COMMAND = """
import os, signal, sys, time
from keras_deartifact import restore
from keras_deartifact.cli import main

image_steps, restore_segment = restore.image_steps, restore.restore_segment

def counted(restorer, predictor, source, plan, index, *arguments, **options):
    made = restore_segment(restorer, predictor, source, plan, index, *arguments, **options)
    with open(__file__ + ".made", "a") as file:
        print(index, file=file)
    return made

restore.restore_segment = counted

{}

if __name__ == "__main__":
    sys.exit(main())
"""

SLOW = """
def slow(*arguments, **options):
    time.sleep(0.3)
    return counted(*arguments, **options)

restore.restore_segment = slow
"""


def make_tree(folder, photo, make_video):
    """Pictures, a video of four segments, one of a single segment, a text and a file that is broken."""
    (folder / "drafts" / "old").mkdir(parents=True)
    Image.fromarray(photo(40, 48)).save(folder / "a.jpg", quality=30)
    Image.fromarray(photo(40, 48)).save(folder / "drafts" / "b.gif")
    Image.fromarray(photo(40, 48)).save(folder / "drafts" / "old" / "C.JPG")
    make_video(folder / "d.mp4", times=[0, 40, 80])
    # A segment is no longer than 20 seconds.
    make_video(folder / "long.mkv", acodec=None, times=[1000 * index for index in range(75)])
    (folder / "notes.txt").write_text("nothing to see\n" * 9)
    (folder / "bad.mp4").write_bytes(b"nothing to see" * 9)
    return folder


def make_trees(folder, photo, make_video):
    """A tree, and what `restore` makes of it."""
    source, expected = make_tree(folder / "in", photo, make_video), folder / "expected"
    assert restore(source, expected) == 2
    return source, expected


def restore(source, target):
    """The command `deartifact restore`; returns its exit code."""
    return cli.main(["restore", str(source), "-o", str(target), *ENGINE])


def names(folder):
    """Of the files in a folder, but those of work that is kept there."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if not path.parts[0].startswith(".deartifact-"))


def require_equal(folder, expected):
    """Both hold the same files, byte for byte."""
    assert names(folder) == names(expected)
    for name in names(expected):
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name


def start(folder, *arguments, changes="", **options):
    """Starts the command `deartifact archive` as a process, with what `changes` does in all of its processes."""
    script = folder / "command.py"
    script.write_text(COMMAND.format(changes))
    command = [sys.executable, str(script), "archive", *map(str, arguments), *ENGINE]
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process, seconds=60):
    """Waits for the command; returns exit code, stdout and stderr."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def made(folder):
    """The positions of the segments that commands made, each time that one did."""
    return [int(line) for line in (folder / "command.py.made").read_text().splitlines()]


@contextlib.contextmanager
def s3_bucket():
    """The URL of a bucket on a server of its own, which the processes of this machine find by the environment."""
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    import s3fs

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem().mkdir("bucket")
        yield "s3://bucket"
        s3fs.S3FileSystem.clear_instance_cache()
    running.stop()


def write(place, name, data):
    """Writes bytes to a file in a place."""
    with place.writing(name) as path:
        path.write_bytes(data)


def read(place, name):
    """Reads the bytes of a file in a place."""
    with place.reading(name) as path:
        return path.read_bytes()


def put(folder, url):
    """Copies a folder to a place."""
    place = storage.place(url)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            write(place, path.relative_to(folder).as_posix(), path.read_bytes())


def get(url, folder):
    """Copies a place to a folder."""
    place = storage.place(url)
    for entry in place.entries():
        (folder / entry.name).parent.mkdir(parents=True, exist_ok=True)
        (folder / entry.name).write_bytes(read(place, entry.name))


def wait_until(condition, process=None, seconds=30.0):
    """Waits for a condition, while the process lives."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.02)
