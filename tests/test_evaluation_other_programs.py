import json
from dataclasses import asdict

import pytest

from keras_deartifact import bench
from training.evaluation import other_programs
from training.evaluation.tables import markdown

DETECTION = {
    "command": "python -m training.evaluate_detection --pictures=DIR",
    "pictures": 3,
    "pictures without labels": 1,
    "objects": 5,
    "sha256": {"some.onnx": "ab12"},
    "least score": 0.001,
    "resamples": 1000,
    "rows": [
        {"quality": None, "method": "original", "mAP50": 0.5, "mAP50:95": 0.25},
        {
            "quality": 10,
            "method": "compressed",
            "mAP50": 0.25,
            "mAP50:95": 0.125,
            "against": "original",
            "difference": {"mAP50": [-0.25, -0.5, 0.0], "mAP50:95": [-0.125, -0.25, 0.0625]},
        },
    ],
}
FPS, RATIO = bench.Spread(12.34, 10.0, 15.0), bench.Spread(0.5, 0.25, 0.75)
SIZE = bench.SizeReport(
    width=1280,
    height=720,
    peak_gmac_per_second=bench.Spread(100.0, 90.0, 110.0),
    networks=[bench.NetworkRow("model", "litert", FPS, RATIO, 4.7646, FPS, RATIO)],
    stages=[bench.StageRow("decode", FPS, RATIO)],
    runs=[bench.RunRow("model", "litert", FPS, RATIO, RATIO, None)],
)
MACHINE = {"processor": "Some", "processors": 2, "threads": 1, "system": "Linux", "python": "3.11.7"}
MACHINE["packages"] = {"numpy": "2.4.6"}
SPEED = {"machine": MACHINE, "notes": ["a note"], "sizes": [asdict(SIZE)], "sha256": {"model": "cd34"}}


@pytest.fixture
def written(tmp_path):
    def write(values):
        (tmp_path / "some.json").write_text(json.dumps(values))
        return tmp_path / "some.json"

    return write


def test_detection_by_hand(written):
    file = written(DETECTION)
    (table,), facts = other_programs.read_detection(file)
    assert table.title == "Detection: 5 objects on 3 pictures, 1 of them without a file of labels"
    assert table.head == ["", "", "mAP50", "difference", "mAP50:95", "difference", "against"]
    assert table.rows[0] == ["original", "", "0.500", "", "0.250", "", ""]
    assert table.rows[1][:4] == ["compressed", "JPEG 10", "0.250", "-0.250 (-0.500 to +0.000)"]
    assert table.rows[1][4:] == ["0.125", "-0.125 (-0.250 to +0.062)", "original"]
    assert list(facts) == ["detection", "detection, command", "detection, SHA-256 of some.onnx"]
    assert facts["detection"].startswith(f"{file}: ") and "0.001" in facts["detection"] and "1000" in facts["detection"]
    assert facts["detection, command"] == DETECTION["command"]
    assert facts["detection, SHA-256 of some.onnx"] == "ab12"


def test_speed_by_hand(written):
    file = written(SPEED)
    tables, facts = other_programs.read_speed(file)
    networks, stages, runs = tables
    assert networks.title == "Speed of networks alone, 1280x720"
    assert networks.note.endswith("100.0 (90.0..110.0) GMAC/s.")
    assert networks.head[:3] == ["network", "engine", "fps"]
    assert networks.rows[0][:3] == ["model", "litert", "12.3 (10.0..15.0)"]
    assert stages.rows == [["decode", "12.3 (10.0..15.0)", "0.50 (0.25..0.75)"]]
    assert runs.rows[0][-2:] == ["50 (25..75)", "-"]
    assert facts == {
        "speed": f"{file}: Some, 2 processors; Linux, 1 threads an engine; Python 3.11.7, numpy 2.4.6; a note",
        "speed, SHA-256 of model": "cd34",
    }
    for table in tables:
        assert {line.count("|") for line in markdown(table) if line.startswith("|")} == {len(table.head) + 1}


def test_files_of_before_these_keys_are_read_too(written):
    older = {name: value for name, value in SPEED.items() if name != "sha256"}
    assert list(other_programs.read_speed(written(older))[1]) == ["speed"]
    older = {name: value for name, value in DETECTION.items() if name != "command"}
    assert "detection, command" not in other_programs.read_detection(written(older))[1]


@pytest.mark.parametrize(
    "values", [[], 1, {}, SPEED, {**DETECTION, "rows": [{"method": "original"}]}, {**DETECTION, "rows": None},
               {**DETECTION, "rows": [{**DETECTION["rows"][0], "mAP50": "high"}]}]
)  # fmt: skip
def test_what_is_not_detection_is_refused(values, written):
    file = written(values)
    with pytest.raises(ValueError, match=f"^Expected what training.evaluate_detection --json writes in {file}.$"):
        other_programs.read_detection(file)


@pytest.mark.parametrize("values", [[], 1, {}, DETECTION, {**SPEED, "machine": {}}, {**SPEED, "sizes": [{"width": 1}]}])
def test_what_is_not_speed_is_refused(values, written):
    file = written(values)
    with pytest.raises(ValueError, match=f"^Expected what deartifact bench --json writes in {file}.$"):
        other_programs.read_speed(file)


@pytest.mark.parametrize("read", [other_programs.read_detection, other_programs.read_speed])
def test_files_that_cannot_be_read(read, tmp_path):
    with pytest.raises(ValueError, match=r"missing.json cannot be read: No such file or directory\.$"):
        read(tmp_path / "missing.json")
    (tmp_path / "other.json").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"^Expected JSON in .*other.json\.$"):
        read(tmp_path / "other.json")
