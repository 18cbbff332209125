"""Pictures of several files in one call of the network."""

import gc

import pytest
from PIL import Image

from keras_deartifact import restore
from keras_deartifact.archive import networks, resources, units
from keras_deartifact.archive.ledger import File
from keras_deartifact.restore.together import Wanted

SIZES = [(40, 48), (40, 48), (64, 32), (40, 48), (64, 32), (50, 70)]


@pytest.fixture
def sources(tmp_path, photo):
    names = []
    for seed, (height, width) in enumerate(SIZES):
        names.append(tmp_path / f"{seed}.jpg")
        Image.fromarray(photo(height, width, seed)).save(names[-1], quality=20 + 5 * seed)
    return names


def noting(seen, refused=()):
    """A restorer that adds to each picture what its map says, and fails at batches of the sizes that are refused."""

    def restorer(frames, quantiser_map):
        seen.append(frames.shape[:3])
        if len(frames) in refused:
            raise ValueError(f"{len(frames)} are too many")
        return frames + quantiser_map.mean(axis=(1, 2))[:, None, None, None] / 100

    return restorer


def all_steps(restorer, sources, folder, **options):
    folder.mkdir()
    return [restore.image_steps(restorer, each, folder / f"{each.stem}.png", **options) for each in sources]


@pytest.mark.parametrize("refused", [(), (2, 3)])
def test_the_copies_are_those_of_one_after_the_other(tmp_path, sources, refused):
    """Also where the network does not take so many at a time."""
    seen, alone = [], []
    restorer = noting(seen, refused)
    reports = restore.together(restorer, all_steps(restorer, sources, tmp_path / "a"))
    for source, report in zip(sources, reports, strict=True):
        single = restore.restore_image(noting(alone), source, tmp_path / "b.png", overwrite=True)
        assert (report.width, report.height, report.log2_step) == (single.width, single.height, single.log2_step)
        assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a" / f"{source.stem}.png").read_bytes()
    assert sorted(shape[0] for shape in seen) == ([1] * 6 + [2, 3] if refused else [1, 2, 3])
    assert len(alone) == len(sources)


def test_no_more_wait_than_there_is_room_for(tmp_path, sources):
    seen = []
    restorer = noting(seen)
    restore.together(restorer, all_steps(restorer, sources, tmp_path / "a"), 2 * 40 * 48)
    assert sum(shape[0] for shape in seen) == len(sources)
    assert max(shape[0] for shape in seen) == 2
    seen.clear()
    restore.together(restorer, all_steps(restorer, sources, tmp_path / "b"), 0)
    assert [shape[0] for shape in seen] == [1] * 6


def test_what_cannot_be_together_is_not(tmp_path, sources):
    """Other options are another call."""
    seen = []
    restorer = noting(seen)
    steps = all_steps(restorer, sources[:2], tmp_path / "a", strength=1.0)
    restore.together(restorer, steps + all_steps(restorer, sources[:2], tmp_path / "b", strength=0.5))
    assert [shape[0] for shape in seen] == [2, 2]


def test_inks_go_twice(tmp_path, photo):
    seen = []
    restorer = noting(seen)
    for seed in range(2):
        Image.fromarray(photo(32, 32, seed)).convert("CMYK").save(tmp_path / f"{seed}.tif", compression="jpeg")
    sources = [tmp_path / "0.tif", tmp_path / "1.tif"]
    (tmp_path / "a").mkdir()
    steps = [restore.image_steps(restorer, each, tmp_path / "a" / each.name, strength=1.0) for each in sources]
    restore.together(restorer, steps)
    assert [shape[0] for shape in seen] == [2, 2]


def test_an_error_is_raised_where_it_belongs(tmp_path, sources):
    """And nothing is left of what waited for it."""
    (tmp_path / "bad.jpg").write_bytes(sources[0].read_bytes()[:300])
    restorer = noting([])
    steps = all_steps(restorer, [*sources[:2], tmp_path / "bad.jpg"], tmp_path / "a")
    with pytest.raises(ValueError, match=r"whole image file .* Received: path=.*bad\.jpg"):
        restore.together(restorer, steps)
    assert list((tmp_path / "a").iterdir()) == []


def test_nothing_keeps_the_pictures_of_an_error(tmp_path, sources):
    """Not even until Python looks for circles: a picture may be large."""
    restorer = noting([], {1})
    steps = all_steps(restorer, sources[:1], tmp_path / "a")
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(ValueError, match="1 are too many") as raised:
            restore.together(restorer, steps)
        del raised
        assert not any(isinstance(each, Wanted) for each in gc.get_objects())
    finally:
        gc.enable()


@pytest.mark.parametrize("provider", [None, "cuda"])
def test_an_archive_does_so_on_a_gpu(tmp_path, monkeypatch, sources, provider):
    """There is none here: the network is a function, and the job says that it has one."""
    seen = []
    (tmp_path / "bad.jpg").write_bytes(sources[0].read_bytes()[:300])
    (tmp_path / "note.txt").write_text("no picture")
    monkeypatch.setattr(networks, "load", lambda *_: (noting(seen), None))
    options = dict.fromkeys("strength quality codec crf preset drop deinterlace".split())
    options |= {"bits": None, "within_quantisation": False}
    where = networks.Networks("shuffle_pico", "onnx", provider)
    out = tmp_path / "out"
    job = units.Job(str(tmp_path), str(out), where, tuple(options.items()), None, str(tmp_path / "scratch"))
    names = ["0.jpg", "bad.jpg", "1.jpg", "note.txt", "2.jpg", "3.jpg", "4.jpg", "5.jpg"]
    place = units.place(str(tmp_path))
    entries = [place.find(name) for name in names]
    files = tuple(File(entry.name, entry.size, entry.version, "waiting", *[None] * 8) for entry in entries)
    result = units.run(job, units.Task("begin", files))
    assert result.error is None
    assert [each["state"] for each in result.value] == ["restored", "failed", "restored", "skipped"] + ["restored"] * 4
    assert bool(resources.of("onnx", provider).gpus) is (provider is not None)
    assert sorted(shape[0] for shape in seen) == ([1] * 6 if provider is None else [1, 2, 3])
    assert sorted(each.name for each in out.glob("?.jpg")) == [f"{index}.jpg" for index in range(6)]
