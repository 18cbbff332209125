import io
import itertools
import logging

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_deartifact import data, quantiser
from keras_deartifact.data import StillsConfig

# Nothing is left to chance but the crop, its flips and its quarter turns.
PLAIN = {
    "crop": 32,
    "wide_share": 0.0,
    "share_444": 0.0,
    "misaligned_share": 0.0,
    "double_share": 0.0,
    "unknown_share": 0.0,
    "reduced_share": 0.0,
    "smallest_gradient": 0.0,
}


@pytest.fixture(scope="module")
def pictures(photo, tmp_path_factory):
    """Three lossless pictures of several sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    for index, (height, width) in enumerate(((90, 120), (64, 64), (100, 70))):
        Image.fromarray(photo(height, width, index)).save(folder / f"{index}.png")
    return data.image_files(folder)


def _batches(dataset, count):
    return [tf.nest.map_structure(np.asarray, batch) for batch in dataset.take(count)]


def _assert_equal(first, second):
    assert len(first) == len(second) > 0
    for left, right in zip(tf.nest.flatten(first), tf.nest.flatten(second), strict=True):
        np.testing.assert_array_equal(left, right)


def _differ(first, second):
    return any(
        not np.array_equal(left, right)
        for left, right in zip(tf.nest.flatten(first), tf.nest.flatten(second), strict=True)
    )


def _jpeg(picture, quality, subsampling):
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality, subsampling=subsampling)
    with Image.open(stream) as decoded:
        return np.asarray(decoded)


def _bytes(images):
    scaled = np.asarray(images) * 255.0
    np.testing.assert_allclose(scaled, np.rint(scaled), atol=1e-4)
    return np.rint(scaled).astype(np.uint8)


# Stills


def test_image_files(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.PNG", "a.jpg", "deep/c.webp", "notes.txt"):
        (tmp_path / name).touch()
    assert data.image_files(tmp_path) == [str(tmp_path / name) for name in ("a.jpg", "b.PNG", "deep/c.webp")]
    with pytest.raises(ValueError, match=r"Expected pictures \(.bmp, .*\) below .*nowhere, found none"):
        data.image_files(tmp_path / "nowhere")


def test_still_pairs_shapes_and_ranges(pictures):
    source = data.still_pairs(pictures, StillsConfig(crop=48), batch=3, seed=1)
    for (compressed, quantiser_map), original in _batches(source(0), 4):
        assert compressed.shape == original.shape == (3, 48, 48, 3)
        assert quantiser_map.shape == (3, 3, 3, 1)
        assert {compressed.dtype, quantiser_map.dtype, original.dtype} == {np.dtype(np.float32)}
        for images in (compressed, original):
            assert images.min() >= 0
            assert images.max() <= 1
            _bytes(images)
        assert quantiser_map.min() >= quantiser.jpeg_quality_log2_step(95)
        assert quantiser_map.max() <= quantiser.jpeg_quality_log2_step(5)
        # One JPEG has one table.
        assert (quantiser_map == quantiser_map[:, :1, :1]).all()
        assert 0.001 < np.abs(compressed - original).mean() < 0.2


@pytest.mark.parametrize(("quality", "share_444"), [(10, 0.0), (73, 0.0), (10, 1.0), (75, 1.0)])
def test_known_quality_is_what_pillow_gives(quality, share_444, photo, tmp_path):
    # The picture is no larger than a crop with its surroundings, so that it is always seen whole, turned or not.
    whole = photo(48, 48, 5)
    Image.fromarray(whole).save(tmp_path / "whole.png")
    config = StillsConfig(**{**PLAIN, "quality_range": (quality, quality), "share_444": share_444})
    source = data.still_pairs([str(tmp_path / "whole.png")], config, batch=8)
    (compressed, quantiser_map), original = _batches(source(0), 1)[0]
    np.testing.assert_allclose(quantiser_map, quantiser.jpeg_quality_log2_step(quality), atol=1e-6)
    poses = [np.rot90(side, turns) for side in (whole, whole[:, ::-1]) for turns in range(4)]
    seen = set()
    for before, after in zip(_bytes(original), _bytes(compressed), strict=True):
        (pose,) = [index for index, pose in enumerate(poses) if np.array_equal(pose[:32, :32], before)]
        seen.add(pose)
        # What is compressed is 8 pixels larger than what is cut out.
        expected = _jpeg(np.ascontiguousarray(poses[pose][:40, :40]), quality, "4:4:4" if share_444 else "4:2:0")
        np.testing.assert_array_equal(after, expected[:32, :32])
    assert len(seen) > 2


def test_map_follows_the_quality(pictures):
    config = StillsConfig(**{**PLAIN, "quality_range": (20, 22)})
    batches = _batches(data.still_pairs(pictures, config, batch=8)(0), 6)
    values = np.unique([quantiser_map for (_, quantiser_map), _ in batches])
    np.testing.assert_allclose(values, sorted(quantiser.jpeg_quality_log2_step(q) for q in (20, 21, 22)), atol=1e-6)


@pytest.mark.parametrize(("share", "expected"), [(1.0, {5, 10, 15, 20, 25, 30}), (0.0, set(range(5, 31)))])
def test_qualities_stay_in_their_range(share, expected, pictures):
    config = StillsConfig(**{**PLAIN, "crop": 16, "quality_range": (5, 30), "share_444": share})
    batches = _batches(data.still_pairs(pictures, config, batch=64)(0), 8)
    steps = {quality: np.float32(quantiser.jpeg_quality_log2_step(quality)) for quality in range(1, 101)}
    seen = {float(value) for (_, quantiser_map), _ in batches for value in quantiser_map[:, 0, 0, 0]}
    assert seen == {float(steps[quality]) for quality in expected}


def test_unknown_share(pictures):
    config = StillsConfig(**{**PLAIN, "unknown_share": 1.0})
    for (_, quantiser_map), _ in _batches(data.still_pairs(pictures, config, batch=4)(0), 2):
        assert (quantiser_map == quantiser.DEFAULT_LOG2_STEP).all()


def _grid_phase(difference):
    """Which of 8 columns most often begins with a jump."""
    jumps = np.abs(np.diff(difference.astype(np.float64), axis=2)).mean(axis=(0, 1, 3))
    return [np.mean(jumps[(phase - 1) % 8 :: 8]) for phase in range(8)]


def test_misaligned_share(pictures):
    def error_on_the_grid(misaligned_share):
        config = StillsConfig(**{**PLAIN, "crop": 48, "quality_range": (5, 5), "misaligned_share": misaligned_share})
        batches = _batches(data.still_pairs(pictures, config, batch=16)(0), 3)
        phases = _grid_phase(np.concatenate([compressed - original for (compressed, _), original in batches]))
        return phases[0] / np.median(phases[1:])

    # Blocks of 8 columns are flat inside and jump at their edges.
    assert error_on_the_grid(0.0) > 1.3
    assert error_on_the_grid(1.0) < 1.2


def test_double_compression_is_worse(pictures):
    def error(double_share):
        config = StillsConfig(**{**PLAIN, "quality_range": (20, 20), "double_share": double_share})
        batches = _batches(data.still_pairs(pictures, config, batch=16)(0), 2)
        return np.mean([np.mean((compressed - original) ** 2) for (compressed, _), original in batches])

    assert error(1.0) > 1.15 * error(0.0)


def test_clean_share(pictures):
    config = StillsConfig(**{**PLAIN, "quality_range": (5, 20), "clean_share": 0.5, "unknown_share": 0.5})
    clean = []
    for (compressed, quantiser_map), original in _batches(data.still_pairs(pictures, config, batch=16)(0), 8):
        for image, values, before in zip(compressed, quantiser_map, original, strict=True):
            clean.append(np.array_equal(image, before))
            # Known to be clean, whatever share is said to be unknown.
            assert (values == 0.0).all() == clean[-1]
    assert 0.35 < np.mean(clean) < 0.65


def test_clean_samples_are_reduced(tmp_path):
    # Every second pixel is black: reduced by 1.3 or more, none is.
    checks = np.indices((64, 64)).sum(axis=0) % 2
    Image.fromarray(np.repeat((255 * checks).astype(np.uint8)[..., None], 3, axis=-1)).save(tmp_path / "checks.png")
    files = data.image_files(tmp_path)
    (_, _), reduced = _batches(data.still_pairs(files, StillsConfig(**{**PLAIN, "clean_share": 1.0}), 16)(0), 1)[0]
    (_, _), whole = _batches(data.still_pairs(files, StillsConfig(**PLAIN), 16)(0), 1)[0]
    assert (whole.min(axis=(1, 2, 3)) == 0).all()
    assert reduced.min() > 0.1


def test_coarser_of_double(pictures):
    def steps(**changes):
        config = StillsConfig(**{**PLAIN, "quality_range": (10, 90), "double_share": 1.0, **changes})
        return np.concatenate(
            [maps[:, 0, 0, 0] for (_, maps), _ in _batches(data.still_pairs(pictures, config, 32)(0), 4)]
        )

    last, coarser = steps(), steps(coarser_of_double=True)
    assert (coarser >= last).all()
    # The first of two independent choices is the coarser one half of the time.
    assert 0.35 < np.mean(coarser > last) < 0.65
    np.testing.assert_array_equal(steps(double_share=0.0), steps(double_share=0.0, coarser_of_double=True))


@pytest.mark.parametrize("config", [StillsConfig(crop=32), StillsConfig(crop=32, reduced_share=1.0, share_444=0.5)])
def test_samples_depend_on_seed_and_epoch_alone(config, pictures):
    one = _batches(data.still_pairs(pictures, config, 4, seed=7, threads=1)(2), 5)
    many = _batches(data.still_pairs(pictures, config, 4, seed=7, threads=8)(2), 5)
    _assert_equal(one, many)
    assert _differ(one, _batches(data.still_pairs(pictures, config, 4, seed=7)(3), 5))
    assert _differ(one, _batches(data.still_pairs(pictures, config, 4, seed=8)(2), 5))
    assert _differ(one[:1], one[1:2])


def test_epochs_go_on_where_a_run_stopped(pictures):
    source = data.still_pairs(pictures, StillsConfig(crop=16), 2)
    straight = _batches(data.epochs(source, 3), 9)
    _assert_equal(straight[3:], _batches(data.epochs(source, 3, first_epoch=1), 6))
    _assert_equal(straight[3:6], _batches(source(tf.constant(1, tf.int64)), 3))


def test_mix_joins_batches_in_order(pictures):
    first, second = (data.still_pairs(pictures, StillsConfig(crop=16), count, seed) for count, seed in ((2, 1), (3, 2)))
    (joined,) = _batches(data.mix([first, second])(0), 1)
    (left,), (right,) = _batches(first(0), 1), _batches(second(0), 1)
    _assert_equal([joined], [tf.nest.map_structure(lambda *parts: np.concatenate(parts), left, right)])


def test_bad_files_are_left_out_and_named(photo, tmp_path, caplog, monkeypatch):
    good = photo(48, 48)
    Image.fromarray(good).save(tmp_path / "good.png")
    Image.fromarray(good[:40]).save(tmp_path / "small.png")
    Image.fromarray(good[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("no picture")
    contents = (tmp_path / "good.png").read_bytes()
    (tmp_path / "broken.png").write_bytes(contents[: len(contents) // 2])
    files = [*data.image_files(tmp_path), str(tmp_path / "gone.png")]
    # TensorFlow's logger does not hand on to the root, where caplog listens.
    monkeypatch.setattr(tf.get_logger(), "propagate", True)
    with caplog.at_level(logging.WARNING, "tensorflow"):
        source = data.still_pairs(files, StillsConfig(**PLAIN), 2)
    for name in ("small.png", "deep.png", "empty.jpg", "text.png", "broken.png", "gone.png"):
        assert f"left out {tmp_path / name}" in caplog.text
    assert "good.png" not in caplog.text
    assert _batches(source(0), 1)[0][1].shape == (2, 32, 32, 3)


def test_grey_pictures_and_alpha(photo, tmp_path):
    Image.fromarray(photo(48, 48)[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([photo(48, 48), photo(48, 48, 1)[..., 0]])).save(tmp_path / "alpha.png")
    source = data.still_pairs(data.image_files(tmp_path), StillsConfig(**PLAIN), 8)
    original = _batches(source(0), 1)[0][1]
    grey = [bool((image == image[..., :1]).all()) for image in original]
    assert {True, False} == set(grey)


def test_no_usable_picture(photo, tmp_path):
    Image.fromarray(photo(47, 100)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match="Expected 8-bit pictures of 48 pixels or more each way, found none"):
        data.still_pairs(data.image_files(tmp_path), StillsConfig(**PLAIN), 2)


def test_crop_is_no_multiple(pictures):
    with pytest.raises(ValueError, match="crop must be a multiple of 16. Received: crop=40"):
        data.still_pairs(pictures, StillsConfig(crop=40), 2)


def test_flat_pictures_end_in_an_error(tmp_path):
    Image.new("RGB", (64, 64), (90, 120, 200)).save(tmp_path / "flat.png")
    source = data.still_pairs(data.image_files(tmp_path), StillsConfig(crop=16), 2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="The pictures are too flat: 2000 random crops"):
        _batches(source(0), 1)


def test_flat_crops_are_left_out(photo, tmp_path):
    half = photo(64, 128)
    half[:, :64] = 128
    Image.fromarray(half).save(tmp_path / "half.png")
    config = StillsConfig(**{**PLAIN, "crop": 16, "smallest_gradient": 4.0})
    batches = _batches(data.still_pairs(data.image_files(tmp_path), config, 8)(0), 3)
    flat = np.concatenate([original for _, original in batches]).std(axis=(1, 2, 3)) < 1e-3
    # A cut-out can be flat where its surroundings were not, but most of the flat half is gone.
    assert flat.mean() < 0.2


# Videos


def _record(index, side=64):
    """A pair in which every 16x16 block says who it is: record, row, column; and its map says the same."""
    row, column = np.mgrid[:side, :side] // 16
    original = np.stack([np.full_like(row, index), row, column], axis=-1).astype(np.uint8)
    # One pixel of each block tells a shift, the left edge a flip.
    original[::16, ::16, 0] = 200
    blocks = side // 16
    quantiser_map = (index + 10 * np.mgrid[:blocks, :blocks][0] + np.mgrid[:blocks, :blocks][1]).astype(np.float32)
    return original, original + np.uint8(1), quantiser_map


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(3):
        with tf.io.TFRecordWriter(str(folder / f"{shard}.tfrecord")) as writer:
            for index in range(4):
                writer.write(data.serialise_pair(*_record(4 * shard + index)))
    return data.shard_files(folder)


def test_serialise_round_trip():
    rng = np.random.default_rng(0)
    original, compressed = (rng.integers(0, 256, (48, 48, 3), np.uint8) for _ in range(2))
    quantiser_map = rng.random((3, 3))
    parsed = data.parse_pair(tf.constant(data.serialise_pair(original, compressed, quantiser_map)))
    np.testing.assert_array_equal(parsed[0], compressed)
    np.testing.assert_array_equal(parsed[1], quantiser_map[..., None].astype(np.float32))
    np.testing.assert_array_equal(parsed[2], original)
    assert [part.dtype for part in parsed] == [tf.uint8, tf.float32, tf.uint8]


def test_serialise_takes_views():
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 256, (2, 64, 64, 3), np.uint8)
    original, compressed = whole[:, 16:48, :32]
    maps = rng.random((4, 4), np.float32)
    parsed = data.parse_pair(tf.constant(data.serialise_pair(original, compressed, maps[1:3, ::2])))
    np.testing.assert_array_equal(parsed[2], original)
    np.testing.assert_array_equal(parsed[1][..., 0], maps[1:3, ::2])


def test_shard_files(shards, tmp_path):
    assert [path.rsplit("/", 1)[1] for path in shards] == ["0.tfrecord", "1.tfrecord", "2.tfrecord"]
    (tmp_path / "pairs.part").touch()
    with pytest.raises(ValueError, match=r"Expected \*.tfrecord shards in .*found none. Make them: python -m training"):
        data.shard_files(tmp_path)


def test_video_crops_keep_pixels_and_map_together(shards):
    source = data.video_pairs(shards, crop=32, batch=6, seed=3)
    corners, records, mirrored = set(), set(), set()
    for (compressed, quantiser_map), original in _batches(source(0), 12):
        assert compressed.shape == original.shape == (6, 32, 32, 3)
        assert quantiser_map.shape == (6, 2, 2, 1)
        for before, after, values in zip(_bytes(original), _bytes(compressed), quantiser_map[..., 0], strict=True):
            np.testing.assert_array_equal(after, before + np.uint8(1))
            is_mirrored = before[0, 15, 0] == 200
            assert is_mirrored != (before[0, 0, 0] == 200)
            # From the pixels in the middle of each block, where the record, row and column stand.
            record, row, column = before[8::16, 8::16].astype(int).transpose(2, 0, 1)
            np.testing.assert_array_equal(values, record + 10 * row + column)
            np.testing.assert_array_equal(np.diff(column, axis=1), -1 if is_mirrored else 1)
            records.add(int(record[0, 0]))
            corners.add((int(row.min()), int(column.min())))
            mirrored.add(bool(is_mirrored))
    assert records == set(range(12))
    assert corners == set(itertools.product(range(3), repeat=2))
    assert mirrored == {True, False}


@pytest.mark.parametrize(("known_only", "expected"), [(True, {1, 2, 3}), (False, {1, 2, 3, 4.5})])
def test_known_only(known_only, expected, tmp_path):
    pixels = np.zeros((32, 32, 3), np.uint8)
    with tf.io.TFRecordWriter(str(tmp_path / "pairs.tfrecord")) as writer:
        for value in (1, quantiser.DEFAULT_LOG2_STEP, 2, quantiser.DEFAULT_LOG2_STEP, 3):
            quantiser_map = np.full((2, 2), value)
            if value == 3:
                # One block that is known is enough.
                quantiser_map[1] = quantiser_map[0, 1] = quantiser.DEFAULT_LOG2_STEP
            writer.write(data.serialise_pair(pixels, pixels, quantiser_map))
    source = data.video_pairs(data.shard_files(tmp_path), 32, 5, known_only=known_only)
    seen = {float(one_map.min()) for (_, maps), _ in _batches(source(0), 4) for one_map in maps}
    assert seen == expected


def test_video_crop_as_large_as_the_pair(shards):
    (compressed, quantiser_map), _ = _batches(data.video_pairs(shards, crop=64, batch=2)(0), 1)[0]
    assert compressed.shape == (2, 64, 64, 3)
    assert quantiser_map.shape == (2, 4, 4, 1)


def test_video_samples_depend_on_seed_and_epoch_alone(shards):
    one = _batches(data.video_pairs(shards, 16, 4, seed=7, threads=1)(2), 5)
    _assert_equal(one, _batches(data.video_pairs(shards, 16, 4, seed=7, threads=8)(2), 5))
    assert _differ(one, _batches(data.video_pairs(shards, 16, 4, seed=7)(3), 5))
    assert _differ(one, _batches(data.video_pairs(shards, 16, 4, seed=8)(2), 5))


@pytest.mark.parametrize("global_seed", [0, 5])
def test_video_samples_do_not_depend_on_the_global_seed(global_seed, shards):
    tf.random.set_seed(1)
    try:
        before = _batches(data.video_pairs(shards, 16, 4, seed=7)(2), 3)
        tf.random.set_seed(global_seed)
        _assert_equal(before, _batches(data.epochs(data.video_pairs(shards, 16, 4, seed=7), 3, 2), 3))
    finally:
        tf.random.set_seed(1)


def test_video_epochs_go_on_where_a_run_stopped(shards):
    source = data.video_pairs(shards, 32, 3, seed=4)
    straight = _batches(data.epochs(source, 4), 8)
    _assert_equal(straight[4:], _batches(data.epochs(source, 4, first_epoch=1), 4))
