import html
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from keras_deartifact import engines
from training import evaluate
from training.evaluation.inputs import load_restorers, model_files

ROOT = Path(__file__).resolve().parents[1]


def _run(*arguments):
    command = [sys.executable, "-m", "training.evaluate", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def measured(photo, tmp_path_factory):
    """A run of the program on two pictures and other programs' files: its output, its figures and its report."""
    folder = tmp_path_factory.mktemp("measured")
    pictures = folder / "pictures"
    pictures.mkdir()
    for index in range(2):
        Image.fromarray(photo(96, 192, index)).save(pictures / f"{index}.png")
    detection = {"pictures": 2, "pictures without labels": 0, "objects": 7, "sha256": {"some.cfg": "ab12"},
                 "least score": 0.001, "resamples": 100, "command": "python -m training.evaluate_detection",
                 "rows": [{"quality": None, "method": "original", "mAP50": 0.4321, "mAP50:95": 0.2}]}  # fmt: skip
    (folder / "detection.json").write_text(json.dumps(detection))
    code = "import sys; from keras_deartifact import cli; sys.exit(cli.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "bench", "--quick", "--engine=litert", "--json=-"]
    speed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (folder / "speed.json").write_text(speed.stdout)
    done = _run(f"--stills={pictures}", f"--grey={pictures}", "--qualities=10,20,40,80", "--filters=", "--shown=1",
                f"--detection={folder / 'detection.json'}", f"--bench={folder / 'speed.json'}",
                f"--json={folder / 'figures.json'}", f"--report={folder / 'report.html'}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((folder / "figures.json").read_text()), (folder / "report.html").read_text()


def test_tables_are_of_the_records(measured):
    output, figures, _ = measured
    assert figures["sha256"] == {engines.DEFAULT_MODEL: engines.digest(engines.pretrained_path(engines.DEFAULT_MODEL))}
    values = {
        (record["protocol"], record["setting"], record["item"], record["method"]): record["values"]
        for record in figures["records"]
    }
    # Three versions of two pictures at four qualities by either protocol.
    assert len(values) == len(figures["records"]) == 48
    gains = [
        values["colour", "JPEG 10", item, engines.DEFAULT_MODEL]["psnr"]
        - values["colour", "JPEG 10", item, "compressed"]["psnr"]
        for item in "01"
    ]
    (line,) = (
        table["rows"][1] for table in figures["tables"] if table["title"].startswith("PSNR over RGB, dB: pictures")
    )
    assert line[1].startswith(f"{np.mean(gains):+.2f} (")
    assert f"| {engines.DEFAULT_MODEL} | {line[1]} |" in output
    titles = [table["title"] for table in figures["tables"]]
    assert "Without the original: pictures, 2 pictures, JPEG 10" in titles
    assert "Grey JPEG: pictures, 2 pictures" in titles
    assert all(title in output for title in titles)


def test_other_programs_figures_are_in_all_three(measured):
    output, figures, report = measured
    titles = [table["title"] for table in figures["tables"]][-4:]
    assert titles[0] == "Detection: 7 objects on 2 pictures"
    assert [title.split(",")[0] for title in titles[1:]] == [
        "Speed of networks alone",
        "Speed of the stages around a network",
        "Speed from file to file",
    ]
    assert all(f"**{title}**" in output and f"<h2>{title}</h2>" in report for title in titles)
    assert "| original |  | 0.432 |  | 0.200 |  |  |" in output
    digest = figures["sha256"][engines.DEFAULT_MODEL]
    assert figures["sources"][f"speed, SHA-256 of {engines.DEFAULT_MODEL}.tflite"] == digest
    for name, text in figures["sources"].items():
        assert f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" in report


def test_report_is_one_file(measured):
    _, figures, report = measured
    for table in figures["tables"]:
        assert table["title"] in report
    assert "--qualities=10,20,40,80" in report
    # Every place of the template is filled.
    assert not any(
        f"<!-- {name} -->" in report for name in ("title", "facts", "contents", "tables", "plots", "pictures")
    )
    # Nothing is fetched from anywhere.
    assert "src=" not in report.replace("image.src =", "")
    assert "http" not in report.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ).replace("https://matplotlib.org", "")
    assert report.count("data:image/webp;base64,") == 3


def test_report_in_a_browser(measured, tmp_path, browser):
    (tmp_path / "report.html").write_text(measured[2], "utf-8")
    page = browser.new_page(viewport={"width": 900, "height": 700})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((tmp_path / "report.html").as_uri())
    stage = page.locator(".stage")
    assert stage.count() == 1
    stage.scroll_into_view_if_needed()
    tags = page.locator(".tag").all_text_contents()
    assert tags == ["compressed", engines.DEFAULT_MODEL]
    # Both are loaded, at the picture's own size.
    assert (
        page.evaluate("[...document.querySelectorAll('.stage img')].map(i => [i.naturalWidth, i.naturalHeight])")
        == [[192, 96]] * 2
    )
    before = page.locator(".handle").bounding_box()["x"]
    stage.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".handle").bounding_box()["x"] > before
    scale = page.locator(".bar > span").text_content()
    page.keyboard.press("+")
    assert page.locator(".bar > span").text_content() != scale
    page.locator("select").nth(1).select_option("original")
    assert page.locator(".tag").all_text_contents() == ["compressed", "original"]
    assert errors == []


def test_a_finger_moves_the_page_or_the_line(measured, tmp_path, browser):
    """A swipe up over a picture scrolls the page, or a phone could not get past it; one to the side moves the line."""
    (tmp_path / "report.html").write_text(measured[2], "utf-8")
    page = browser.new_page(viewport={"width": 390, "height": 500}, has_touch=True, is_mobile=True)
    page.goto((tmp_path / "report.html").as_uri())
    page.locator(".stage").evaluate("stage => scrollTo(0, stage.getBoundingClientRect().y - 300)")
    fingers = page.context.new_cdp_session(page)

    def swipe(right, down):
        box = page.locator(".stage").bounding_box()
        x, y = box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"]
        for kind, share in (("touchStart", 0.0), *(("touchMove", step / 10) for step in range(1, 11))):
            point = {"x": x + share * right, "y": y + share * down}
            fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
        fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    line, top = page.locator(".handle").bounding_box()["x"], page.evaluate("scrollY")
    swipe(100, 0)
    page.wait_for_function("line => document.querySelector('.handle').getBoundingClientRect().x > line + 20", arg=line)
    line = page.locator(".handle").bounding_box()["x"]
    assert page.evaluate("scrollY") == top
    swipe(0, 120)
    page.wait_for_function("top => scrollY < top - 50", arg=top)
    assert page.locator(".handle").bounding_box()["x"] == line


@pytest.mark.parametrize("width", [390, 1280])
def test_report_fits_the_page(measured, tmp_path, browser, width):
    """Only tables scroll, each in its own place, by the keyboard too; and the contents lead somewhere."""
    (tmp_path / "report.html").write_text(measured[2], "utf-8")
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto((tmp_path / "report.html").as_uri())
    page.wait_for_function("document.querySelectorAll('.scroll').length > 0")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wide = page.evaluate(
        "[...document.querySelectorAll('.scroll')].map(e => [e.scrollWidth > e.clientWidth, e.tabIndex])"
    )
    assert all(index == (0 if scrolls else -1) for scrolls, index in wide)
    # The widest have four settings here.
    assert any(scrolls for scrolls, _ in wide) == (width == 390)
    targets = page.evaluate("[...document.querySelectorAll('nav a')].map(a => document.querySelector(a.hash)?.tagName)")
    assert len(targets) == len(wide) + 2 and set(targets) == {"SECTION", "H2"}


def test_names_of_models_must_differ():
    with pytest.raises(ValueError, match="Expected models of different names"):
        load_restorers([engines.DEFAULT_MODEL] * 2)


def test_models_in_several_forms_run_on_litert(tmp_path, monkeypatch):
    """Whatever is the fastest here; and a folder of a model's name does not take its place."""
    monkeypatch.chdir(tmp_path)
    export, name = Path("export"), engines.DEFAULT_MODEL
    for folder in (export / "tflite", export / "onnx", Path(name)):
        folder.mkdir(parents=True)
    shutil.copy(engines.pretrained_path(name), export / "tflite/model.float32.tflite")
    (export / "onnx/model.onnx").write_bytes(b"of no use")
    (export / "manifest.json").write_text("{}")
    monkeypatch.setattr(engines.loading, "_load_fastest", None)
    restorers = load_restorers([name, str(export)])
    assert {each: restorer.engine for each, restorer in restorers.items()} == {name: "litert", "export": "litert"}
    assert model_files([name, str(export)]) == {name: engines.pretrained_path(name), str(export): export}
    monkeypatch.undo()
    # A file has one engine.
    with pytest.raises(ValueError, match="is no model that the engine 'onnx' can load"):
        load_restorers([str(tmp_path / export / "onnx/model.onnx")])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stills": []}, "error: give --stills, --grey, --videos or several of them."),
        ({}, "error: Expected pictures"),
        ({"report": "nowhere/report.html"}, "error: There is no folder for nowhere/report.html."),
        ({"bench": "setup.cfg"}, "error: Expected JSON in setup.cfg."),
        ({"detection": "missing.json"}, "error: missing.json cannot be read: No such file or directory."),
        ({"filters": ["blur"]}, "error: Expected filters of"),
        ({"model": ["missing.tflite"]}, "error: There is no model file missing.tflite."),
    ],
)
def test_what_is_missing_is_said_in_a_line(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    values = {
        "model": [engines.DEFAULT_MODEL],
        "stills": [str(tmp_path)],
        **dict.fromkeys(("grey", "videos", "filters", "perceptions"), []),
        "qualities": ["10"],
        "frames": 2,
        "shown": 0,
        **dict.fromkeys(("deep_features", "detection", "bench", "json", "report")),
    }
    monkeypatch.setattr(evaluate, "FLAGS", SimpleNamespace(**values | given))
    with pytest.raises(SystemExit) as stopped:
        evaluate.main([])
    assert str(stopped.value).startswith(message) and "\n" not in str(stopped.value)
