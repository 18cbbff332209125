import dataclasses
import json
import logging
import subprocess
import sys
from pathlib import Path

import av
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from export import tflite
from keras_deartifact import data, engines, image, quantiser
from training import callbacks, prepare_video
from training.configs import CONFIGS, as_dict
from training.train import make_model, open_run, psnr, train

ROOT = Path(__file__).resolve().parents[1]
TESTING = CONFIGS["testing"]


@pytest.fixture(scope="module")
def pictures(photo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(3):
        Image.fromarray(photo(80, 96, index)).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory):
    """The testing configuration trained without interruption: 2 epochs of 2 steps."""
    folder = tmp_path_factory.mktemp("runs") / "straight"
    train(TESTING, [str(pictures)], None, folder)
    return folder


class _Killed(Exception):
    pass


def _kill_after_first_epoch(monkeypatch):
    original = callbacks.Triplets.on_epoch_end

    def die(self, epoch, logs=None):
        original(self, epoch, logs)
        raise _Killed

    monkeypatch.setattr(callbacks.Triplets, "on_epoch_end", die)


# Configurations


def test_configs_are_plain_values_and_hashable_by_name():
    for name, config in CONFIGS.items():
        assert json.loads(json.dumps(as_dict(config))) is not None, name
        assert config.steps % config.steps_per_epoch == 0, name
        assert config.warmup_steps < config.steps, name
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.steps = 1


def test_learning_rate_by_hand():
    config = dataclasses.replace(TESTING, steps=110, warmup_steps=10, learning_rate=1e-2, final_learning_rate=1e-4)
    schedule = make_model(config).optimizer._learning_rate
    assert float(schedule(0)) == 0.0
    assert float(schedule(5)) == pytest.approx(5e-3)
    assert float(schedule(10)) == pytest.approx(1e-2)
    # Half way along the cosine, half way between the two.
    assert float(schedule(60)) == pytest.approx((1e-2 + 1e-4) / 2)
    assert float(schedule(110)) == pytest.approx(1e-4)


def test_psnr_by_hand():
    original = np.zeros((2, 4, 4, 3), np.float32)
    restored = np.stack([np.full((4, 4, 3), 0.1, np.float32), np.full((4, 4, 3), 3.0, np.float32)])
    # 10 log10(1 / 0.01) = 20; beyond the range counts as its end: 10 log10(1 / 1) = 0.
    np.testing.assert_allclose(psnr(original, restored), [20.0, 0.0], atol=1e-4)
    # Equal images are capped, not infinite.
    np.testing.assert_allclose(psnr(original, original), [100.0, 100.0], atol=1e-3)


# A run


def test_run_folder(run):
    assert {path.name for path in run.iterdir()} == {"config.json", "checkpoint.keras", "generator.keras", "logs"}
    assert json.loads((run / "config.json").read_text()) == json.loads(json.dumps(as_dict(TESTING)))


def test_generator_holds_the_averaged_weights(run):
    checkpoint = keras.models.load_model(run / "checkpoint.keras")
    generator = keras.models.load_model(run / "generator.keras")
    assert int(checkpoint.optimizer.iterations) == TESTING.steps
    averages = checkpoint.optimizer._model_variables_moving_average
    assert len(averages) == len(generator.trainable_variables)
    for average, trained, weight in zip(
        averages, checkpoint.trainable_variables, generator.trainable_variables, strict=True
    ):
        np.testing.assert_array_equal(weight, average)
        assert weight.shape == trained.shape
    assert any((a.numpy() != b.numpy()).any() for a, b in zip(averages, checkpoint.trainable_variables, strict=True))
    # The state of the optimizer, three times the weights, is not in it.
    assert not generator.compiled
    sizes = [(run / name).stat().st_size for name in ("generator.keras", "checkpoint.keras")]
    assert sizes[0] < 0.6 * sizes[1]


def test_checkpoint_leaves_the_training_as_it_was(pictures, tmp_path):
    """Averaging for the file must not leak into the run: with a momentum of 0.999 the averages lag far behind."""
    model = make_model(TESTING)
    inputs = np.zeros((1, 16, 16, 3), np.float32), np.zeros((1, 1, 1, 1), np.float32)
    model.fit(tf.data.Dataset.from_tensors((inputs, inputs[0] + 0.5)).repeat(3), verbose=0, shuffle=False)
    for variable in model.trainable_variables:
        variable.assign(variable + 1.0)
    before = model.get_weights()
    checkpoint = callbacks.Checkpoint(tmp_path)
    checkpoint.set_model(model)
    checkpoint.on_epoch_end(0)
    for value, weight in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(value, weight)
    assert not list(tmp_path.glob("partial-*"))


def test_pictures_in_tensorboard(run):
    tags = {}
    for path in (run / "logs").rglob("events.out.tfevents.*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                tags.setdefault((path.parent.name, value.tag), []).append(value)
    (pictures,) = [values for (folder, _), values in tags.items() if folder == "pictures"]
    # Width and height, then one PNG a sample: three crops side by side.
    width, height, *encoded = pictures[0].tensor.string_val
    assert (int(width), int(height)) == (3 * TESTING.stills.crop, TESTING.stills.crop)
    assert len(encoded) == TESTING.still_batch
    assert all(tf.io.decode_png(each).shape == (32, 96, 3) for each in encoded)
    assert len(tags["train", "epoch_loss"]) == 2
    assert len(tags["validation", "epoch_psnr"]) == 2


def test_resumed_run_is_the_uninterrupted_one(run, pictures, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        _kill_after_first_epoch(patch)
        with pytest.raises(_Killed):
            train(TESTING, [str(pictures)], None, tmp_path / "run")
    halfway = keras.models.load_model(tmp_path / "run/checkpoint.keras")
    assert int(halfway.optimizer.iterations) == TESTING.steps_per_epoch
    train(TESTING, [str(pictures)], None, tmp_path / "run")
    for name in ("checkpoint.keras", "generator.keras"):
        straight, resumed = (keras.models.load_model(folder / name) for folder in (run, tmp_path / "run"))
        variables = [
            [*model.variables, *(model.optimizer.variables if model.compiled else [])] for model in (straight, resumed)
        ]
        assert len(variables[0]) > len(straight.weights) or name == "generator.keras"
        for first, second in zip(*variables, strict=True):
            np.testing.assert_array_equal(first, second, err_msg=f"{name}: {first.path}")
    assert any((a != b).any() for a, b in zip(halfway.get_weights(), resumed.get_weights(), strict=True))


def test_finished_run_changes_nothing(run, pictures):
    before = {name: (run / name).read_bytes() for name in ("checkpoint.keras", "generator.keras")}
    train(TESTING, [str(pictures)], None, run)
    assert {name: (run / name).read_bytes() for name in before} == before


def test_another_configuration_is_refused(run, pictures):
    other = dataclasses.replace(TESTING, learning_rate=1e-3)
    with pytest.raises(ValueError, match=r"holds a run with another configuration \(.*config.json\). Choose another"):
        train(other, [str(pictures)], None, run)
    assert json.loads((run / "config.json").read_text())["learning_rate"] == TESTING.learning_rate


def test_fresh_run_makes_its_folder(tmp_path):
    model = open_run(tmp_path / "deep/run", TESTING)
    assert int(model.optimizer.iterations) == 0
    assert (tmp_path / "deep/run/config.json").exists()


@pytest.mark.parametrize("step_log2", [0.0, 4.0, 8.0])
def test_samples_are_weighted_by_their_quantiser_step(step_log2, pictures, monkeypatch):
    from training import train as module

    def source(epoch):
        images = tf.zeros((2, 16, 16, 3))
        return tf.data.Dataset.from_tensors(((images, tf.fill((2, 1, 1, 1), step_log2)), images)).repeat()

    monkeypatch.setattr(data, "still_pairs", lambda *arguments: source)
    training, validation = module.make_datasets(TESTING, [str(pictures)], None, 0)
    # 16 / 2^0 = 16, held at 8; 16 / 2^4 = 1; 16 / 2^8 = 1/16, held at 1/4.
    expected = {0.0: 8.0, 4.0: 1.0, 8.0: 0.25}[step_log2]
    for dataset in (training, validation):
        np.testing.assert_allclose(next(iter(dataset))[2], [expected] * 2)


def test_validation_pictures_are_held_out(pictures, monkeypatch):
    from training import train as module

    given = []
    monkeypatch.setattr(data, "still_pairs", lambda files, *_: given.append(set(files)) or (lambda epoch: epoch))
    monkeypatch.setattr(data, "mix", lambda sources: sources[0])
    monkeypatch.setattr(data, "epochs", lambda *_: tf.data.Dataset.from_tensors(((0, tf.zeros((1, 1, 1, 1))), 0)))
    module.make_datasets(TESTING, [str(pictures)], None, 0)
    training, validation = given
    assert len(validation) == 1
    assert not training & validation
    assert training | validation == set(data.image_files(pictures))


# From photographs and videos to shards to a run to a model that restores


def _write_video(path, frames):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv444p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def sources(photo, tmp_path_factory):
    """A video, a photograph, and files that are too small or broken."""
    folder = tmp_path_factory.mktemp("sources")
    picture = photo(112, 160, 7)
    _write_video(folder / "clip.mkv", np.stack([picture[:, 2 * index : 2 * index + 128] for index in range(6)]))
    Image.fromarray(photo(150, 170, 8)).save(folder / "photograph.png")
    Image.fromarray(photo(60, 170, 9)).save(folder / "narrow.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


@pytest.fixture(scope="module")
def shards(sources, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for seed in (0, 1):
        prepare_video.prepare(
            [str(sources)], folder, clips=4, side=96, frames=4, patches_per_clip=3, patch=64, video_share=0.5, seed=seed
        )
    return folder


def test_prepared_pairs(shards):
    files = data.shard_files(shards)
    assert [Path(file).name for file in files] == ["pairs-000-0000.tfrecord", "pairs-001-0000.tfrecord"]
    assert not list(shards.glob("*.part"))
    for file in files:
        pairs = [data.parse_pair(record) for record in tf.data.TFRecordDataset(file)]
        assert len(pairs) == 4 * 3
        for compressed, quantiser_map, original in pairs:
            assert compressed.shape == original.shape == (64, 64, 3)
            assert quantiser_map.shape == (4, 4, 1)
            assert quantiser.MINIMUM_LOG2_STEP <= quantiser_map.numpy().min()
            assert quantiser_map.numpy().max() <= quantiser.MAXIMUM_LOG2_STEP
            error = np.abs(original.numpy().astype(int) - compressed.numpy()).mean()
            assert 0.1 < error < 40


def test_preparing_is_repeatable(sources, shards, tmp_path):
    prepare_video.prepare(
        [str(sources)], tmp_path, clips=4, side=96, frames=4, patches_per_clip=3, patch=64, video_share=0.5, seed=1
    )
    again, before = (folder / "pairs-001-0000.tfrecord" for folder in (tmp_path, shards))
    assert again.read_bytes() == before.read_bytes()


def test_unusable_photographs_are_named(sources, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("absl"), "propagate", True)
    with caplog.at_level(logging.WARNING, "absl"):
        assert prepare_video.usable_photographs([str(sources)], 80) == [str(sources / "photograph.png")]
    assert f"left out {sources / 'narrow.png'}: 170 x 60 pixels" in caplog.text
    assert f"left out {sources / 'broken.jpg'}" in caplog.text


@pytest.mark.parametrize("sides", [{"side": 100, "patch": 64}, {"side": 96, "patch": 60}, {"side": 96, "patch": 96}])
def test_sides_that_do_not_fit(sides, sources, tmp_path):
    message = f"Expected multiples of 16, patch <= side - 16. Received: side={sides['side']}"
    with pytest.raises(ValueError, match=message):
        prepare_video.prepare([str(sources)], tmp_path, clips=1, **sides)


def test_nothing_to_prepare(tmp_path):
    with pytest.raises(ValueError, match="There is no video or photograph of 144 pixels each way below"):
        prepare_video.prepare([str(tmp_path)], tmp_path / "out", clips=1)


def test_train_on_both_export_and_restore(pictures, shards, photo, tmp_path):
    config = dataclasses.replace(TESTING, video_batch=3, steps=2, learning_rate=1e-2)
    train(config, [str(pictures)], str(shards), tmp_path / "run")
    difference = tflite.export(tmp_path / "run", tmp_path / "model.tflite")
    assert difference <= 1e-5
    assert {path.name for path in tmp_path.iterdir()} == {"run", "model.tflite"}
    # A picture with what a photograph has not: a flat half, an edge, sides that do not divide.
    frame = photo(45, 70)
    frame[:, :30] = (255, 0, 128)
    restored = engines.load(tmp_path / "model.tflite", threads=1)(image.pad_to_multiple(frame[None], 16))
    restored = image.crop(restored, 45, 70)[0]
    assert restored.dtype == np.uint8
    assert np.abs(restored[4:-4, 4:26].astype(int) - frame[4:-4, 4:26]).max() <= 3
    assert np.abs(restored.astype(int) - frame).mean() < 10


def test_one_shard_is_not_enough(shards, pictures, tmp_path):
    (tmp_path / "one.tfrecord").write_bytes(Path(data.shard_files(shards)[0]).read_bytes())
    config = dataclasses.replace(TESTING, video_batch=1)
    with pytest.raises(ValueError, match="Expected at least two shards, one of them to validate on"):
        train(config, [str(pictures)], str(tmp_path), tmp_path / "run")


def test_export_without_a_run(tmp_path):
    with pytest.raises(ValueError, match=r"There is no .*generator.keras: train first"):
        tflite.export(tmp_path, tmp_path / "model.tflite")


def test_export_of_a_model_that_does_nothing_is_refused(tmp_path):
    model = make_model(TESTING)
    # With its gates shut and its corrections at zero it returns what it is given.
    model.gate_correction.bias.assign(np.full(96, -60.0))
    model.save(tmp_path / "generator.keras")
    with pytest.raises(ValueError, match="The generator changes nothing"):
        tflite.export(tmp_path, tmp_path / "model.tflite")
    assert not (tmp_path / "model.tflite").exists()
    assert not list(tmp_path.glob("partial-*"))


def test_export_of_a_wrong_conversion_is_refused(run, tmp_path, monkeypatch):
    other = keras.models.load_model(run / "generator.keras", compile=False)
    other.slope.assign(other.slope * 0.5)
    wrong = tflite.convert(other)
    monkeypatch.setattr(tflite, "convert", lambda generator: wrong)
    with pytest.raises(ValueError, match="The LiteRT model differs from the Keras model by .* > 1e-05"):
        tflite.export(run, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("training.train", ["--config=testing", "--run={out}", "--data={empty}"], "Expected pictures"),
        ("training.prepare_video", ["--data={empty}", "--out={out}"], "There is no video or photograph"),
        ("export.tflite", ["--run={empty}", "--out={out}/model.tflite"], "train first"),
    ],
)
def test_programs_explain_what_is_missing(program, arguments, message, tmp_path):
    (tmp_path / "empty").mkdir()
    arguments = [each.format(out=tmp_path / "out", empty=tmp_path / "empty") for each in arguments]
    result = subprocess.run(
        [sys.executable, "-m", program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert message in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
