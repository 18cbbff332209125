import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deartifact.models import QualityPredictor
from keras_deartifact.models.quantisation_marks import BINS
from keras_deartifact.predictor_trainer import PredictorTrainer, predictor_loss

SMALL = {"local_units": 5, "filters": 3, "comb_units": 6, "picture_units": 7, "spectrum_filters": 4, "heads": 2}


def _sure_of(step):
    """Scores with all of their weight on one bin."""
    return np.where(np.isclose(BINS, step), 1000.0, 0.0).astype(np.float32)


@pytest.fixture
def model():
    predictor = QualityPredictor(**SMALL)
    predictor.build((None, None, None, 3))
    trainer = PredictorTrainer(predictor)
    trainer.compile(keras.optimizers.Adam(1e-2, epsilon=1e-12))
    return trainer


@pytest.fixture
def batch(photo):
    images = np.stack([photo(32, 48, seed) for seed in range(2)]).astype(np.float32) / 255
    return images, np.full((2, 2, 3, 1), 3.1, np.float32)


def test_loss_by_hand():
    # One picture of two blocks. Told 3 and 2 where 2.5 and 2.5 are known: the picture's mean is right.
    scores = np.stack([_sure_of(3.0), _sure_of(2.0)])[None, None]
    known = np.full((1, 1, 2, 1), 2.5, np.float32)
    # Each block is 0.5 off, 0.375 by Huber, and sure of a bin that is not the known one: entropy 1000.
    assert float(predictor_loss(known, scores)[0]) == pytest.approx(0.5 * 0.375 + 0.3 * 1000.0)
    # All right, and sure: nothing is left.
    right = np.stack([_sure_of(2.5), _sure_of(2.5)])[None, None]
    assert float(predictor_loss(known, right)[0]) == pytest.approx(0.0, abs=1e-6)
    # 0.1 above a bin the entropy is shared out, 60 % to it and 40 % to the next, and the error is 0.1 everywhere.
    above = float(predictor_loss(known + np.float32(0.1), right)[0])
    assert above == pytest.approx(0.5 * 0.1**2 / 0.5 + 0.3 * 0.4 * 1000.0 + 0.1**2 / 0.3, rel=1e-4)


def test_one_value_for_each_picture():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3, 2, 4, len(BINS))).astype(np.float32)
    known = rng.uniform(0, 7, (3, 2, 4, 1)).astype(np.float32)
    together = np.asarray(predictor_loss(known, scores))
    assert together.shape == (3,)
    for index in range(3):
        alone = predictor_loss(known[index : index + 1], scores[index : index + 1])
        np.testing.assert_allclose(alone[0], together[index], rtol=1e-5)


def test_a_step_by_hand(model, batch):
    """The first step of Adam moves every weight by the learning rate against the sign of its gradient."""
    images, known = batch
    variables = [variable.value for variable in model.predictor.trainable_variables]
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(predictor_loss(known, model.predictor.scores(*model.predictor.marks(images))))
    gradients = tape.gradient(loss, variables)
    before = [np.asarray(variable) for variable in variables]
    logged = model.train_on_batch(images, known, return_dict=True)
    assert logged["predictor_loss"] == pytest.approx(float(loss), rel=1e-5)
    moved = 0
    for start, gradient, variable in zip(before, gradients, model.predictor.trainable_variables, strict=True):
        large = np.abs(gradient) > 1e-4
        moved += large.sum()
        np.testing.assert_allclose((start - variable.numpy())[large], 1e-2 * np.sign(gradient)[large], rtol=0.02)
    assert moved > 100
    assert int(model.step.numpy()) == 1


def test_measured_on_the_averaged_weights(model, batch):
    images, known = batch
    for _ in range(3):
        model.train_on_batch(images, known)
    logged = model.test_on_batch(images, known, return_dict=True)
    error = np.abs(np.mean(np.asarray(model.averaged(images)) - known, axis=(1, 2, 3)))
    assert logged["error"] == pytest.approx(error.mean(), rel=1e-4)
    assert logged["within_half"] == pytest.approx(np.mean(error <= 0.5))
    np.testing.assert_array_equal(model(images), model.averaged(images))
    assert not np.array_equal(model.predictor(images), model.averaged(images))


def test_it_learns(model, batch):
    images, known = batch
    losses = [model.train_on_batch(images, known, return_dict=True)["predictor_loss"] for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]
    # Nothing of what is measured is trained.
    assert not model.predictor.marks.trainable_variables
