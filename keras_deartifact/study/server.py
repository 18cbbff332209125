"""Serves a study to the browsers of its raters.

| request | answer |
|---|---|
| `GET /` | the page |
| `GET /api/study` | title, question, labels, how many there are and how large |
| `POST /api/raters` `{}` | makes a rater; their session |
| `GET /api/sessions/TOKEN` | the session: token, next position, and token, type, size and purpose of each stimulus |
| `POST /api/ratings` | `{"rater": TOKEN, "position": N, "score": 1 to 5}` and `ratings.SITUATION`; `{"next": N}` |
| `GET /media/TOKEN` | a picture or video |

Nothing else is served, and nothing that is tells a condition or the name of a file. A rating is answered when it is on
the disk. One for another position than the rater's next gets 409 and the next one, unless it repeats the one that is
stored; what cannot be stored now gets 503. Requests that do not fit get 4xx with a line that says why.
"""

import json
import shutil
import socket
import socketserver
import sqlite3
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from keras_deartifact.study import plan
from keras_deartifact.study.ratings import SITUATION, OutOfTurnError, Rater, Ratings

BODY_LIMIT = 4096
"""Bytes of a request's body."""

# Largest values that are taken: a day, and more than any screen has.
_LIMITS = dict.fromkeys(SITUATION, 100_000.0) | {"pixel_ratio": 100.0, "scale": 100.0}

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src blob: data:; media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_BROWSERS = {
    "Edg": "Edge",
    "OPR/": "Opera",
    "SamsungBrowser": "Samsung Internet",
    "Firefox": "Firefox",
    "FxiOS": "Firefox",
    "CriOS": "Chrome",
    "Chrome": "Chrome",
    "Safari": "Safari",
}
_SYSTEMS = {
    "Android": "Android",
    "iPhone": "iOS",
    "iPad": "iOS",
    "Windows": "Windows",
    "Macintosh": "macOS",
    "CrOS": "ChromeOS",
    "Linux": "Linux",
}


class StudyServer(ThreadingHTTPServer):
    """A server of a study, which stores its ratings; `serve_forever` runs it.

    Args:
        folder: of the study.
        host: address to listen on; `127.0.0.1` is this computer only, `0.0.0.0` all its networks.
        port: 0 takes a free one.

    Attributes:
        study: the plan.
        ratings: the file of ratings, open until `server_close`.

    Raises:
        ValueError: it is not the folder of a study, its ratings cannot be stored, or the address cannot be had.
        OSError: the file system does not give a file.
    """

    daemon_threads = True

    def __init__(self, folder: plan.StrPath, host: str = "127.0.0.1", port: int = 8000) -> None:
        self.folder = Path(folder)
        self.study = plan.read_study(folder)
        self.page = (self.folder / plan.PAGE).read_bytes()
        for stimulus in self.study.stimuli.values():
            if not (path := self.folder / plan.MEDIA / stimulus.file).is_file():
                raise ValueError(
                    f"expected all files that 'deartifact study create' made; one is missing. Received: {path}"
                )
        self.ratings = Ratings(folder, self.study)
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            self.ratings.close()
            raise ValueError(
                f"expected an address of this computer and a free port, 1024 or more; choose others "
                f"({getattr(error, 'strerror', None) or error}). Received: host={host}, port={port}"
            ) from error

    @property
    def url(self) -> str:
        """The page's address, for phones where the server listens on all networks."""
        host, port = str(self.server_address[0]), self.server_address[1]
        if host in ("0.0.0.0", "::"):
            host = _network_address()
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    def server_bind(self) -> None:
        """Binds without the look-up of the host's name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def server_close(self) -> None:
        """Ends listening, and closes the ratings after the one that is being stored."""
        super().server_close()
        self.ratings.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Lets go of a browser that has gone away."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _RefusedError(Exception):
    """A request that does not fit: its status, and why."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: StudyServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "deartifact", ""
    # Seconds that a connection may be silent.
    timeout = 30

    def do_GET(self) -> None:  # noqa: D102
        self._answer(self._get)

    def do_POST(self) -> None:  # noqa: D102
        self._answer(self._post)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: D102
        pass

    def _answer(self, method: Any) -> None:
        try:
            method(urlsplit(self.path).path)
        except _RefusedError as error:
            # A body that was not read would be taken for the next request.
            self.close_connection = True
            self._send_json({"error": str(error)}, error.status)
        except sqlite3.Error as error:
            self.close_connection = True
            self._send_json({"error": f"cannot be stored now ({error})"}, HTTPStatus.SERVICE_UNAVAILABLE)

    def _get(self, path: str) -> None:
        study = self.server.study
        match path.split("/")[1:]:
            case [""] | ["index.html"]:
                self._send(self.server.page, "text/html; charset=utf-8")
            case ["api", "study"]:
                self._send_json(_study(study))
            case ["api", "sessions", token]:
                found = self.server.ratings.rater(token)
                if found is None:
                    raise _RefusedError(HTTPStatus.NOT_FOUND, "there is no such rater")
                self._send_json(_session(study, *found))
            case ["media", token] if token in study.stimuli:
                self._send_media(study.stimuli[token])
            case _:
                raise _RefusedError(HTTPStatus.NOT_FOUND, "there is nothing here")

    def _post(self, path: str) -> None:
        values = self._body()
        if path == "/api/raters":
            self._send_json(_session(self.server.study, self.server.ratings.add_rater(), 0))
        elif path == "/api/ratings":
            self._rate(values)
        else:
            raise _RefusedError(HTTPStatus.NOT_FOUND, "there is nothing here")

    def _rate(self, values: dict[str, Any]) -> None:
        token, position, score = values.get("rater"), values.get("position"), values.get("score")
        if not (isinstance(token, str) and token.isascii()):
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "expected a rater")
        # JSON's true, too, would be an instance of int.
        if not (type(position) is type(score) is int and 1 <= score <= 5):
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "expected a position and a score of 1 to 5")
        situation = {name: _number(name, values.get(name)) for name in SITUATION}
        try:
            browser = _browser(self.headers.get("User-Agent", ""))
            position = self.server.ratings.add(token, position, score, situation, browser)
        except KeyError:
            raise _RefusedError(HTTPStatus.NOT_FOUND, "there is no such rater") from None
        except OutOfTurnError as error:
            self._send_json({"error": str(error), "next": error.next_position}, HTTPStatus.CONFLICT)
        else:
            self._send_json({"next": position})

    def _body(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            raise _RefusedError(HTTPStatus.LENGTH_REQUIRED, "expected a Content-Length")
        if len(length) > 9 or int(length) > BODY_LIMIT:
            raise _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {BODY_LIMIT} bytes")
        # A page of another site cannot send this type without asking first.
        if self.headers.get_content_type() != "application/json":
            raise _RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected application/json")
        try:
            values = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "expected a JSON object")
        return values

    def _send_json(self, values: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(values, ensure_ascii=False).encode(), "application/json", status)

    def _send(self, body: bytes, media_type: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send_head(media_type, len(body), "no-store", status)
        self.wfile.write(body)

    def _send_media(self, stimulus: plan.Stimulus) -> None:
        with open(self.server.folder / plan.MEDIA / stimulus.file, "rb") as stream:
            length = stream.seek(0, 2)
            stream.seek(0)
            self._send_head(stimulus.media_type, length, "private, max-age=86400, immutable")
            shutil.copyfileobj(stream, self.wfile)

    def _send_head(self, media_type: str, length: int, caching: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(length))
        self.send_header("Cache-Control", caching)
        if self.close_connection:
            self.send_header("Connection", "close")
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()


def _number(name: str, value: Any) -> float:
    # Also false for NaN.
    if type(value) not in (int, float) or not 0 <= value <= _LIMITS[name]:
        raise _RefusedError(HTTPStatus.BAD_REQUEST, f"expected {name} from 0 to {_LIMITS[name]:.0f}")
    return float(value)


def _network_address() -> str:
    """This computer's address in its network, or what only it understands if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Only looks up the route: nothing is sent. The address is one for documentation.
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _study(study: plan.Study) -> dict[str, Any]:
    """What a rater may know of a study."""
    stimuli = study.stimuli.values()
    return {
        "id": study.id,
        "title": study.title,
        "question": study.question,
        "labels": study.labels,
        "minimum_seconds": study.minimum_seconds,
        "gap_seconds": study.gap_seconds,
        "count": study.length - len(study.training),
        "training": len(study.training),
        "width": max(each.width for each in stimuli),
        "height": max(each.height for each in stimuli),
        "videos": any(each.media_type.startswith("video/") for each in stimuli),
        "pictures": any(each.media_type.startswith("image/") for each in stimuli),
    }


def _session(study: plan.Study, rater: Rater, next_position: int) -> dict[str, Any]:
    shown = [(token, study.stimuli[token]) for token in rater.presentations]
    return {
        "rater": rater.token,
        "next": next_position,
        "presentations": [
            {"media": token, "type": each.media_type, "training": position < len(study.training)}
            for position, (token, each) in enumerate(shown)
        ],
    }


def _browser(agent: str) -> str:
    """The family of a browser and its system, which is all that is kept of what it sends."""
    names = [next((name for mark, name in table.items() if mark in agent), "other") for table in (_BROWSERS, _SYSTEMS)]
    return ", ".join(names)
