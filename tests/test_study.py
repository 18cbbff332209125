import contextlib
import dataclasses
import http.client
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_deartifact import study
from keras_deartifact.study import analysis, plan, ratings

ROOT = Path(__file__).resolve().parents[1]
SITUATION = dict.fromkeys(ratings.SITUATION, 1)
CONDITIONS = ("zebra-squeezed", "quokka-restored", "reference")


@pytest.fixture
def folders(tmp_path, photo):
    """Four pictures under two conditions; the JPEGs have another extension than their originals."""
    for name in CONDITIONS:
        (tmp_path / name).mkdir()
    for index, item in enumerate("abcd"):
        picture = Image.fromarray(photo(40, 48, seed=index))
        picture.save(tmp_path / "reference" / f"{item}.png")
        picture.save(tmp_path / "quokka-restored" / f"{item}.webp", lossless=True)
        picture.save(tmp_path / "zebra-squeezed" / f"{item}.jpg", quality=5)
    return {name: tmp_path / name for name in CONDITIONS}


@pytest.fixture
def created(tmp_path, folders):
    conditions = {name: folders[name] for name in CONDITIONS[:2]}
    study.create_study(tmp_path / "study", conditions, folders["reference"], seed=7)
    return tmp_path / "study"


@contextlib.contextmanager
def served(folder):
    with study.StudyServer(folder, port=0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(url, values=None, **headers):
    """Status and text of an answer; posts `values` as JSON if there are any."""
    data = None if values is None else values if isinstance(values, bytes) else json.dumps(values).encode()
    kind = {"Content-Type": "application/json"} if data is not None else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, kind | headers), timeout=10) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def rate(url, token, position, score, **values):
    status, body = ask(
        f"{url}api/ratings", {"rater": token, "position": position, "score": score, **SITUATION, **values}
    )
    return status, json.loads(body)


def new_rater(url):
    return json.loads(ask(f"{url}api/raters", {})[1])


def rows(folder, columns="*"):
    with contextlib.closing(sqlite3.connect(folder / "ratings.sqlite")) as database:
        return database.execute(f"SELECT {columns} FROM ratings ORDER BY rater, position").fetchall()


def simple_study(items="ab", conditions=("quokka-restored", "reference"), training=0, repeats=0):
    """A plan without files; the token of an item is `item/condition`."""
    stimuli = {
        f"{item}/{name}": study.Stimulus(name, item, f"{item}.png", "image/png", 4, 4)
        for item in items
        for name in conditions
    }
    return study.Study(
        "id", "A title", "?", plan.LABELS, 3, 0.0, 0.0, tuple(conditions), tuple(items), stimuli,
        tuple(stimuli)[:training], tuple(stimuli)[:repeats],
    )  # fmt: skip


def simple_folder(folder, made, scores):
    """The folder of a study with ratings: each rater's scores are a function of token and time it is shown."""
    folder.mkdir()
    plan.write_study(folder, made)
    with study.Ratings(folder, made) as store:
        for score in scores:
            rater = store.add_rater()
            for position, token in enumerate(rater.presentations):
                store.add(rater.token, position, score(token, rater.presentations[:position].count(token)))
    return folder


# Creating.


def test_a_study_has_every_item_under_every_condition(created, folders):
    made = study.read_study(created)
    assert made.conditions == CONDITIONS and made.items == tuple("abcd")
    assert len(made.stimuli) == len(made.rated) == 12
    pairs = {(each.condition, each.item) for each in made.stimuli.values()}
    assert pairs == {(name, item) for name in CONDITIONS for item in "abcd"}
    assert {(each.width, each.height) for each in made.stimuli.values()} == {(48, 40)}
    assert len(made.training) == len(made.repeats) == 3 and made.length == 18
    for stimulus in made.stimuli.values():
        source = next(folders[stimulus.condition].glob(f"{stimulus.item}.*"))
        assert (created / "media" / stimulus.file).read_bytes() == source.read_bytes()
        assert not {stimulus.item, *stimulus.condition.split("-")} & set(stimulus.file.split("."))
    assert sorted(each.name for each in created.iterdir()) == ["index.html", "media", "study.json"]


def test_practice_spans_the_range_and_repeats_are_of_all_conditions(created):
    made = study.read_study(created)
    # By PSNR to the original the JPEGs are the worst third; what is restored without loss is next, then the originals.
    assert {made.stimuli[token].condition for token in made.training} == set(CONDITIONS)
    assert {made.stimuli[token].condition for token in made.repeats} == set(CONDITIONS)
    assert len({made.stimuli[token].item for token in made.training}) == 3


def test_the_seed_gives_everything(tmp_path, folders):
    conditions = {"quokka-restored": folders["quokka-restored"]}
    first, same, other = (
        study.create_study(tmp_path / name, conditions, folders["reference"], seed=seed)
        for name, seed in [("first", 1), ("same", 1), ("other", 2)]
    )
    assert first == same == study.read_study(tmp_path / "first")
    assert plan.presentations(first, 1) == plan.presentations(same, 1)
    assert set(first.stimuli).isdisjoint(other.stimuli)
    plans = [study.create_study(tmp_path / name, conditions, folders["reference"]) for name in "xy"]
    assert plans[0].seed != plans[1].seed


def test_practice_on_items_of_its_own(tmp_path, folders):
    made = study.create_study(
        tmp_path / "study",
        {"quokka-restored": folders["quokka-restored"]},
        folders["reference"],
        training=2,
        repeats=0,
        training_items=["c"],
    )
    assert made.items == ("a", "b", "d") and len(made.rated) == 6 and made.repeats == ()
    assert {made.stimuli[token].item for token in made.training} == {"c"}
    assert {made.stimuli[token].condition for token in made.training} == {"quokka-restored", "reference"}


def test_other_formats_become_png(tmp_path, photo):
    pixels = photo(24, 32)
    for name in ("original", "restored"):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / f"a.{'tif' if name == 'original' else 'bmp'}")
        (tmp_path / name / "notes.txt").write_text("left out")
    made = study.create_study(tmp_path / "study", {"restored": tmp_path / "restored"}, tmp_path / "original")
    for stimulus in made.stimuli.values():
        assert stimulus.file.endswith(".png") and stimulus.media_type == "image/png"
        with Image.open(tmp_path / "study" / "media" / stimulus.file) as image:
            np.testing.assert_array_equal(np.asarray(image), pixels)


def test_a_picture_counts_as_it_is_turned(tmp_path, photo):
    turned, upright = tmp_path / "turned", tmp_path / "upright"
    pixels = photo(24, 32)
    for folder in (turned, upright):
        folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(turned / "a.png", exif=exif)
    Image.fromarray(np.rot90(pixels, -1)).save(upright / "a.png")
    made = study.create_study(tmp_path / "study", {"turned": turned}, upright)
    assert {(each.width, each.height) for each in made.stimuli.values()} == {(24, 32)}


@pytest.mark.parametrize("suffix, codec", [("mp4", "libx264"), ("webm", "libvpx-vp9")])
def test_videos(tmp_path, make_video, suffix, codec):
    for name in ("original", "restored"):
        (tmp_path / name).mkdir()
        make_video(tmp_path / name / f"a.{suffix}", codec, None)
    made = study.create_study(tmp_path / "study", {"restored": tmp_path / "restored"}, tmp_path / "original")
    assert {each.media_type for each in made.stimuli.values()} == {f"video/{suffix}"}
    assert {(each.width, each.height) for each in made.stimuli.values()} == {(96, 64)}


def test_folders_that_do_not_fit_are_one_line(tmp_path, run, folders, photo, make_video):
    def create(*options):
        given = [f"--condition={name}={folders[name]}" for name in CONDITIONS[:2]]
        code, out, err = run("study", "create", *given, "--reference", folders["reference"], "-o", target, *options)
        assert code == 2 and out == ""
        assert err.startswith("deartifact: error: ") and err.count("\n") == 1, err
        assert not target.exists() and not list(tmp_path.glob(".deartifact-*"))
        return err

    target = tmp_path / "study"
    restored = folders["quokka-restored"]
    assert "expected repeats from 0 to 12" in create("--repeats", 13)
    assert "expected training from 0 to 12" in create("--training", 13)
    assert "names for practice" in create("--training-item", "e")
    assert "at least one file that is not for practice" in create(*[f"--training-item={item}" for item in "abcd"])
    assert "a name of its own" in create("--condition", f"{CONDITIONS[0]}={restored}")
    assert "other than 'reference'" in create("--condition", f"reference={restored}")
    assert "there is no file or folder" in create("--condition", f"other={tmp_path / 'nowhere'}")
    assert "expected NAME=FOLDER" in create("--condition", "other")
    Image.fromarray(photo(40, 50)).save(restored / "b.webp")
    assert "a picture of 48x40. Received" in create() and "50x40" in create()
    (restored / "b.webp").unlink()
    assert "'quokka-restored' lacks b." in create()
    make_video(restored / "b.mp4", "libx264", None, size=(48, 40))
    assert "a video of 48x40" in create()
    (restored / "b.mp4").unlink()
    make_video(restored / "b.mp4", "mpeg4", None)
    assert "that every browser plays" in create()
    (restored / "b.mp4").unlink()
    (restored / "b.png").write_bytes(b"not a picture")
    assert "expected a picture or a video" in create()
    (restored / "b.png").unlink()
    for name in ("b.png", "b.jpg"):
        Image.fromarray(photo(40, 48)).save(restored / name)
    assert "one file of a name" in create()
    (restored / "b.jpg").unlink()
    target = tmp_path / "no" / "study"
    assert "folder of the target must exist" in create()


def test_a_folder_with_something_in_it_is_kept(created, run, folders):
    before = (created / "study.json").read_bytes()
    code, _, err = run(
        "study",
        "create",
        f"--condition=x={folders['quokka-restored']}",
        "--reference",
        folders["reference"],
        "-o",
        created,
    )
    assert code == 2 and "expected the name of a new folder" in err
    assert (created / "study.json").read_bytes() == before


def test_create_says_what_comes_next(tmp_path, run, folders):
    target = tmp_path / "study"
    code, out, err = run(
        "study", "create", f"--condition=x={folders['quokka-restored']}", "--reference", folders["reference"],
        "-o", target, "--title", "A title", "--question", "How sharp?", "--seed", 5, "--training", 1,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "4 files under 2 conditions (x, reference)" in out and f"deartifact study serve {target}" in out
    made = study.read_study(target)
    assert (made.title, made.question, made.seed, len(made.training)) == ("A title", "How sharp?", 5, 1)


def test_a_folder_that_is_no_study(tmp_path, run):
    (tmp_path / "study.json").write_text("{}")
    for command in ("serve", "analyse"):
        code, _, err = run("study", command, tmp_path)
        assert code == 2 and "made by 'deartifact study create'" in err and err.count("\n") == 1
        code, _, err = run("study", command, tmp_path / "nowhere")
        assert code == 2 and "there is no file or folder" in err


# The order.


def test_an_order_has_everything_once_and_repeats_twice():
    made = simple_study("abcde", training=2, repeats=3)
    orders = [plan.presentations(made, rater) for rater in range(1, 30)]
    for order in orders:
        assert tuple(order[:2]) == made.training
        assert Counter(order[2:]) == Counter([*made.rated, *made.repeats])
        # Practice is of one item here.
        items = [made.stimuli[token].item for token in order[1:]]
        assert all(one != other for one, other in zip(items, items[1:], strict=False))
        parts = [plan.part(made, order, position) for position in range(len(order))]
        assert Counter(parts) == {"training": 2, "test": 10, "repeat": 3}
        assert all(order.index(order[at], 2) < at for at, part in enumerate(parts) if part == "repeat")
    assert len({tuple(order) for order in orders}) == len(orders)
    # Everything comes first for somebody.
    assert len({order[2] for order in orders}) > 4


def test_one_item_with_many_stimuli_is_apart_as_long_as_it_can_be():
    made = dataclasses.replace(simple_study("ab"), repeats=("a/reference",))
    for rater in range(20):
        items = [made.stimuli[token].item for token in plan.presentations(made, rater)]
        assert items == ["a", "b", "a", "b", "a"]
    assert len(plan.presentations(simple_study("a"), 1)) == 2


# Storing.


def test_a_rating_is_a_row(created):
    with served(created) as server:
        session = new_rater(server.url)
        first = session["presentations"][0]["media"]
        situation = dict(zip(ratings.SITUATION, (2.5, 1, 390, 844, 390, 700, 3, 2), strict=True))
        agent = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Mobile/15E148 Safari/604.1"
        values = {"rater": session["rater"], "position": 0, "score": 4, **situation}
        assert ask(f"{server.url}api/ratings", values, **{"User-Agent": agent}) == (200, b'{"next": 1}')
    [row] = rows(created)
    assert row[:5] == (1, 0, "training", first, 4)
    assert row[5:13] == (2.5, 1, 390, 844, 390, 700, 3, 2)
    assert row[13] == "Safari, iOS" and row[14].startswith("20")


def test_a_retry_changes_nothing(created):
    with served(created) as server:
        token = new_rater(server.url)["rater"]
        for _ in range(3):
            assert rate(server.url, token, 0, 4) == (200, {"next": 1})
        status, reply = rate(server.url, token, 0, 5)
        assert status == 409 and reply["next"] == 1
        status, reply = rate(server.url, token, 2, 5)
        assert status == 409 and reply["next"] == 1
        assert rate(server.url, token, -1, 5)[0] == 409
    assert rows(created, "position, score") == [(0, 4)]


def test_a_session_ends(created):
    with served(created) as server:
        token = new_rater(server.url)["rater"]
        assert [rate(server.url, token, position, 3)[1]["next"] for position in range(18)] == [*range(1, 19)]
        assert rate(server.url, token, 18, 3) == (409, {"error": "expected a rating for position 18", "next": 18})
        assert json.loads(ask(f"{server.url}api/sessions/{token}")[1])["next"] == 18
    assert Counter(part for (part,) in rows(created, "part")) == {"training": 3, "test": 12, "repeat": 3}


def test_many_at_once(created):
    counts = []
    with served(created) as server:
        tokens = [new_rater(server.url)["rater"] for _ in range(6)]

        def rate_all(token):
            # Every rating is sent twice, as by two windows.
            counts.append(sum(rate(server.url, token, position, 1 + position % 5)[0] == 200 for position in range(18)))

        threads = [threading.Thread(target=rate_all, args=(token,)) for token in [*tokens, *tokens]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(counts) == 12
    found = rows(created, "rater, position, score")
    assert len(found) == len(set(found)) == 6 * 18
    assert all(score == 1 + position % 5 for _, position, score in found)


@pytest.mark.parametrize(
    "values",
    [
        {"score": 0},
        {"score": 6},
        {"score": 3.5},
        {"score": True},
        {"score": "3"},
        {"score": None},
        {"position": 0.0},
        {"position": None},
        {"rater": 1},
        {"rater": "\ud800"},
        {"seconds": -1},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"seconds": 10**300},
        {"pixel_ratio": "1"},
        {"scale": None},
    ],
)
def test_values_that_are_not_taken(created, values):
    with served(created) as server:
        good = {"rater": new_rater(server.url)["rater"], "position": 0, "score": 3, **SITUATION}
        status, body = ask(f"{server.url}api/ratings", good | values)
        assert status == 400 and "expected" in json.loads(body)["error"]
    assert rows(created) == []


def test_requests_that_are_not_taken(created):
    with served(created) as server:
        url = server.url
        assert rate(url, "nobody", 0, 3)[0] == 404
        assert ask(f"{url}api/sessions/nobody")[0] == 404
        assert ask(f"{url}api/nothing", {})[0] == 404
        assert ask(f"{url}api/ratings", b"[" * 4000)[0] == 400
        assert ask(f"{url}api/ratings", b"{}{")[0] == 400
        assert ask(f"{url}api/raters", b"[]")[0] == 400
        assert ask(f"{url}api/raters", b"\xff")[0] == 400
        assert ask(f"{url}api/raters", {}, **{"Content-Type": "text/plain"})[0] == 415
        assert ask(f"{url}api/raters", b" " * 4097)[0] == 413
        connection = http.client.HTTPConnection(*server.server_address, timeout=5)
        for headers, status in [
            ({"Content-Length": "99999999999999"}, 413),
            ({"Content-Length": "-1"}, 411),
            ({"Content-Length": "x"}, 411),
            ({"Transfer-Encoding": "chunked"}, 411),
            ({}, 411),
        ]:
            connection.putrequest("POST", "/api/raters")
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            reply = connection.getresponse()
            assert reply.status == status and reply.getheader("Connection") == "close"
            reply.read()
            connection.close()


def test_nothing_but_the_study_is_served(created):
    made = study.read_study(created)
    stimulus = next(iter(made.stimuli.values()))
    with served(created) as server:
        connection = http.client.HTTPConnection(*server.server_address, timeout=5)
        for path in [
            "/study.json", "/ratings.sqlite", "/media/", "/media/../study.json", "/media/%2e%2e/study.json",
            "/../study.json", "/media/..%2fstudy.json", "/%2e%2e/%2e%2e/etc/passwd", "/../../etc/passwd",
            f"/media/{stimulus.file}", "/media/\\..\\study.json", "/api/sessions/../../study.json", "/index.html/",
            "//study.json",
        ]:  # fmt: skip
            connection.request("GET", path)
            reply = connection.getresponse()
            assert reply.status == 404 and json.loads(reply.read()) == {"error": "there is nothing here"}, path
            connection.close()


def test_no_answer_tells_a_condition(created):
    made = study.read_study(created)
    with served(created) as server:
        session = new_rater(server.url)
        answers = [
            *(ask(server.url + path) for path in ("", "api/study", f"api/sessions/{session['rater']}", "media/x")),
            ask(f"{server.url}api/raters", {}),
            (0, json.dumps(rate(server.url, session["rater"], 0, 3)).encode()),
            (0, json.dumps(rate(server.url, session["rater"], 5, 3)).encode()),
        ]
        for token, stimulus in made.stimuli.items():
            status, body = ask(f"{server.url}media/{token}")
            assert status == 200 and body == (created / "media" / stimulus.file).read_bytes()
    text = b"\n".join(body for _, body in answers).lower()
    for word in (b"zebra", b"quokka", b"squeezed", b"restored", b"reference", b"condition", b"study.json", b"seed"):
        assert word not in text, word
    # Nor do the names of the files, or where they lie.
    assert os.fsencode(created) not in text
    assert set(session["presentations"][0]) == {"media", "type", "training"}


def test_the_page_needs_nothing_else(created):
    page = (created / "index.html").read_text(encoding="utf-8")
    assert "://" not in page and "src=" not in page.replace("element.src = url", "")
    with served(created) as server, urllib.request.urlopen(server.url) as reply:
        assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
        assert reply.headers["Cache-Control"] == "no-store"
        assert reply.read().decode() == page


def test_a_disk_that_is_full_is_told(created):
    with served(created) as server:
        token = new_rater(server.url)["rater"]
        server.ratings._database.execute("PRAGMA max_page_count=1")
        server.ratings._database.execute("CREATE TEMP TRIGGER full BEFORE INSERT ON ratings BEGIN "
                                         "SELECT RAISE(ABORT, 'database or disk is full'); END")  # fmt: skip
        status, reply = rate(server.url, token, 0, 3)
        assert status == 503 and reply == {"error": "cannot be stored now (database or disk is full)"}
        server.ratings._database.execute("DROP TRIGGER full")
        assert rate(server.url, token, 0, 3) == (200, {"next": 1})


def test_an_address_that_cannot_be_had(created, run):
    with served(created) as server:
        code, _, err = run("study", "serve", created, "--port", server.server_address[1])
        assert code == 2 and "a free port" in err and err.count("\n") == 1
    code, _, err = run("study", "serve", created, "--host", "192.0.2.7", "--port", 0)
    assert code == 2 and "host=192.0.2.7" in err
    assert run("study", "serve", created, "--port", 65536)[0] == 2


def test_all_networks_have_an_address_that_phones_can_use(created):
    with study.StudyServer(created, "0.0.0.0", 0) as server:
        assert server.url.startswith("http://") and server.url.endswith(f":{server.server_address[1]}/")
        assert "0.0.0.0" not in server.url


def test_files_that_are_broken(created, run):
    (created / "ratings.sqlite").write_bytes(b"this is no database" * 100)
    code, _, err = run("study", "serve", created, "--port", 0)
    assert code == 2 and "file is not a database" in err and err.count("\n") == 1
    assert "not a database" in run("study", "analyse", created)[2]
    (created / "ratings.sqlite").unlink()
    next((created / "media").iterdir()).unlink()
    code, _, err = run("study", "serve", created, "--port", 0)
    assert code == 2 and "one is missing" in err


@contextlib.contextmanager
def command(folder):
    """The real command in a process of its own, and the address that it prints."""
    code = "import sys; from keras_deartifact import cli; sys.exit(cli.main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "study", "serve", folder, "--port", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            line = process.stdout.readline()
            assert line.startswith("Picture quality: http://127.0.0.1:"), line
            yield process, line.split()[2]
        finally:
            process.kill()


def test_what_is_confirmed_survives_a_kill(created):
    confirmed = []
    with command(created) as (process, url):
        tokens = [new_rater(url)["rater"] for _ in range(4)]

        def rate_until_killed(token):
            with contextlib.suppress(OSError, http.client.HTTPException):
                for position in range(18):
                    assert rate(url, token, position, 1 + position % 5)[0] == 200
                    confirmed.append((token, position))
                    if len(confirmed) == 25:
                        process.send_signal(signal.SIGKILL)

        threads = [threading.Thread(target=rate_until_killed, args=(token,)) for token in tokens]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert process.wait() == -signal.SIGKILL
    assert 25 <= len(confirmed) < 4 * 18
    with contextlib.closing(sqlite3.connect(created / "ratings.sqlite")) as database:
        numbers = dict(database.execute("SELECT token, number FROM raters"))
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    stored = rows(created, "rater, position, score")
    assert {(numbers[token], position, 1 + position % 5) for token, position in confirmed} <= set(stored)
    # At most what was stored while its answer was on the way.
    assert len(stored) - len(confirmed) <= 4
    with command(created) as (process, url):
        for token in tokens:
            position = json.loads(ask(f"{url}api/sessions/{token}")[1])["next"]
            while position < 18:
                position = rate(url, token, position, 1 + position % 5)[1]["next"]
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == f"{created / 'ratings.sqlite'}: 72 ratings by 4 raters\n"
        assert process.wait() == 0
    assert len(rows(created)) == 72


# Analysing.


def test_an_opinion_by_hand():
    # Sum of squares 4 + 1 + 0 + 1 + 4 = 10 about 3; S^2 = 10 / 4; t(4) = 2.776 in every table.
    found = study.analysis.opinion([1, 2, 3, 4, 5])
    assert (found.mean, found.count) == (3, 5)
    assert found.deviation == pytest.approx(2.5**0.5)
    assert found.interval == pytest.approx(2.776 * (2.5 / 5) ** 0.5, abs=4e-4)
    assert analysis.opinion([4, 4, 4]) == study.Opinion(4, 0, 0, 3)
    assert analysis.opinion([4]) == study.Opinion(4, None, None, 1)
    assert analysis.opinion([]) == study.Opinion(None, None, None, 0)


@pytest.mark.parametrize(
    "degrees, value",
    [
        (1, 12.706),
        (2, 4.303),
        (3, 3.182),
        (4, 2.776),
        (9, 2.262),
        (10, 2.228),
        (30, 2.042),
        (120, 1.980),
        (5000, 1.960),
    ],
)
def test_student_t_is_that_of_tables(degrees, value):
    assert analysis.student_t(degrees) == pytest.approx(value, abs=5e-4)


def test_student_t_is_that_of_scipy():
    scipy_stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    for degrees in (1, 2, 7, 8, 59, 400):
        assert analysis.student_t(degrees) == pytest.approx(scipy_stats.t.ppf(0.975, degrees), abs=1e-8)


# Scores of ten raters: mean 3, m_2 = (4 + 1 + 3) / 10 = 0.8, m_4 = (16 + 1 + 3) / 10 = 2, beta_2 = 2 / 0.64 = 3.125, so
# that the threshold is 2 S = 2 sqrt(8 / 9) = 1.886: only the last one, 2 off, is far off.
LOW = [2, 3, 3, 3, 3, 3, 4, 4, 4, 1]
HIGH = [6 - score for score in LOW]


def test_screening_by_hand():
    # Once far below, once far above of two presentations: 2 / 2 > 0.05, |1 - 1| / 2 = 0 < 0.3.
    found = study.analysis.screen({rater: {"x": LOW[rater], "y": HIGH[rater]} for rater in range(10)})
    assert found.pop(9) == analysis.Screening(1, 1, 2, True)
    assert set(found.values()) == {analysis.Screening(0, 0, 2, False)}


def test_one_who_is_always_strict_is_kept():
    # |0 - 2| / 2 = 1.
    found = analysis.screen({rater: {"x": LOW[rater], "y": LOW[rater]} for rater in range(10)})
    assert found[9] == analysis.Screening(0, 2, 2, False)


def test_one_who_is_rarely_far_off_is_kept():
    # 2 of 40 are not more than 0.05; 2 of 39 are.
    for agreed, rejected in [(38, False), (37, True)]:
        scores = {rater: {f"z{each}": 3 + rater % 2 for each in range(agreed)} for rater in range(10)}
        for rater in range(10):
            scores[rater] |= {"x": LOW[rater], "y": HIGH[rater]}
        assert analysis.screen(scores)[9] == analysis.Screening(1, 1, agreed + 2, rejected)


def test_a_peaked_presentation_has_the_wide_threshold():
    # Nine 3 and a 1: m_2 = 0.36, m_4 = 1.0512, beta_2 = 8.1 > 4; sqrt(20) S = 2.83, and the 1 is 1.8 off (2 S = 1.26).
    assert not any(
        each.below for each in analysis.screen({rater: {"x": 3 - 2 * (rater == 9)} for rater in range(10)}).values()
    )
    # Of 22, sqrt(20) S = 1.906 (S^2 = 4 * 21 / 22 / 21 = 2 / 11) and it is 2 - 1 / 11 = 1.909 off.
    found = analysis.screen({rater: {"x": 3 - 2 * (rater == 9)} for rater in range(22)})
    assert [rater for rater, each in found.items() if each.below] == [9]


def test_where_all_agree_nobody_is_far_off():
    assert not any(
        each.above or each.below for each in analysis.screen({rater: {"x": 3} for rater in range(10)}).values()
    )


def test_a_rater_who_guesses_is_left_out(tmp_path):
    made = simple_study("abcdefghij", repeats=3)
    quality = {token: 2 + (index % 3) for index, token in enumerate(made.stimuli)}

    def honest(seed):
        noise = random.Random(seed)
        return lambda token, again: min(5, max(1, quality[token] + noise.choice([-1, 0, 0, 0, 1])))

    def contrary(token, again):
        return {2: 5, 3: 5 if token < "f" else 1, 4: 1}[quality[token]]

    folder = simple_folder(tmp_path / "study", made, [*map(honest, range(11)), contrary])
    found = study.analyse(folder)
    assert found.rejected == [12]
    assert found.raters[11].screening == analysis.Screening(2, 2, 20, True)
    # With and without, by hand.
    for name in made.conditions:
        scores = np.array([row.score for row in _first_ratings(folder, made, name)]).reshape(12, -1)
        assert found.before_screening[name].mean == pytest.approx(scores.mean())
        assert found.conditions[name].mean == pytest.approx(scores[:11].mean())
        assert found.conditions[name].count == 110
        assert found.scores[name] and sorted(found.scores[name]) == sorted(scores[:11].ravel().tolist())


def _first_ratings(folder, made, condition):
    with study.Ratings(folder, made) as store:
        return [row for row in store.rows() if row.part == "test" and made.stimuli[row.stimulus].condition == condition]


def test_an_analysis_by_hand(tmp_path):
    made = simple_study("ab", training=1, repeats=1)
    first = {"a/quokka-restored": 3, "a/reference": 5, "b/quokka-restored": 4, "b/reference": 4}
    second = {"a/quokka-restored": 2, "a/reference": 4, "b/quokka-restored": 5, "b/reference": 4}
    # Practice and the first real time are one stimulus here; the third time is the repeat, 2 lower.
    folder = simple_folder(
        tmp_path / "study",
        made,
        [
            lambda token, again: {0: 1, 1: 3, 2: 1}[again] if token == "a/quokka-restored" else first[token],
            lambda token, again: {0: 5, 1: 2, 2: 2}[again] if token == "a/quokka-restored" else second[token],
        ],
    )
    found = study.analyse(folder)
    # 3, 4, 2, 5: mean 3.5, S^2 = (0.25 + 0.25 + 2.25 + 2.25) / 3 = 5 / 3; t(3) = 3.182.
    assert found.conditions["quokka-restored"].mean == 3.5
    assert found.conditions["quokka-restored"].deviation == pytest.approx((5 / 3) ** 0.5)
    assert found.conditions["quokka-restored"].interval == pytest.approx(3.182 * (5 / 3 / 4) ** 0.5, abs=4e-4)
    assert found.conditions["reference"].mean == 4.25
    assert found.conditions == found.before_screening and found.rejected == []
    # 3 - 5, 4 - 4, 2 - 4, 5 - 4, each plus 5: 3, 5, 3, 6.
    assert found.differences == {"quokka-restored": analysis.opinion([3, 5, 3, 6])}
    assert found.items["a"]["quokka-restored"] == analysis.opinion([3, 2])
    assert found.items["b"]["reference"] == study.Opinion(4, 0, 0, 2)
    assert found.scores == {"quokka-restored": [3, 4, 2, 5], "reference": [5, 4, 4, 4]}
    assert [each.repeat_difference for each in found.raters] == [2, 0] and found.repeat_difference == 1
    assert all(each.complete and each.ratings == 6 and each.repeats == 1 for each in found.raters)
    assert study.analyse(folder) == found


def test_raters_who_stop_early_count_with_what_they_rated(tmp_path):
    made = simple_study("ab")
    folder = simple_folder(tmp_path / "study", made, [lambda token, again: 4])
    with study.Ratings(folder, made) as store:
        store.add_rater()
        rater = store.add_rater()
        store.add(rater.token, 0, 2)
    found = study.analyse(folder)
    assert [(each.number, each.ratings, each.complete) for each in found.raters] == [(1, 4, True), (3, 1, False)]
    assert sum(each.count for each in found.conditions.values()) == 5


def test_too_few_raters_are_told(tmp_path, created, run):
    made = simple_study("ab", training=1)
    assert "Received: 0" in run("study", "analyse", created)[2]
    folder = simple_folder(tmp_path / "other", made, [lambda token, again: 4])
    with study.Ratings(folder, made) as store:
        store.add(store.add_rater().token, 0, 5)
    code, out, err = run("study", "analyse", folder)
    assert code == 2 and out == "" and err.count("\n") == 1
    assert "at least two raters" in err and "study serve" in err and "Received: 1, practice not counted" in err


def test_the_analysis_as_a_table_and_files(tmp_path, run):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    made = simple_study("ab")
    scores = [lambda token, again: 4 + (token[0] == "b"), lambda token, again: 3]
    folder = simple_folder(tmp_path / "study", made, scores)
    text, picture = tmp_path / "a.json", tmp_path / "a.png"
    code, out, err = run("study", "analyse", folder, "--json", text, "--plot", picture)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "A title: 2 raters"
    # 4, 5, 3, 3: S^2 = (0.0625 + 1.5625 + 2 * 0.5625) / 3 = 0.9167, 3.182 * sqrt(0.9167 / 4) = 1.523; DMOS all 5.
    assert lines[3].split() == ["quokka-restored", "3.75", "±1.52", "0.96", "4", "5.00", "±0.00"]
    assert lines[4].split() == ["reference", "3.75", "±1.52", "0.96", "4"]
    assert "cannot of fewer than 6" in lines[6]
    values = json.loads(text.read_text())
    assert values["conditions"]["reference"]["mean"] == 3.75
    assert json.loads(run("study", "analyse", folder, "--json", "-")[1]) == values
    with Image.open(picture) as image:
        assert image.format == "PNG"
    first = picture.read_bytes()
    code, _, err = run("study", "analyse", folder, "--plot", tmp_path / "plot")
    assert code == 2 and "ending in .png, .svg or .pdf" in err and not list(tmp_path.glob(".deartifact-*"))
    code, _, err = run("study", "analyse", folder, "--plot", picture)
    assert code == 2 and "--overwrite" in err
    assert run("study", "analyse", folder, "--plot", picture, "--overwrite")[0] == 0
    assert picture.read_bytes() == first


def test_a_table_says_who_was_left_out(tmp_path, run):
    made = simple_study("a")
    scores = [
        lambda token, again, rater=rater: LOW[rater] if token == "a/reference" else HIGH[rater] for rater in range(10)
    ]
    folder = simple_folder(tmp_path / "study", made, scores)
    out = run("study", "analyse", folder)[1]
    assert "rater 10 is left out by BT.500: 1 far above and 1 far below the mean of 2" in out
    # Without the 1: 29 / 9 = 3.22; with it: 3.
    assert out.count("reference ") == 2 and "3.22" in out and "before screening" in out and "3.00" in out


def test_a_plot_without_matplotlib_says_what_to_install(tmp_path, run, monkeypatch):
    folder = simple_folder(tmp_path / "study", simple_study("a"), [lambda token, again: 4] * 2)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, _, err = run("study", "analyse", folder, "--plot", tmp_path / "a.png")
    assert code == 2 and "pip install 'keras_deartifact[measure]'" in err and err.count("\n") == 1
    assert not (tmp_path / "a.png").exists()


# In a browser.


@pytest.fixture
def shown(tmp_path, photo, make_video):
    """A study of pictures and a video that is rated fast; the originals are 5, the others known by their condition."""
    for name in CONDITIONS:
        (tmp_path / name).mkdir()
        quality = {"zebra-squeezed": 5, "quokka-restored": 60}.get(name)
        for index, item in enumerate("ab"):
            picture = Image.fromarray(photo(200, 340, seed=index))
            picture.save(tmp_path / name / (f"{item}.jpg" if quality else f"{item}.png"), quality=quality or -1)
        make_video(tmp_path / name / "v.mp4", "libx264", None, times=[40 * index for index in range(5)], size=(160, 96))
    folder = tmp_path / "study"
    made = study.create_study(
        folder,
        {name: tmp_path / name for name in CONDITIONS[:2]},
        tmp_path / "reference",
        title="Which looks better?",
        training=1,
        repeats=1,
        seed=3,
    )
    made = dataclasses.replace(made, minimum_seconds=0.05, gap_seconds=0.02)
    plan.write_study(folder, made)
    return folder


def _order(folder, number):
    with contextlib.closing(sqlite3.connect(folder / "ratings.sqlite")) as database:
        text = database.execute("SELECT presentations FROM raters WHERE number = ?", (number,)).fetchone()[0]
    return [study.read_study(folder).stimuli[token] for token in json.loads(text)]


def _wait_for(page, position):
    """Until the stimulus of a position can be rated."""
    page.wait_for_function(
        "position => document.querySelector('#bar').getAttribute('aria-valuenow') === String(position) && "
        "document.querySelector('#scale button').getAttribute('aria-disabled') === 'false'",
        arg=position,
    )


@contextlib.contextmanager
def _page(browser, **options):
    context = browser.new_context(**options)
    try:
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        yield page
        assert page.errors == []
    finally:
        context.close()


def test_sessions_in_a_browser(shown, browser, run):
    """One rater with the keyboard, who is cut off twice, and one with a phone; then their analysis."""
    keyboard = {"zebra-squeezed": 2, "quokka-restored": 4, "reference": 5}
    touch = {"zebra-squeezed": 1, "quokka-restored": 4, "reference": 4}
    with served(shown) as server:
        with _page(browser, viewport={"width": 1280, "height": 800}) as page:
            asked = []
            page.on("request", lambda request: asked.append(request.url))
            page.goto(server.url)
            assert page.get_by_role("heading").inner_text() == "Which looks better?"
            assert page.evaluate("document.activeElement.id") == "begin"
            page.keyboard.press("Enter")
            _wait_for(page, 0)
            order = _order(shown, 1)
            assert len(order) == 11
            for position, stimulus in enumerate(order):
                _wait_for(page, position)
                assert page.locator("#stage img, #stage video").count() == 1
                if position == 4:
                    _lose_the_connection(page, server, keyboard[stimulus.condition], position)
                elif position == 6:
                    page = _come_back(page, server, position)
                    page.keyboard.press(str(keyboard[stimulus.condition]))
                else:
                    page.keyboard.press(str(keyboard[stimulus.condition]))
            page.get_by_role("heading", name="Thank you!").wait_for()
            assert "All your 11 ratings are stored" in page.inner_text("#thanks")
            names = "zebra|quokka|squeezed|restored|reference|condition"
            assert not page.evaluate(f"/{names}/i.test(document.documentElement.outerHTML)")
            assert len(asked) > 20 and not [url for url in asked if any(name in url for name in names.split("|"))]
            assert all(url.startswith((server.url, "blob:", "data:")) for url in asked)
        phone = {
            "viewport": {"width": 390, "height": 664},
            "device_scale_factor": 3,
            "is_mobile": True,
            "has_touch": True,
        }
        with _page(browser, **phone) as page:
            page.goto(server.url)
            page.get_by_role("button", name="Begin").tap()
            _wait_for(page, 0)
            for position, stimulus in enumerate(_order(shown, 2)):
                _wait_for(page, position)
                button = page.locator("#scale button").nth(touch[stimulus.condition] - 1)
                box = button.bounding_box()
                assert box["width"] >= 48 and box["height"] >= 48 and box["y"] + box["height"] <= 664
                button.tap()
            page.get_by_role("heading", name="Thank you!").wait_for()
    found = rows(shown, "rater, position, score, plays, seconds, screen_width, pixel_ratio, scale, browser")
    assert [row[:2] for row in found] == [(rater, position) for rater in (1, 2) for position in range(11)]
    for number, scores in [(1, keyboard), (2, touch)]:
        own = [row for row in found if row[0] == number]
        assert [row[2] for row in own] == [scores[each.condition] for each in _order(shown, number)]
        assert [row[3] for row in own] == [each.item == "v" for each in _order(shown, number)]
    assert {row[5:8] for row in found} == {(1280, 1, 1), (390, 3, 3)}
    assert all(0.05 <= row[4] < 60 and row[8].startswith("Chrome, ") for row in found)
    assert run("study", "analyse", shown, "--json", shown / "a.json")[0] == 0
    values = json.loads((shown / "a.json").read_text())
    means = {name: each["mean"] for name, each in values["conditions"].items()}
    assert means == {"zebra-squeezed": 1.5, "quokka-restored": 4, "reference": 4.5}
    assert {name: each["mean"] for name, each in values["differences"].items()} == {
        "zebra-squeezed": 2,
        "quokka-restored": 4.5,
    }
    assert values["repeat_difference"] == 0


def _lose_the_connection(page, server, score, position):
    """The request is lost twice, then the answer, after it is stored: the page waits, and nothing is there twice."""
    tries = []

    def lose(route):
        tries.append(route.request.post_data_json["position"])
        if len(tries) == 3:
            route.fetch()
        if len(tries) <= 3:
            route.abort()
        else:
            route.continue_()

    page.route("**/api/ratings", lose)
    page.keyboard.press(str(score))
    page.get_by_role("alert").wait_for()
    assert "not stored yet" in page.get_by_role("alert").inner_text()
    assert page.get_attribute("#bar", "aria-valuenow") == str(position)
    # What is pressed while it is being sent is not taken.
    page.keyboard.press("1")
    page.evaluate("dispatchEvent(new Event('online'))")
    for _ in range(2):
        page.wait_for_timeout(100)
        page.evaluate("dispatchEvent(new Event('online'))")
    _wait_for(page, position + 1)
    assert tries == [position] * 4
    assert page.get_by_role("alert").count() == 0
    page.unroute("**/api/ratings")


def _come_back(page, server, position):
    """The tab is closed; the address alone is opened again, and the rater goes on where they were."""
    context, errors, token = page.context, page.errors, page.url.split("#")[1]
    page.close()
    page = context.new_page()
    page.errors = errors
    page.goto(server.url)
    page.get_by_role("button", name="Go on").wait_for()
    assert f"{position} of 11 are rated already" in page.inner_text("#welcome")
    assert page.url.endswith(f"#{token}")
    page.keyboard.press("Enter")
    _wait_for(page, position)
    return page


@pytest.mark.parametrize("ratio, scale", [(1, 1), (1.25, 1), (2.625, 3)])
def test_a_pixel_is_whole_pixels_of_the_screen(shown, browser, ratio, scale):
    # A screen that really has that ratio: where a page only pretends to, Chromium rounds to the wrong pixels.
    screen = browser.browser_type.launch(
        executable_path=shutil.which("chromium"),
        args=["--no-sandbox", "--window-size=800,700", f"--force-device-scale-factor={ratio}"],
    )
    with served(shown) as server, contextlib.closing(screen), _page(screen, no_viewport=True) as page:
        page.goto(server.url)
        page.get_by_role("button", name="Begin").press("Enter")
        stimulus = _go_to_a_picture(page, shown)
        assert page.evaluate("devicePixelRatio") == ratio
        box = page.locator("#stage img").bounding_box()
        left, top = round(box["x"] * ratio), round(box["y"] * ratio)
        with Image.open(io.BytesIO(page.screenshot())) as image:
            shot = np.asarray(image.convert("RGB")).astype(int)
    with Image.open(shown / "media" / stimulus.file) as image:
        expected = np.asarray(image.convert("RGB")).repeat(scale, 0).repeat(scale, 1)
    height, width = expected.shape[:2]
    assert (height, width) == (200 * scale, 340 * scale)
    # The position that the page tells is rounded.
    difference = min(
        np.abs(shot[top + down : top + down + height, left + right : left + right + width] - expected).max()
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    )
    # Chromium's JPEG decoder and Pillow's may round apart.
    assert difference <= (2 if stimulus.file.endswith("jpg") else 0)


def _go_to_a_picture(page, folder):
    """Rates until the stimulus is a picture, and returns that."""
    _wait_for(page, 0)
    for position, stimulus in enumerate(_order(folder, 1)):
        if stimulus.item != "v":
            return stimulus
        page.keyboard.press("3")
        _wait_for(page, position + 1)
    raise ValueError("there is no picture")


def test_a_picture_larger_than_the_screen_is_moved(shown, browser):
    options = {"viewport": {"width": 320, "height": 400}, "is_mobile": True, "has_touch": True}
    with served(shown) as server, _page(browser, **options) as page:
        page.goto(server.url)
        page.get_by_role("button", name="Begin").wait_for()
        assert "too small" in page.inner_text("#small")
        page.get_by_role("button", name="Begin").tap()
        _go_to_a_picture(page, shown)
        assert page.locator("#pan").is_visible()
        size = page.evaluate("document.querySelector('#stage img').getBoundingClientRect().width")
        assert size == 340
        before = page.evaluate("document.querySelector('#stage').scrollLeft")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.querySelector('#stage').scrollLeft") > before > 0
        # The page itself never scrolls.
        assert page.evaluate("document.documentElement.scrollWidth") == 320
        assert page.evaluate("document.documentElement.scrollHeight") == 400


def test_a_second_person_at_the_same_computer(shown, browser):
    made = study.read_study(shown)
    with served(shown) as server, _page(browser) as page:
        token = new_rater(server.url)["rater"]
        for position in range(made.length):
            rate(server.url, token, position, 3)
        page.goto(f"{server.url}#{token}")
        page.get_by_role("button", name="Let someone else rate").click()
        page.get_by_role("button", name="Begin").click()
        _wait_for(page, 0)
        assert page.url.split("#")[1] != token
        assert len(server.ratings.rows()) == made.length
