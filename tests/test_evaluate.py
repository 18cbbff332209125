import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_deartifact import engines
from training.evaluation.inputs import load_restorers

ROOT = Path(__file__).resolve().parents[1]


def _run(*arguments):
    command = [sys.executable, "-m", "training.evaluate", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def measured(photo, tmp_path_factory):
    """A run of the program on two pictures: its output, its figures and its report."""
    folder = tmp_path_factory.mktemp("measured")
    pictures = folder / "pictures"
    pictures.mkdir()
    for index in range(2):
        Image.fromarray(photo(96, 192, index)).save(pictures / f"{index}.png")
    done = _run(f"--stills={pictures}", f"--grey={pictures}", "--qualities=10,20,40,80", "--filters=", "--shown=1",
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


def test_report_is_one_file(measured):
    _, figures, report = measured
    for table in figures["tables"]:
        assert table["title"] in report
    assert "--qualities=10,20,40,80" in report
    # Every place of the template is filled.
    assert not any(f"<!-- {name} -->" in report for name in ("title", "facts", "tables", "plots", "pictures"))
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


def test_names_of_models_must_differ():
    with pytest.raises(ValueError, match="Expected models of different names"):
        load_restorers([engines.DEFAULT_MODEL] * 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "error: give --stills, --grey, --videos or several of them."),
        (("--stills={empty}",), "error: Expected pictures"),
        (("--stills={empty}", "--filters=blur"), "error: Expected filters of"),
        (("--stills={empty}", "--model=missing.tflite"), "error: There is no model file missing.tflite."),
    ],
)
def test_what_is_missing_is_said_in_a_line(arguments, message, tmp_path):
    done = _run(*(argument.format(empty=tmp_path) for argument in arguments))
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(message)
