import argparse

import pytest
from PIL import Image

from keras_deartifact import engines, restore
from keras_deartifact.cli import selection
from keras_deartifact.engines import speeds

NAMES = ["shuffle_pico", "shuffle_nano", "shuffle_small"]


@pytest.mark.parametrize(
    ("wanted", "name", "is_enough", "trials"),
    [
        # Alone 100, 40, 8; in a whole run 50, 20, 4.
        (3, "shuffle_small", True, ["shuffle_small"]),
        (4, "shuffle_small", True, ["shuffle_small"]),
        (5, "shuffle_nano", True, ["shuffle_small", "shuffle_nano"]),
        (15, "shuffle_nano", True, ["shuffle_nano"]),
        (30, "shuffle_pico", True, ["shuffle_nano", "shuffle_pico"]),
        (60, "shuffle_pico", False, ["shuffle_pico"]),
        (200, "shuffle_pico", False, ["shuffle_pico"]),
    ],
)
def test_the_best_that_is_fast_enough(wanted, name, is_enough, trials):
    alone = dict(zip(NAMES, (100.0, 40.0, 8.0), strict=True))
    asked = []

    def whole(each):
        asked.append(each)
        return alone[each] / 2

    chosen = engines.select(NAMES, wanted, alone.__getitem__, whole)
    assert (chosen.name, chosen.is_enough, asked) == (name, is_enough, trials)
    assert set(chosen.rates) >= {name}


def test_general_models_ship():
    general = engines.general_models()
    assert engines.DEFAULT_MODEL in general and set(general) <= set(engines.pretrained_models())
    costs = [engines.card(name)["multiply_accumulates_720p"] for name in general]
    assert costs == sorted(costs)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1h30m", 5400), ("1h1m1s", 3661), ("0.5", 0.5)],
)
def test_durations(text, seconds):
    assert selection.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "h", "m5", "1.2.3s", "-3", "1d", "inf", "nan"])
def test_what_is_no_duration(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a duration"):
        selection.seconds(text)


def test_the_speed_of_a_network_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    restorer = engines.load(engines.DEFAULT_MODEL, "litert", 1)
    monkeypatch.setattr(speeds, "frames_a_second", lambda action: 50.0)
    height, width = engines.SPEED_SIZE
    assert engines.speed(restorer, height, width) == 50.0
    monkeypatch.setattr(speeds, "frames_a_second", lambda action: pytest.fail("it is remembered"))
    assert engines.speed(restorer, 2 * height, width) == pytest.approx(25.0)
    # What was measured nearer counts.
    engines.record(restorer, 5.0, 1072, 1920)
    assert engines.speed(restorer, 1072, 1920) == 5.0
    assert engines.speed(restorer, height, width) == 50.0


# The command.


@pytest.fixture
def doubles(monkeypatch):
    """Three models that ship, whose networks alone make 200, 40 and 8 frames a second of 96x64, whole runs half."""
    loaded = []

    def load(name, *arguments):
        def same(frames, quantiser_map=None):
            return frames

        loaded.append(name)
        same.name = name
        return same

    alone = dict(zip(NAMES, (200.0, 40.0, 8.0), strict=True))
    monkeypatch.setattr(engines, "load", load)
    monkeypatch.setattr(engines, "general_models", lambda has_variant: NAMES)
    monkeypatch.setattr(engines, "speed", lambda each, height, width: alone[each.name] * 96 * 64 / (height * width))
    monkeypatch.setattr(restore, "trial", lambda each, *rest, **options: alone[each.name] / 2)
    return loaded


def test_frames_a_second(tmp_path, run, doubles, make_video):
    source = make_video(tmp_path / "a.mp4", times=[0, 40, 80])
    for wanted, name, line in (
        ("3", "shuffle_small", "model: shuffle_small, 4 fps of a.mp4 on this machine; 3 were asked for"),
        (
            "19",
            "shuffle_nano",
            "model: shuffle_nano, 20 fps of a.mp4 on this machine; 19 were asked for, shuffle_small 8",
        ),
        (
            "500",
            "shuffle_pico",
            "warning: no model makes 500 fps; the fastest is taken: shuffle_pico, 100 fps of a.mp4 on this machine, "
            "shuffle_small 8, shuffle_nano 40",
        ),
    ):
        code, out, err = run("restore", source, "-o", tmp_path / "b.mp4", "--overwrite", "--target-fps", wanted)
        assert code == 0 and "3 frames" in out and doubles[-1] == name
        assert err == f"deartifact: {line}\n"


def test_a_time_budget(tmp_path, run, doubles, make_video):
    folder = tmp_path / "in"
    folder.mkdir()
    source = make_video(folder / "a.mp4", times=[40 * index for index in range(20)])
    # As many pixels as four of its frames.
    Image.new("RGB", (192, 128)).save(folder / "b.png")
    options = ["--overwrite", "--time-budget"]
    # 24 frames, of which the best makes 4 a second, the next 20.
    code, _, err = run("restore", folder, "-o", tmp_path / "out", *options, "7s")
    assert (code, doubles[-1]) == (0, "shuffle_small")
    assert err == "deartifact: model: shuffle_small, about 6 s on this machine; 7 s are allowed\n"
    code, _, err = run("restore", folder, "-o", tmp_path / "out", *options, "5s")
    assert (code, doubles[-1]) == (0, "shuffle_nano")
    assert err.endswith("model: shuffle_nano, about 1 s on this machine; 5 s are allowed, shuffle_small 6 s\n")
    code, _, err = run("restore", source, "-o", tmp_path / "b.mp4", "--time-budget", "0.01")
    assert (code, doubles[-1]) == (0, "shuffle_pico") and "warning: no model needs less than 0 s" in err
    # Nothing to do needs no model.
    code, _, err = run("restore", folder, "-o", tmp_path / "out", "--time-budget", "7s")
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target-fps", "5", "--model", "shuffle_nano"], "--target-fps chooses the model"),
        (["--target-fps", "5"], "--target-fps needs a video"),
        (["--target-fps", "0"], "expected 0.001 to"),
        (["--time-budget", "soon"], "expected a duration"),
        (["--time-budget", "5", "--target-fps", "5"], "not allowed with"),
    ],
)
def test_what_cannot_be_selected(options, message, tmp_path, run, doubles):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    code, out, err = run("restore", tmp_path / "a.png", "-o", tmp_path / "b.png", *options)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1
    assert not (tmp_path / "b.png").exists()


def test_a_real_trial(tmp_path, run, make_video):
    source = make_video(tmp_path / "a.mp4")
    code, out, err = run("restore", source, "-o", tmp_path / "b.mp4", "--engine", "litert", "--target-fps", "0.01")
    assert code == 0 and "30 frames" in out
    assert "fps of a.mp4 on this machine; 0.01 were asked for" in err and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_a_trial_of_a_short_video_tells_nothing(tmp_path, make_video):
    def same(frames, quantiser_map=None):
        return frames

    assert restore.trial(same, make_video(tmp_path / "a.mp4", times=[0, 40, 80]), ".mp4") is None
    assert restore.trial(same, make_video(tmp_path / "b.mp4"), ".mp4") > 0
