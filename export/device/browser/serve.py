"""Serves this page to a browser: `python export/device/browser/serve.py MODEL.onnx VIDEO.mp4`.

What `python -m http.server` lacks:

- the two headers without which a browser gives a page no shared memory, and so no threads to WebAssembly;
- parts of files (`Range`), without which Chromium cannot go back to the beginning of a video;
- `/ort/`, which is `node_modules/onnxruntime-web/dist`, and `/files/NAME`, the files that it was told, and no others.
"""

import argparse
import mimetypes
import re
import sys
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlencode, urlsplit

FOLDER = Path(__file__).resolve().parent
ORT = FOLDER / "node_modules" / "onnxruntime-web" / "dist"
PAGE = {"/": "index.html", "/index.html": "index.html", "/page.js": "page.js", "/network.js": "network.js"}

_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".mkv": "video/x-matroska"}
_HEADERS = {
    # Cross-origin isolation: https://developer.mozilla.org/docs/Web/API/Window/crossOriginIsolated
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_CHUNK = 1 << 16


def make_server(
    files: Sequence[Path], host: str = "127.0.0.1", port: int = 8000, ort: Path = ORT
) -> ThreadingHTTPServer:
    """Returns a server that listens and waits for `serve_forever`.

    Args:
        files: what is served as `/files/NAME`.
        host: address to listen on; the default is reached from this computer only.
        port: 0 for any that is free.
        ort: folder of onnxruntime-web's builds.

    Raises:
        ValueError: a file is missing, two have one name, there is no onnxruntime-web, or the address is not to be had.
    """
    if not (ort / "ort.wasm.min.mjs").is_file():
        raise ValueError(f"there is no onnxruntime-web in {ort}; first: npm install --prefix {FOLDER}")
    for file in files:
        if not file.is_file():
            raise ValueError(f"there is no file {file}")
    shared = {file.name: file for file in files}
    if len(shared) < len(files):
        raise ValueError(f"expected files of different names. Received: {', '.join(map(str, files))}")
    try:
        return _Server((host, port), partial(_Handler, shared, ort))
    except (OSError, OverflowError) as error:
        raise ValueError(f"cannot listen on {host}, port {port}: {error}") from error


def page_url(server: ThreadingHTTPServer, files: Sequence[Path]) -> str:
    """The page's address, with the first .onnx among the files as its model and the first other one as its video."""
    parameters = {}
    for file in files:
        parameters.setdefault("model" if file.suffix.lower() == ".onnx" else "video", f"files/{quote(file.name)}")
    host, port = server.server_address[:2]
    return f"http://{host!s}:{port}/" + ("?" + urlencode(parameters, safe="/") if parameters else "")


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Lets a browser drop what it does not need any more: of a video, at every jump."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Seconds that a connection may be silent.
    timeout = 60

    def __init__(self, files: dict[str, Path], ort: Path, *arguments: Any) -> None:
        self.files = files
        self.ort = ort
        super().__init__(*arguments)

    def do_GET(self) -> None:  # noqa: D102
        file = self._file(unquote(urlsplit(self.path).path))
        if file is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with file.open("rb") as stream:
            self._send(stream, file)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: D102
        pass

    def end_headers(self) -> None:  # noqa: D102
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def _file(self, path: str) -> Path | None:
        """The file of an address: names are looked up, so that none leads out of a folder."""
        if path in PAGE:
            return FOLDER / PAGE[path]
        folder, _, name = path.lstrip("/").partition("/")
        if folder == "files":
            return self.files.get(name)
        if folder == "ort":
            return next((each for each in self.ort.iterdir() if each.name == name), None)
        return None

    def _send(self, stream: BinaryIO, file: Path) -> None:
        size = stream.seek(0, 2)
        start, end = 0, size
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            start, end = int(wanted[1]), min(size, int(wanted[2]) + 1 if wanted[2] else size)
            if start >= end:
                self.send_error(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                return
        self.send_response(HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK)
        guessed = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        self.send_header("Content-Type", _TYPES.get(file.suffix.lower(), guessed))
        self.send_header("Content-Length", str(end - start))
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.end_headers()
        stream.seek(start)
        while start < end and (chunk := stream.read(min(_CHUNK, end - start))):
            self.wfile.write(chunk)
            start += len(chunk)


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until it is interrupted; returns the exit status."""
    parser = argparse.ArgumentParser(description="Serves the page that restores a video while it plays.")
    parser.add_argument("files", nargs="*", type=Path, help="a model (.onnx) and a video, opened by the page at once")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this computer only)")
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free (default: 8000)")
    parser.add_argument("--ort", type=Path, default=ORT, help="folder of onnxruntime-web's builds")
    arguments = parser.parse_args(argv)
    try:
        server = make_server(arguments.files, arguments.host, arguments.port, arguments.ort)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with server:
        print(f"{page_url(server, arguments.files)}   (Ctrl+C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
