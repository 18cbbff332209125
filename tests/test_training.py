import dataclasses
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import av
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from export import artefacts, card, networks, predictor, tflite
from keras_deartifact import data, engines, image, models, quantiser
from training import callbacks, prepare_video
from training.configs import CONFIGS, EnsembleConfig, PredictorConfig, as_dict
from training.datasets import Sources, find_sources, make_datasets
from training.runs import open_run, take_over
from training.train import Options, make_model, train, train_ensemble
from training.train_predictor import make_predictor_model, train_predictor

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


PICTURES = "compressed, restored, original"


def _load(folder, config=TESTING):
    model = make_model(config)
    callbacks.load_checkpoint(model, folder / callbacks.CHECKPOINT)
    return model


def _tags(folder):
    """(folder of the log, tag) -> values."""
    tags = {}
    for path in (folder / "logs").rglob("events.out.tfevents.*"):
        for record in tf.data.TFRecordDataset(str(path)):
            for value in tf.compat.v1.Event.FromString(record.numpy()).summary.value:
                tags.setdefault((path.parent.name, value.tag), []).append(value)
    return tags


class _Killed(Exception):
    pass


def _kill_after_first_epoch(monkeypatch):
    original = callbacks.Triplets.on_epoch_end

    def die(self, epoch, logs=None):
        original(self, epoch, logs)
        raise _Killed

    monkeypatch.setattr(callbacks.Triplets, "on_epoch_end", die)


# Configurations


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_configurations(name):
    config = CONFIGS[name]
    assert json.loads(json.dumps(as_dict(config))) is not None
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.steps = 1
    configs = config.members().values() if isinstance(config, EnsembleConfig) else [config]
    for each in configs:
        assert each.steps % each.steps_per_epoch == 0
        assert each.warmup_steps < each.steps
        if isinstance(each, PredictorConfig):
            assert each.stills.coarser_of_double
            assert each.stills.unknown_share == 0.0
            continue
        assert each.losses or each.perceptual
        if each.warm_start:
            # What it starts from is the same network, trained directly, or a smaller one as which it can begin.
            start = CONFIGS[each.warm_start]
            if start.generator == each.generator:
                assert start.generator_arguments == each.generator_arguments
            else:
                larger, smaller = (
                    models.make_generator(config.generator, **config.generator_arguments) for config in (each, start)
                )
                take_over(smaller, larger)
            assert start.adversarial is None


def test_members_of_an_ensemble_see_one_quality_each():
    members = CONFIGS["testing_ensemble"].members()
    assert list(members) == [10, 40]
    for quality, member in members.items():
        assert member.stills.quality_range == (quality, quality)
        assert member.stills.wide_share == 0.0
        assert member.generator == TESTING.generator


def test_learning_rate_by_hand():
    config = dataclasses.replace(TESTING, steps=110, warmup_steps=10, learning_rate=1e-2, final_learning_rate=1e-4)
    schedule = make_model(config).optimizer._learning_rate
    assert float(schedule(0)) == 0.0
    assert float(schedule(5)) == pytest.approx(5e-3)
    assert float(schedule(10)) == pytest.approx(1e-2)
    # Half way along the cosine, half way between the two.
    assert float(schedule(60)) == pytest.approx((1e-2 + 1e-4) / 2)
    assert float(schedule(110)) == pytest.approx(1e-4)


# A run


def test_run_folder(run):
    assert {path.name for path in run.iterdir()} == {
        "config.json",
        "checkpoint.weights.h5",
        "generator.keras",
        "progress.json",
        "logs",
    }
    record = json.loads((run / "config.json").read_text())
    assert record["config"] == json.loads(json.dumps(as_dict(TESTING)))
    assert record["start"] is None
    assert record["backbone"] is None
    assert (record["data"]["pictures"], record["data"]["shards"]) == (3, 0)


def test_progress_has_the_names_of_the_logs(run):
    progress = json.loads((run / "progress.json").read_text())
    assert progress.pop("step") == TESTING.steps
    logged = {
        (folder, tag.removeprefix("epoch_"))
        for folder, tag in _tags(run)
        if tag not in ("epoch_learning_rate", PICTURES)
    }
    names = {(("validation", name[4:]) if name.startswith("val_") else ("train", name)) for name in progress}
    assert names == {each for each in logged if not each[1].startswith("evaluation_")}
    assert {"psnr", "val_psnr", "val_ssim", "generator_loss"} <= set(progress)


def test_generator_holds_the_averaged_weights(run):
    model = _load(run)
    generator = keras.models.load_model(run / "generator.keras")
    for average, trained, weight in zip(
        model.averaged.weights, model.generator.weights, generator.weights, strict=True
    ):
        np.testing.assert_array_equal(weight, average)
        assert weight.shape == trained.shape
    assert any((a.numpy() != b.numpy()).any() for a, b in zip(generator.weights, model.generator.weights, strict=True))
    assert not generator.compiled
    assert len(generator.trainable_variables) == len(generator.weights)


def test_pictures_in_tensorboard(run):
    tags = _tags(run)
    # Width and height, then one PNG a sample: three crops side by side.
    width, height, *encoded = tags["pictures", PICTURES][0].tensor.string_val
    assert (int(width), int(height)) == (3 * TESTING.stills.crop, TESTING.stills.crop)
    assert len(encoded) == TESTING.still_batch
    assert all(tf.io.decode_png(each).shape == (32, 96, 3) for each in encoded)
    assert len(tags["train", "epoch_generator_loss"]) == 2
    assert len(tags["validation", "epoch_psnr"]) == 2
    assert not [tag for _, tag in tags if "histogram" in tag]


def _assert_same_state(first, second, config=TESTING):
    """Networks, both optimizers, running mean and step."""
    one, two = (_load(folder, config) for folder in (first, second))
    for model in (one, two):
        assert int(model.step) == config.steps
    variables = [
        [
            *model.weights,
            *model.optimizer.variables,
            *(model.discriminator_optimizer.variables if model.discriminator_optimizer else []),
        ]
        for model in (one, two)
    ]
    assert len(variables[0]) > 2 * len(one.generator.weights)
    for a, b in zip(*variables, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)


def test_resumed_run_is_the_uninterrupted_one(run, pictures, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        _kill_after_first_epoch(patch)
        with pytest.raises(_Killed):
            train(TESTING, [str(pictures)], None, tmp_path / "run")
    halfway = _load(tmp_path / "run")
    assert int(halfway.step) == TESTING.steps_per_epoch
    train(TESTING, [str(pictures)], None, tmp_path / "run")
    _assert_same_state(run, tmp_path / "run")
    resumed = _load(tmp_path / "run")
    assert any((a != b).any() for a, b in zip(halfway.get_weights(), resumed.get_weights(), strict=True))


_KILLED = """
    import os, signal, sys
    import tensorflow as tf
    tf.config.experimental.enable_op_determinism()
    from training import callbacks, train
    from training.configs import CONFIGS

    if sys.argv[3] != "0":
        # The process is gone in the middle of the third epoch's write: the temporary file is there, half of it.
        calls = []
        def replace(path, write, replace=callbacks.replace_file):
            calls.append(path.name)
            if calls.count(path.name) == 2 and path.name == callbacks.CHECKPOINT:
                path.with_name(f"partial-{path.name}").write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
            replace(path, write)
        callbacks.replace_file = replace
    import dataclasses
    from pathlib import Path
    config = dataclasses.replace(CONFIGS["testing_gan"], seed=int(sys.argv[4]), steps=6)
    train.train(config, [sys.argv[1]], None, Path(sys.argv[2]), train.Options(Path(sys.argv[5])))
"""


@pytest.mark.parametrize("seed", [1, pytest.param(7, marks=pytest.mark.slow)])
def test_gan_killed_by_sigkill_goes_on(run, pictures, seed, tmp_path):
    def start(folder, kill):
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(_KILLED), pictures, folder, str(int(kill)), str(seed), run],
            cwd=ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
            capture_output=True,
            text=True,
            check=False,
        )

    results = [start(tmp_path / "straight", False), start(tmp_path / "killed", True), start(tmp_path / "killed", False)]
    assert [result.returncode for result in results] == [0, -9, 0], results[-1].stderr[-3000:]
    config = dataclasses.replace(CONFIGS["testing_gan"], seed=seed, steps=6)
    _assert_same_state(tmp_path / "straight", tmp_path / "killed", config)
    record = json.loads((tmp_path / "killed/config.json").read_text())
    assert record["start"] == {"file": "generator.keras", "sha256": engines.digest(run / "generator.keras")}
    assert not list((tmp_path / "killed").glob("partial-*"))


def test_finished_run_changes_nothing(run, pictures):
    names = ("checkpoint.weights.h5", "generator.keras", "progress.json")
    before = {name: (run / name).read_bytes() for name in names}
    train(TESTING, [str(pictures)], None, run)
    assert {name: (run / name).read_bytes() for name in before} == before


def test_another_configuration_is_refused(run, pictures):
    other = dataclasses.replace(TESTING, learning_rate=1e-3)
    with pytest.raises(ValueError, match=r"holds a run with another config \(.*config.json\). Choose another"):
        train(other, [str(pictures)], None, run)
    assert json.loads((run / "config.json").read_text())["config"]["learning_rate"] == TESTING.learning_rate


def test_other_pictures_are_refused(run, pictures, photo, tmp_path):
    more = tmp_path / "more"
    shutil.copytree(pictures, more)
    Image.fromarray(photo(80, 96, 9)).save(more / "another.png")
    with pytest.raises(ValueError, match=r"holds a run with another data \("):
        train(TESTING, [str(more)], None, run)


def test_fresh_run_makes_its_folder(tmp_path):
    assert open_run(tmp_path / "deep/run", {"config": 1}) is None
    assert json.loads((tmp_path / "deep/run/config.json").read_text()) == {"config": 1}
    (tmp_path / "deep/run" / callbacks.CHECKPOINT).touch()
    assert open_run(tmp_path / "deep/run", {"config": 1}) == tmp_path / "deep/run" / callbacks.CHECKPOINT


# What it starts from


def test_gan_trains_its_start_first(pictures, tmp_path):
    config = dataclasses.replace(CONFIGS["testing_gan"], steps=2)
    train(config, [str(pictures)], None, tmp_path)
    assert json.loads((tmp_path / "direct/progress.json").read_text())["step"] == TESTING.steps
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["start"]["sha256"] == engines.digest(tmp_path / "direct/generator.keras")
    # It began with those weights: its one epoch moved them less than they were moved before.
    direct = keras.models.load_model(tmp_path / "direct/generator.keras")
    fresh = make_model(TESTING).generator
    after = _load(tmp_path, config).generator
    distances = [
        np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(after.get_weights(), other.get_weights(), strict=True)))
        for other in (direct, fresh)
    ]
    assert 0 < distances[0] < distances[1]
    progress = json.loads((tmp_path / "progress.json").read_text())
    assert {"discriminator_loss", "discriminator_real", "discriminator_fake", "val_adversarial_loss"} <= set(progress)


def test_start_of_another_architecture_is_refused(pictures, tmp_path):
    models.make_generator("shuffle_pico", filters=8, depth=3).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="Expected a generator that is no larger than .*Rec"):
        train(TESTING, [str(pictures)], None, tmp_path / "run", Options(tmp_path / "other.keras"))
    models.make_generator("arcnn").save(tmp_path / "arcnn.keras")
    with pytest.raises(ValueError, match="of the same architecture, Shuffle.* Received: ARCNN"):
        train(TESTING, [str(pictures)], None, tmp_path / "run2", Options(tmp_path / "arcnn.keras"))


def test_start_that_is_not_there(pictures, tmp_path):
    with pytest.raises(ValueError, match="There is no network to start from: .*generator.keras"):
        train(TESTING, [str(pictures)], None, tmp_path / "run", Options(tmp_path))


@pytest.mark.parametrize("contents", ["damaged", "another"])
def test_checkpoint_that_does_not_fit_is_refused_and_kept(contents, run, pictures, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    checkpoint = tmp_path / "run" / callbacks.CHECKPOINT
    if contents == "damaged":
        checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    else:
        make_model(dataclasses.replace(TESTING, generator_arguments={"filters": 12, "depth": 2})).save_weights(
            checkpoint
        )
    before = checkpoint.read_bytes()
    with pytest.raises(
        ValueError, match=r"checkpoint.weights.h5 is no state of this configuration's networks: .* Choose"
    ):
        train(TESTING, [str(pictures)], None, tmp_path / "run")
    assert checkpoint.read_bytes() == before


def test_not_a_number_keeps_the_last_good_state(run, pictures, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    config = dataclasses.replace(TESTING, steps=6)
    record = json.loads(before["config.json"])
    record["config"]["steps"] = 6
    (tmp_path / "run/config.json").write_text(json.dumps(record, indent=2))
    model = _load(tmp_path / "run")
    model.generator.weights[0].assign(model.generator.weights[0] * np.nan)
    callback = callbacks.StopOnNaN(tmp_path / "run")
    callback.set_model(model)
    with pytest.raises(
        FloatingPointError, match=r"Not a number: the weights, at step 4; the last good state is kept in"
    ):
        callback.on_epoch_end(0, {"psnr": 20.0})
    with pytest.raises(
        FloatingPointError, match=r"Not a number: generator_loss, at step 4; .*Try a lower learning rate"
    ):
        callback.on_train_batch_end(0, {"generator_loss": np.nan})
    # In a run: a learning rate that cannot be meant.
    wild = dataclasses.replace(config, learning_rate=1e30, final_learning_rate=1e30, gradient_clip=1e30)
    with pytest.raises(FloatingPointError, match="no state was kept yet"):
        train(wild, [str(pictures)], None, tmp_path / "wild")
    assert not (tmp_path / "wild" / callbacks.CHECKPOINT).exists()
    assert {name: (tmp_path / "run" / name).read_bytes() for name in before if name != "config.json"} == {
        name: value for name, value in before.items() if name != "config.json"
    }


# Variants


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_and_exports_float32(precision, pictures, tmp_path):
    config = dataclasses.replace(TESTING, precision=precision, steps=2)
    train(config, [str(pictures)], None, tmp_path)
    generator = keras.models.load_model(tmp_path / "generator.keras")
    assert generator.dtype_policy.name == "float32"
    assert all(np.isfinite(weight).all() for weight in generator.get_weights())
    assert json.loads((tmp_path / "progress.json").read_text())["step"] == 2


def test_luma_only_run(pictures, tmp_path):
    config = dataclasses.replace(
        CONFIGS["testing_gan"],
        generator_arguments={**TESTING.generator_arguments, "channels": 1},
        steps=2,
        warm_start=None,
    )
    training, _ = make_datasets(config, find_sources(config, [str(pictures)], None), 0)
    (compressed, _), original, _ = next(iter(training))
    assert compressed.shape == original.shape == (2, 32, 32, 1)
    train(config, [str(pictures)], None, tmp_path)
    assert keras.models.load_model(tmp_path / "generator.keras").channels == 1


def test_ensemble(pictures, tmp_path):
    train_ensemble(CONFIGS["testing_ensemble"], [str(pictures)], None, tmp_path)
    members = json.loads((tmp_path / "ensemble.json").read_text())
    assert [member["model"] for member in members] == ["quality-10/generator.keras", "quality-40/generator.keras"]
    assert [member["log2_step"] for member in members] == [quantiser.jpeg_quality_log2_step(q) for q in (10, 40)]
    assert all((tmp_path / member["model"]).exists() for member in members)


# The quality predictor


@pytest.fixture(scope="module")
def predictor_run(pictures, tmp_path_factory):
    """The testing configuration of the predictor without interruption: 2 epochs of 2 steps."""
    folder = tmp_path_factory.mktemp("runs") / "predictor"
    train_predictor(CONFIGS["testing_predictor"], [str(pictures)], None, folder)
    return folder


def _load_predictor(folder):
    model = make_predictor_model(CONFIGS["testing_predictor"])
    callbacks.load_checkpoint(model, folder / callbacks.CHECKPOINT)
    return model


def test_predictor_run(predictor_run):
    names = {"checkpoint.weights.h5", "config.json", "logs", "predictor.keras", "progress.json"}
    assert {path.name for path in predictor_run.iterdir()} == names
    progress = json.loads((predictor_run / "progress.json").read_text())
    assert progress["step"] == 4
    assert {"error", "predictor_loss", "within_half", "val_error", "val_within_half"} <= set(progress)
    model = _load_predictor(predictor_run)
    predictor = keras.models.load_model(predictor_run / "predictor.keras")
    for saved, averaged, trained in zip(
        predictor.get_weights(), model.averaged.get_weights(), model.predictor.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(saved, averaged)
        assert saved.shape == trained.shape
    assert any(
        not np.array_equal(averaged, trained)
        for averaged, trained in zip(model.averaged.get_weights(), model.predictor.get_weights(), strict=True)
    )


def test_predictor_starts_from_another(predictor_run, pictures, tmp_path):
    config = dataclasses.replace(
        CONFIGS["testing_predictor"], learning_rate=1e-12, final_learning_rate=1e-12, weight_decay=0.0
    )
    train_predictor(config, [str(pictures)], None, tmp_path, predictor_run)
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["start"]["file"] == "predictor.keras"
    found, wanted = (keras.models.load_model(run / "predictor.keras") for run in (tmp_path, predictor_run))
    for weight, before in zip(found.get_weights(), wanted.get_weights(), strict=True):
        np.testing.assert_allclose(weight, before, atol=1e-9)


def test_predictor_run_goes_on(predictor_run, pictures, tmp_path, monkeypatch):
    original = callbacks.Checkpoint.on_epoch_end
    config = CONFIGS["testing_predictor"]

    def stop(self, epoch, logs=None):
        original(self, epoch, logs)
        raise _Killed

    monkeypatch.setattr(callbacks.Checkpoint, "on_epoch_end", stop)
    with pytest.raises(_Killed):
        train_predictor(config, [str(pictures)], None, tmp_path)
    monkeypatch.undo()
    assert int(_load_predictor(tmp_path).step.numpy()) == 2
    train_predictor(config, [str(pictures)], None, tmp_path)
    for resumed, straight in zip(
        _load_predictor(tmp_path).get_weights(), _load_predictor(predictor_run).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(resumed, straight)


def test_predictor_is_exported_with_its_card(predictor_run, tmp_path):
    file = tmp_path / "predictor.tflite"
    assert predictor.export(predictor_run, file) <= predictor.LARGEST_DIFFERENCE
    assert engines.load_predictor(file)(np.zeros((2, 40, 64, 3), np.float32)).shape == (2, 3, 4)
    figures = tmp_path / "figures.json"
    figures.write_text(json.dumps({"sha256": engines.digest(file)}))
    made = card.make_card(predictor_run, file, figures, "what it is", "what it saw")
    assert made["steps"] == 4
    assert 0 < made["parameters"] < 96_111
    assert 0 < made["multiply_accumulates_720p"] < 97_020_116


# Data


@pytest.mark.parametrize("step_log2", [0.0, 4.0, 8.0])
def test_samples_are_weighted_by_their_quantiser_step(step_log2, pictures, monkeypatch):
    def source(epoch):
        images = tf.zeros((2, 16, 16, 3))
        return tf.data.Dataset.from_tensors(((images, tf.fill((2, 1, 1, 1), step_log2)), images)).repeat()

    monkeypatch.setattr(data, "still_pairs", lambda *arguments: source)
    training, validation = make_datasets(TESTING, find_sources(TESTING, [str(pictures)], None), 0)
    # 16 / 2^0 = 16, held at 8; 16 / 2^4 = 1; 16 / 2^8 = 1/16, held at 1/4.
    expected = {0.0: 8.0, 4.0: 1.0, 8.0: 0.25}[step_log2]
    for dataset in (training, validation):
        np.testing.assert_allclose(next(iter(dataset))[2], [expected] * 2)


def test_validation_pictures_are_held_out(pictures):
    sources = find_sources(TESTING, [str(pictures)], None)
    assert len(sources.validation) == 1
    assert not set(sources.training) & set(sources.validation)
    assert set(sources.training) | set(sources.validation) == set(data.image_files(pictures))
    assert sources.record() != Sources(sources.validation, sources.training, [], []).record()


@pytest.mark.parametrize("validation_images", [0, 3])
def test_too_few_pictures_to_validate_on(validation_images, pictures):
    config = dataclasses.replace(TESTING, validation_images=validation_images)
    with pytest.raises(ValueError, match=rf"Expected more pictures than the {validation_images} .* Received: 3 in"):
        find_sources(config, [str(pictures)], None)


def test_corrupt_and_small_pictures_are_counted_and_named(pictures, photo, tmp_path, caplog, monkeypatch):
    shutil.copytree(pictures, tmp_path / "mixed")
    Image.fromarray(photo(20, 96)).save(tmp_path / "mixed/small.png")
    (tmp_path / "mixed/broken.jpg").write_bytes(b"\xff\xd8\xff")
    monkeypatch.setattr(tf.get_logger(), "propagate", True)
    with caplog.at_level(logging.WARNING, "tensorflow"):
        train(dataclasses.replace(TESTING, steps=2), [str(tmp_path / "mixed")], None, tmp_path / "run")
    assert f"left out {tmp_path}/mixed/small.png" in caplog.text
    assert f"left out {tmp_path}/mixed/broken.jpg" in caplog.text
    assert "left out 2 of " in caplog.text
    assert (tmp_path / "run/generator.keras").exists()


def test_pairs_are_needed_where_the_configuration_has_video(pictures):
    with pytest.raises(
        ValueError, match="Expected --video: a folder of pairs made by python -m training.prepare_video"
    ):
        find_sources(dataclasses.replace(TESTING, video_batch=1), [str(pictures)], None)


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


SMALL_PAIRS = prepare_video.Preparation(side=96, frames=4, patches=3, patch=64, video_share=0.5)


@pytest.fixture(scope="module")
def shards(sources, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for seed in (0, 1):
        prepare_video.prepare([str(sources)], folder, 4, SMALL_PAIRS, seed)
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
    prepare_video.prepare([str(sources)], tmp_path, 4, SMALL_PAIRS, 1)
    again, before = (folder / "pairs-001-0000.tfrecord" for folder in (tmp_path, shards))
    assert again.read_bytes() == before.read_bytes()


def test_unusable_photographs_are_named(sources, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("absl"), "propagate", True)
    with caplog.at_level(logging.WARNING, "absl"):
        assert prepare_video.usable_photographs([str(sources)], 80) == [str(sources / "photograph.png")]
    assert f"left out {sources / 'narrow.png'}: 170 x 60 pixels" in caplog.text
    assert f"left out {sources / 'broken.jpg'}" in caplog.text


@pytest.mark.parametrize(
    ("purpose", "side", "patch", "least"),
    [
        ("restoring", 100, 64, 80),
        ("restoring", 96, 60, 76),
        ("restoring", 96, 96, 112),
        # What is not encoded is reduced by 1.4.
        ("predicting", 208, 160, 224),
    ],
)
def test_sides_that_do_not_fit(purpose, side, patch, least, sources, tmp_path):
    preparation = dataclasses.replace(prepare_video.PREPARATIONS[purpose], side=side, patch=patch)
    message = f"Expected multiples of 16, side >= {least}. Received: side={side}, patch={patch}"
    with pytest.raises(ValueError, match=message):
        prepare_video.prepare([str(sources)], tmp_path, 1, preparation)


def test_pairs_for_predicting(sources, photo, tmp_path):
    """Clips that were not encoded are among them, smaller than the others, and every map says what is known."""
    preparation = dataclasses.replace(
        prepare_video.PREPARATIONS["predicting"],
        side=96,
        frames=3,
        patch=64,
        config=dataclasses.replace(prepare_video.PREPARATIONS["predicting"].config, clean_share=0.4),
    )
    prepare_video.prepare([str(sources)], tmp_path, 10, preparation)
    (file,) = data.shard_files(tmp_path)
    pairs = [data.parse_pair(record) for record in tf.data.TFRecordDataset(file)]
    assert len(pairs) == 10 * 4
    clean = [np.array_equal(compressed, original) for compressed, _, original in pairs]
    assert 4 <= sum(clean) <= 36
    for (_, quantiser_map, _), is_clean in zip(pairs, clean, strict=True):
        assert is_clean == (quantiser_map.numpy().max() == 0.0)
        assert not (quantiser_map.numpy() == quantiser.DEFAULT_LOG2_STEP).all()


def test_nothing_to_prepare(tmp_path):
    with pytest.raises(ValueError, match="There is no video or photograph of 144 pixels each way below"):
        prepare_video.prepare([str(tmp_path)], tmp_path / "out", clips=1)


def test_train_on_both_export_and_restore(pictures, shards, photo, tmp_path):
    config = dataclasses.replace(TESTING, video_batch=3, steps=2, learning_rate=1e-2)
    train(config, [str(pictures)], str(shards), tmp_path / "run")
    artefacts.export(tmp_path / "run", tmp_path / "artefact", ["tflite"], pictures, precisions=["float32"])
    assert {path.name for path in tmp_path.iterdir()} == {"run", "artefact"}
    # A picture with what a photograph has not: a flat half, an edge, sides that do not divide.
    frame = photo(45, 70)
    frame[:, :30] = (255, 0, 128)
    restored = engines.load(tmp_path / "artefact" / "tflite" / "model.float32.tflite", threads=1)(
        image.pad_to_multiple(frame[None], 16)
    )
    restored = image.crop(restored, 45, 70)[0]
    assert restored.dtype == np.uint8
    assert np.abs(restored[4:-4, 4:26].astype(int) - frame[4:-4, 4:26]).max() <= 8
    assert np.abs(restored.astype(int) - frame).mean() < 10


def test_one_shard_is_not_enough(shards, pictures, tmp_path):
    (tmp_path / "one.tfrecord").write_bytes(Path(data.shard_files(shards)[0]).read_bytes())
    config = dataclasses.replace(TESTING, video_batch=1)
    with pytest.raises(ValueError, match="Expected at least two shards, one of them to validate on"):
        train(config, [str(pictures)], str(tmp_path), tmp_path / "run")


def test_a_generator_is_no_predictor(run, tmp_path):
    with pytest.raises(ValueError, match="holds a generator, not a quality predictor: python -m export"):
        predictor.export(run, tmp_path / "predictor.tflite")


def test_export_of_a_predictor_that_says_nothing_is_refused(tmp_path):
    says_nothing = models.QualityPredictor()
    says_nothing.build((None, None, None, 3))
    for weight in says_nothing.weights:
        weight.assign(np.zeros(weight.shape))
    says_nothing.save(tmp_path / "predictor.keras")
    with pytest.raises(ValueError, match="says the same of everything"):
        predictor.export(tmp_path, tmp_path / "out.tflite")
    assert {path.name for path in tmp_path.iterdir()} == {"predictor.keras"}


def test_export_of_a_wrong_conversion_is_refused(predictor_run, tmp_path, monkeypatch):
    other, _ = networks.load_network(predictor_run)
    other.set_weights([0.5 * weight for weight in other.get_weights()])
    wrong = tflite.convert(other)
    monkeypatch.setattr(tflite, "convert", lambda network: wrong)
    with pytest.raises(ValueError, match="The LiteRT model differs from the Keras model by .* > 0.0001"):
        predictor.export(predictor_run, tmp_path / "predictor.tflite")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("training.train", ["--config=testing", "--run={out}", "--data={empty}"], "Expected pictures"),
        ("training.prepare_video", ["--data={empty}", "--out={out}"], "There is no video or photograph"),
        ("export.predictor", ["--run={empty}", "--out={out}/model.tflite"], "train first"),
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


_WORKER = """
    import hashlib, json, os, sys
    from pathlib import Path
    import tensorflow as tf
    from training import distribution, train
    from training.configs import CONFIGS

    index, ports, pictures, run = int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3], Path(sys.argv[4])
    if len(ports) > 1:
        cluster = {"worker": [f"localhost:{port}" for port in ports]}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
    fit = train.DeartifactGAN.fit
    def fit_and_tell(self, *arguments, **settings):
        history = fit(self, *arguments, **settings)
        weights = b"".join(weight.tobytes() for weight in self.get_weights())
        print("weights", hashlib.sha256(weights).hexdigest(), flush=True)
        return history
    train.DeartifactGAN.fit = fit_and_tell
    devices = None
    if run.name == "mirrored":
        devices = ["CPU:0", "CPU:1"]
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
    train.train(CONFIGS["testing_gan"], [pictures], None, run, strategy=distribution.make_strategy(devices))
"""


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("localhost", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.mark.slow
def test_two_worker_processes_end_with_identical_weights(pictures, tmp_path):
    """A warm start and the run after it, discriminator included; and, within rounding, those of one process.

    So do two devices of one process.
    """

    def start(ports, run):
        command = [sys.executable, "-c", textwrap.dedent(_WORKER)]
        rest = [",".join(map(str, ports)), str(pictures), str(tmp_path / run)]
        processes = [
            subprocess.Popen(
                [*command, str(index), *rest],
                cwd=ROOT,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for index in range(len(ports))
        ]
        results = [process.communicate(timeout=600) for process in processes]
        assert [process.returncode for process in processes] == [0] * len(ports), results[0][1][-3000:]
        return [[line for line in out.splitlines() if line.startswith("weights")] for out, _ in results]

    first, second = start(_free_ports(2), "two")
    assert len(first) == 2
    assert first == second
    for run in ("one", "mirrored"):
        start([0], run)
    one, *others = (_load(tmp_path / run, CONFIGS["testing_gan"]) for run in ("one", "two", "mirrored"))
    for other in others:
        assert int(other.step.numpy()) == CONFIGS["testing_gan"].steps
        for a, b in zip(one.weights, other.weights, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5, err_msg=a.path)
