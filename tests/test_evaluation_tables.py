from training.evaluation import published, tables
from training.evaluation.records import COMPRESSED, ORIGINAL, Record, Records


def _records(protocol, metrics, settings=("JPEG 10",), data="live1"):
    """Two items; a model that adds 1 and 2 to everything; the original has what a metric says of it alone."""
    made = []
    for setting in settings:
        for index, item in enumerate(("a", "b")):
            base = {name: 20.0 + index for name in metrics}
            alone = {name: 1.0 for name in metrics if name in ("niqe", "brisque", "viideo")}
            model = {name: value + 1.0 + index for name, value in base.items()}
            for method, values in ((ORIGINAL, alone), (COMPRESSED, base), ("model", model)):
                made.append(Record(data, protocol, setting, item, method, values))
    return Records(made)


def test_gains_by_hand():
    table = tables.gains(_records("colour", ["psnr"], ("JPEG 10", "JPEG 20")), "psnr")
    assert table.title == "PSNR over RGB, dB: live1, 2 pictures, colour"
    assert table.head == ["", "JPEG 10", "JPEG 20"]
    assert table.rows == [
        ["compressed", "20.50", "20.50"],
        ["model", "+1.50 (+1.00 to +2.00)", "+1.50 (+1.00 to +2.00)"],
    ]


def test_markdown():
    lines = list(tables.markdown(tables.Table("Title", "How to read it.", ["", "x"], [["row", "1"]])))
    assert lines == ["", "**Title**", "", "How to read it.", "", "|  | x |", "|---|---|", "| row | 1 |"]


def test_grey_stands_beside_what_was_published():
    table = tables.fidelity(_records("grey", ["psnr_y", "ssim", "psnr_b"], ("JPEG 10", "JPEG 15")))
    rows = {name: cells for name, *cells in table.rows}
    assert rows["FBCNN (published)"] == ["29.75 · 0.827 · 29.40", ""]
    assert rows[COMPRESSED] == ["20.50 · 20.500 · 20.50"] * 2
    assert rows["model"] == ["22.00 · 22.000 · 22.00"] * 2
    assert ORIGINAL not in rows


def test_published_gains_are_plausible():
    """Everyone gains over JPEG on everything, or a digit is wrong."""
    for methods in published.FIDELITY.values():
        jpeg = methods["JPEG"]
        for name, values in methods.items():
            if name != "JPEG":
                assert all(0.0 < value - before < 5.0 for value, before in zip(values, jpeg, strict=True))


def test_no_reference():
    table = tables.no_reference(_records("colour", ["niqe", "brisque"]), ("niqe", "brisque"))
    assert table.rows[0] == ["JPEG (the paper, its pictures)", "6.36", "53.2"]
    assert table.rows[-3:] == [["compressed", "20.50", "20.5"], ["model", "22.00", "22.0"], ["original", "1.00", "1.0"]]
    video = tables.no_reference(
        _records("video", ["viideo", "niqe", "brisque"], ("x264 CRF 34",)),
        ("viideo", "niqe", "brisque"),
        {"model": 9.5},
    )
    assert video.head[-1] == "fps, 720p"
    assert video.rows[1] == ["Very Fast (the paper, its clips)", "0.388", "4.57", "25.1", "42"]
    assert video.rows[-2] == ["model", "22.000", "22.00", "22.0", "9.5"]


def test_what_was_not_measured_has_no_row():
    records = _records("colour", ["psnr"])
    records = Records([*records, Record("live1", "colour", "JPEG 10", "a", "filter", {"ssim": 0.5})])
    assert [row[0] for row in tables.gains(records, "psnr").rows] == ["compressed", "model"]
