import io
import os
import struct
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from export import encoded, saved_model
from keras_deartifact import engines, image, models, quantiser, restore, stills

ROOT = Path(__file__).resolve().parents[1]


# As in the SavedModel: without a graph its loop takes seconds over a thousand segments.
_log2_step = tf.function(encoded.jpeg_log2_step, [tf.TensorSpec((), tf.string)], autograph=False)


def _perturbed(**arguments):
    generator = models.make_generator("shuffle_pico", filters=8, depth=2, coarse_depth=0, **arguments)
    random = np.random.default_rng(0)
    for weight in generator.weights:
        weight.assign(weight.numpy() + random.normal(0, 0.03, weight.shape))
    return generator.fold()


class Made:
    """A generator, its SavedModel, and the restorer of its .keras file."""

    def __init__(self, folder, **arguments):
        self.generator = _perturbed(**arguments)
        self.folder = folder / "1"
        saved_model.write(self.generator, self.folder)
        self.generator.save(folder / "generator.keras")
        self.restorer = engines.load(folder / "generator.keras")
        self.module = tf.saved_model.load(str(self.folder))

    def run(self, signature, **inputs):
        outputs = self.module.signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()})
        (restored,) = outputs.values()
        return restored.numpy()

    def encoded(self, content):
        return self.run("restore_encoded", encoded_bytes=[content])[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Made(tmp_path_factory.mktemp("rgb"))


@pytest.fixture(scope="module")
def made_of_luma(tmp_path_factory):
    return Made(tmp_path_factory.mktemp("luma"), channels=1)


@pytest.fixture(params=["made", "made_of_luma"])
def either(request):
    return request.getfixturevalue(request.param)


def _assert_levels(result, expected):
    """Equal, but for results half-way between two levels."""
    assert result.dtype == np.uint8
    assert result.shape == expected.shape
    difference = np.abs(result.astype(int) - expected)
    assert difference.max() <= 1
    assert difference.mean() < 1e-3


def _frames(photo, count, height, width):
    return np.stack([photo(height, width, seed) for seed in range(count)])


def _file(frame, image_format, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.fromarray(frame).convert(mode).save(buffer, image_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 37, 61), (3, 1, 2), (1, 48, 33)], ids=str)
def test_pictures_of_any_size(either, photo, shape):
    frames = _frames(photo, *shape)
    expected = restore.restore_frames(either.restorer, frames)
    assert np.abs(expected.astype(int) - frames).max() > 0
    _assert_levels(either.run("serving_default", images=frames), expected)


def test_a_map_for_each_picture(either, photo):
    frames = _frames(photo, 2, 37, 61)
    maps = np.random.default_rng(1).uniform(0, 7, (2, 3, 4)).astype(np.float32)
    restored = either.run("restore_with_map", images=frames, quantiser_map=maps)
    _assert_levels(restored, restore.restore_frames(either.restorer, frames, maps))
    assert (restored != either.run("serving_default", images=frames)).any()


def test_a_map_of_another_size(made, photo):
    with pytest.raises(tf.errors.InvalidArgumentError, match="Expected a quantiser map"):
        made.run("restore_with_map", images=_frames(photo, 1, 37, 61), quantiser_map=np.zeros((1, 2, 4), np.float32))


@pytest.mark.parametrize("shape", [(0, 5, 5, 3), (1, 0, 5, 3)])
def test_no_picture(made, shape):
    with pytest.raises(tf.errors.InvalidArgumentError, match="Expected a picture of at least 1x1"):
        made.run("serving_default", images=np.zeros(shape, np.uint8))


def test_the_network_itself(either):
    random = np.random.default_rng(2)
    images = random.random((2, 48, 80, either.generator.channels), np.float32)
    maps = random.uniform(0, 7, (2, 3, 5, 1)).astype(np.float32)
    restored = either.run("network", images=images, quantiser_map=maps)
    expected = np.asarray(either.generator((images, maps)))
    assert expected.min() < 0 or expected.max() > 1
    np.testing.assert_allclose(restored, expected, atol=1e-6)


def test_the_engine_runs_the_network(either, photo):
    images = image.to_float(_frames(photo, 2, 32, 48))
    maps = np.full((2, 2, 3), 3.0, np.float32)
    restored = engines.load(either.folder)(images, maps)
    np.testing.assert_allclose(restored, either.restorer(images, maps), atol=1e-6)


class _LastByte:
    """A network that shows the last 8 bits of every number that it is given."""

    channels = 3

    def __call__(self, inputs, training):
        images, _ = inputs
        return tf.cast(tf.bitcast(images, tf.int32) & 255, tf.float32) / 255.0


def test_every_level_is_the_number_that_the_engines_make_of_it():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    seen = saved_model.make_functions(_LastByte())["serving_default"](tf.constant(levels))["restored"].numpy()
    np.testing.assert_array_equal(seen, image.to_float(levels).view(np.int32) & 255)


@pytest.mark.parametrize("shape", [(1, 256, 256), (2, 64, 80)], ids=str)
def test_to_the_bit_as_the_engine(either, photo, shape):
    frames = _frames(photo, *shape)
    maps = np.random.default_rng(1).uniform(0, 7, (shape[0], shape[1] // 16, shape[2] // 16)).astype(np.float32)
    restored = either.run("restore_with_map", images=frames, quantiser_map=maps)
    assert (restored != frames).any()
    np.testing.assert_array_equal(restored, engines.load(either.folder)(frames, maps))


ENCODINGS = [
    ("JPEG", {"quality": 10}),
    ("JPEG", {"quality": 60, "subsampling": 0, "progressive": True}),
    (
        "JPEG",
        {"quality": 85, "subsampling": 1, "icc_profile": b"\xff\xdb" * 50_000, "exif": b"Exif\0\0" + b"\xff" * 99},
    ),
    ("JPEG", {"mode": "L", "quality": 30}),
    ("PNG", {}),
    ("PNG", {"mode": "L"}),
    ("PNG", {"mode": "1"}),
    ("PNG", {"mode": "P"}),
    ("PNG", {"mode": "LA"}),
    ("PNG", {"mode": "RGBA"}),
    ("PNG", {"transparency": (1, 2, 3)}),
]


@pytest.mark.parametrize(
    ("image_format", "options"), ENCODINGS, ids=[f"{i}-{kind}" for i, (kind, _) in enumerate(ENCODINGS)]
)
def test_files_are_decoded_as_by_pillow(made, photo, tmp_path, image_format, options):
    """Pillow and TensorFlow have libjpeg-turbo both, and its most exact transform: they agree in every bit."""
    content = _file(photo(61, 83), image_format, **options)
    (tmp_path / "file").write_bytes(content)
    still = stills.read(tmp_path / "file")
    pixels, log2_step = encoded.decode(tf.constant(content))
    np.testing.assert_array_equal(pixels, still.pixels)
    expected_step = quantiser.DEFAULT_LOG2_STEP
    if still.jpeg_tables:
        expected_step = quantiser.jpeg_table_log2_step(still.jpeg_tables[0])
    assert float(log2_step) == pytest.approx(expected_step, abs=1e-6)
    maps = quantiser.constant_map(61, 83, expected_step)[None]
    answer = made.encoded(content)
    assert answer.startswith(b"\x89PNG")
    restored = np.asarray(Image.open(io.BytesIO(answer)))
    _assert_levels(restored, restore.restore_frames(made.restorer, still.pixels[None], maps)[0])


def test_files_of_several_sizes_at_once(made, photo):
    contents = [_file(photo(20, 30), "JPEG"), _file(photo(33, 17), "PNG")]
    answers = made.run("restore_encoded", encoded_bytes=contents)
    assert [Image.open(io.BytesIO(answer)).size for answer in answers] == [(30, 20), (17, 33)]
    assert list(answers) == [made.encoded(content) for content in contents]


def _with_tables(content, segment):
    """A JPEG whose quantisation tables are replaced by a segment of our making."""
    start = content.index(b"\xff\xdb")
    end = content.index(b"\xff\xc0")
    return content[:start] + segment + content[end:]


def _tables(*tables):
    """A segment of tables, each `(number, steps)`; steps above 255 make it one of 16 bits."""
    body = b"".join(
        bytes([(16 if max(steps) > 255 else 0) + number])
        + (np.array(steps, ">u2").tobytes() if max(steps) > 255 else bytes(steps))
        for number, steps in tables
    )
    return b"\xff\xdb" + struct.pack(">H", 2 + len(body)) + body


def test_the_table_is_the_one_that_luma_uses(photo):
    content = _file(photo(16, 16), "JPEG")
    assert float(_log2_step(_with_tables(content, _tables((1, [64] * 64), (0, [8] * 64))))) == 3.0
    # Of 16 bits, and fill bytes before the marker.
    assert float(_log2_step(_with_tables(content, b"\xff\xff" + _tables((0, [512] * 64))))) == 8.0
    assert float(_log2_step(_with_tables(content, _tables((1, [300] * 64), (0, [4] * 64))))) == 2.0
    # Only the 4x4 lowest frequencies count. In the file they run in zigzag: 15 is the first row's sixth.
    steps = [2] * 64
    steps[15:] = [255] * 49
    known = np.full((8, 8), 255)
    known.reshape(-1)[[0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4]] = 2
    expected = quantiser.jpeg_table_log2_step(known)
    assert float(_log2_step(_with_tables(content, _tables((0, steps))))) == pytest.approx(expected, abs=1e-6)
    # The last one before the picture counts.
    twice = _tables((0, [64] * 64)) + _tables((0, [16] * 64))
    assert float(_log2_step(_with_tables(content, twice))) == 4.0


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda content: _with_tables(content, b""),
        lambda content: _with_tables(content, _tables((0, [0] * 64))),
        lambda content: _with_tables(content, _tables((3, [8] * 64))),
        lambda content: content[: content.index(b"\xff\xdb") + 40],
        lambda content: content[:3],
        lambda content: b"\xff\xd8" + b"\xff\xe0\x00\x02" * 100_000 + content[2:],
        lambda content: b"\xff\xd8" + b"\xff" * 1_000_000,
        lambda content: b"\xff\xd8\xff\xe0\x00\x00" + content[2:6],
    ],
    ids=["no table", "zeros", "another's", "cut off", "only the start", "segments", "fill bytes", "length 0"],
)
def test_a_jpeg_that_states_nothing(photo, spoilt):
    content = spoilt(_file(photo(16, 16), "JPEG"))
    assert float(_log2_step(content)) == quantiser.DEFAULT_LOG2_STEP


def _png(width, height, bits=8):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def _jpeg_that_claims(photo, height, width):
    content = bytearray(_file(photo(16, 16), "JPEG"))
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def test_bombs_are_refused_before_they_are_decoded(made, photo):
    for content in (
        _png(65535, 65535),
        _png(2**31 - 1, 2**31 - 1),
        _png(encoded.MOST_PIXELS + 1, 1),
        _jpeg_that_claims(photo, 65000, 65000),
        _jpeg_that_claims(photo, 1000, 25001),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match="Expected a picture of at most 25000000 pixels"):
            made.encoded(content)


def _flipped(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda jpeg, png: b"", "Expected the bytes of a JPEG or PNG file"),
        (lambda jpeg, png: b"\x00\x01 something else", "Expected the bytes of a JPEG or PNG file"),
        (lambda jpeg, png: b"GIF89a" + png, "Expected the bytes of a JPEG or PNG file"),
        (lambda jpeg, png: jpeg[:3], "Invalid JPEG"),
        (lambda jpeg, png: jpeg[: len(jpeg) // 2], "Invalid JPEG"),
        (lambda jpeg, png: png[:16], "Expected a whole PNG file"),
        (lambda jpeg, png: png[: len(png) // 2], "Invalid PNG"),
        (lambda jpeg, png: _flipped(png, len(png) // 2), "Invalid PNG"),
        (lambda jpeg, png: _png(0, 5), "Invalid PNG"),
        (lambda jpeg, png: _png(4, 4, bits=16), "Expected a PNG of up to 8 bits"),
    ],
)
def test_other_bytes(made, photo, spoil, message):
    content = spoil(_file(photo(40, 50), "JPEG"), _file(photo(40, 50), "PNG"))
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        made.encoded(content)


def test_cmyk(made, photo):
    with pytest.raises(tf.errors.InvalidArgumentError, match="not of CMYK"):
        made.encoded(_file(photo(16, 16), "JPEG", mode="CMYK"))


def test_one_bad_file_spoils_the_request_and_not_the_next_one(made, photo):
    good = _file(photo(16, 16), "PNG")
    before = made.encoded(good)
    with pytest.raises(tf.errors.InvalidArgumentError):
        made.run("restore_encoded", encoded_bytes=[good, b"bad"])
    assert made.encoded(good) == before


def test_it_runs_without_keras(made, photo, tmp_path):
    """Where it is served there is no Keras, and what the weights were read into is gone."""
    frames = _frames(photo, 2, 37, 61)
    np.save(tmp_path / "frames.npy", frames)
    program = f"""
        import sys
        # TensorFlow imports it where it is there.
        sys.modules["keras"] = None
        import numpy as np, tensorflow as tf
        module = tf.saved_model.load({str(made.folder)!r})
        frames = np.load("frames.npy")
        np.save("restored.npy", module.signatures["serving_default"](images=tf.constant(frames))["restored"])
        assert not any(name.startswith(("keras.", "keras_deartifact")) for name in sys.modules)
    """
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    _assert_levels(np.load(tmp_path / "restored.npy"), made.run("serving_default", images=frames))


def test_the_weights_are_written_once(made):
    size = 4 * sum(int(np.prod(weight.shape)) for weight in made.generator.weights)
    written = sum(file.stat().st_size for file in (made.folder / "variables").iterdir())
    assert size < written < size + 20_000


def test_warm_up_requests(either, tmp_path):
    pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")
    from tensorflow_serving.apis import prediction_log_pb2

    assert saved_model.has_serving_api()
    saved_model.warm_up(tmp_path, "nano", either.generator.channels, (16, 48))
    told = []
    for record in tf.data.TFRecordDataset(str(tmp_path / "assets.extra" / "tf_serving_warmup_requests")):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        assert request.model_spec.name == "nano"
        signature = request.model_spec.signature_name
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        restored = either.run(signature, **inputs)
        side = Image.open(io.BytesIO(restored[0])).width if restored.dtype == object else restored.shape[2]
        told.append((signature, side))
    assert sorted(told) == sorted((name, side) for name in saved_model.SIGNATURES for side in (16, 48))
