import html
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from keras_deartifact import engines, report
from keras_deartifact.report.plot import plot


@pytest.fixture
def restorer(monkeypatch):
    """Puts a restorer that makes everything darker by 5 levels in the place of whatever model is asked for."""

    def darker(frames, quantiser_map=None):
        return frames - np.float32(5 / 255)

    monkeypatch.setattr(engines, "load", lambda *arguments: darker)


NAME = '</script><b title="a"> <!-- table --> & ü.mp4'


@pytest.fixture
def archive(tmp_path, photo, make_video):
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    Image.fromarray(photo(40, 48)).save(folder / "deep" / "a.jpg", quality=30)
    make_video(folder / NAME.replace("/", "|"))
    (folder / "bad.mp4").write_bytes(b"nothing to see" * 9)
    return folder


def is_on_its_own(text):
    return not re.search(r"(src|href)=|https?:|url\(", text.replace("image.src = ", ""))


def test_samples_of_a_video(tmp_path, make_video, copy_video):
    source = make_video(tmp_path / "a.mp4", times=[1000 + 40 * index for index in range(30)])
    copy_video(source, tmp_path / "b.mp4", codec="libx264", crf=0)
    seen = []

    def predictor(frames):
        seen.append(frames.shape)
        return np.full((1, 4, 6), 5.5, np.float32)

    looked = report.samples(source, tmp_path / "b.mp4", "video", count=3, frames=30, predictor=predictor)
    assert [each.name for each in looked.shown] == [
        "0:00:00.20, frame 6",
        "0:00:00.60, frame 16",
        "0:00:01.00, frame 26",
    ]
    assert all(each.versions["compressed"].shape == (64, 96, 3) for each in looked.shown)
    stated, shown = looked.steps
    assert len(stated.points) == len(looked.change.points) == 30 and len(shown.points) == len(seen) == 24
    assert all(value == 5.5 for _, value in shown.points) and all(0 < value < 8 for _, value in stated.points)
    assert stated.points[0][0] == 0 and stated.points[-1][0] == pytest.approx(1.16)
    # Written without loss, so that nothing changed.
    assert {value for _, value in looked.change.points} == {0.0}


def test_a_large_picture_is_shown_where_it_changed_most(tmp_path, photo):
    before = np.zeros((1000, 1500, 3), np.uint8)
    after = before.copy()
    after[900:, 1400:] = 40
    for name, pixels in (("a.png", before), ("b.png", after)):
        Image.fromarray(pixels).save(tmp_path / name)
    looked = report.samples(tmp_path / "a.png", tmp_path / "b.png", "image", count=1)
    (shown,) = looked.shown
    assert shown.name == "1280x720 of 1500x1000 pixels"
    assert shown.versions["restored"].shape == (720, 1280, 3)
    assert (shown.versions["restored"] == 40).all(axis=2).sum() == 100 * 100
    assert looked.steps == () and looked.change.points[0][1] == pytest.approx(40 * np.sqrt(100 * 100 / 1.5e6))


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([3.9, 5.1], [3.5, 4, 4.5, 5, 5.5]),
        ([0.0, 0.0], [0, 0.05]),
        ([0.0, 37.0], [0, 10, 20, 30, 40]),
        ([-2.0, 2.0], [-2, -1, 0, 1, 2]),
    ],
)
def test_the_axis_has_round_numbers(values, ticks):
    points = tuple(enumerate(map(float, values)))
    drawn = plot("a < b", [report.Curve("one", points), report.Curve("two", points[:1])])
    labels = [float(each) for each in re.findall(r'text-anchor="end">([-\d.]+)<', drawn)]
    assert labels[0] <= min(values) and labels[-1] >= max(values)
    assert labels == [pytest.approx(each) for each in ticks]
    assert "a &lt; b" in drawn and drawn.count("<polyline") == drawn.count("<circle") == 1


def test_the_page_of_a_folder(tmp_path, run, restorer, archive):
    target = tmp_path / "report.html"
    code, out, err = run("restore", archive, "-o", tmp_path / "out", "--report", target, "--strength", "1")
    assert code == 2 and err.splitlines()[-1] == f"deartifact: report: {target}"
    text = target.read_text("utf-8")
    assert is_on_its_own(text)
    assert text.count("data:image/webp;base64,") == 2 * (6 + 1)
    name = html.escape(NAME.replace("/", "|"))
    assert f"<th scope=row>{name}</th>" in text and f"<h2>{name}</h2>" in text
    assert "<td>failed</td>" in text and "JPEG, 48x40, 8 bits" in text and text.count("<svg") == 2
    assert text.count("</script>") == 2


def test_the_page_in_a_browser(tmp_path, run, restorer, archive, browser):
    source = archive / NAME.replace("/", "|")
    target = tmp_path / "report.html"
    code, _, err = run("restore", source, "-o", tmp_path / "b.mp4", "--report", target, "--strength", "1")
    assert code == 0 and err == f"deartifact: report: {target}\n"
    page = browser.new_page(viewport={"width": 390, "height": 800})
    troubles = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: troubles.append(request.url) if request.url.startswith("http") else None)
    page.goto(target.as_uri())
    assert page.title() == f"{source.name}, restored"
    assert page.locator(".viewer").count() == 12 and page.locator("svg").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    stage = page.locator(".stage").first
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    middle = box["y"] + box["height"] / 2
    assert page.locator(".handle").first.evaluate("each => each.style.left") == "50%"
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, middle, steps=4)
    page.mouse.up()
    assert page.locator(".handle").first.evaluate("each => each.style.left") == "25%"
    # Left of the line the compressed frame, right of it the restored one, which is darker.
    shot = np.asarray(Image.open(_bytes(stage.screenshot())).convert("RGB")).astype(float)
    size = page.evaluate("[...document.querySelectorAll('.stage img')].slice(0, 2).map(each => each.naturalWidth)")
    assert size == [96, 96]
    looked = _versions(page)
    # As large as the picture; between two pixels of the screen, perhaps.
    assert abs(shot.shape[1] - 96) <= 1 and abs(shot.shape[0] - 64) <= 1
    sides = {"compressed": slice(2, 20), "restored": slice(28, 90)}
    for side, columns in sides.items():
        errors = {each: abs((shot[4:30, columns] - looked[each][4:30, columns]).mean()) for each in sides}
        assert min(errors, key=errors.get) == side and abs(errors["compressed"] - errors["restored"]) > 3
    assert looked["compressed"].mean() - looked["restored"].mean() == pytest.approx(5, abs=1)
    assert troubles == []
    page.close()


def _bytes(data):
    import io

    return io.BytesIO(data)


def _versions(page):
    import base64
    import json

    items = json.loads(page.locator("#data").text_content())[0]
    return {
        name: np.asarray(Image.open(_bytes(base64.b64decode(address.split(",")[1]))).convert("RGB")).astype(float)
        for name, address in items[0]["versions"].items()
    }


def test_a_page_that_cannot_be_is_refused_before_work(tmp_path, run, restorer, archive):
    for options, message in (
        (["--report", tmp_path / "missing" / "a.html"], "--report must name a file in a folder that exists"),
        (["--report", tmp_path / "a.html", "--dry-run"], "--report shows what was restored"),
        (["--report", tmp_path / "a", "--json", tmp_path / "a"], "another file than that of --json"),
    ):
        code, out, err = run("restore", archive, "-o", tmp_path / "out", *options)
        assert (code, out) == (2, "") and message in err
    assert not (tmp_path / "out").exists()


def test_a_page_without_pictures():
    text = report.page("a & b", {"x": "<y>"}, ("file",), [("z",)], [])
    assert "<title>a &amp; b</title>" in text and "<dd>&lt;y&gt;</dd>" in text and "<!--" not in text
    entry = report.Entry("e", replace(report.Samples((), (), report.Curve("change", ()))), {})
    assert "<svg" not in report.page("a", {}, ("file",), [], [entry])
