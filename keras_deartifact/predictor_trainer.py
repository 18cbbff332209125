"""The trainer of the quality predictor, with `model.fit`.

One step on a batch `(images, known)`, `known` being the log2 quantiser step of every block:

    scores    = predictor.scores(predictor.marks(images))
    predicted = sum over bins of softmax(scores) bin
    d         = predicted - known
    loss      = 0.5 mean over blocks of huber(d, 0.25) + huber(mean over blocks of d, 0.15)
              + 0.3 mean over blocks of the cross entropy of scores and known, shared out between the two nearest bins
    huber(d, h) = d^2 / (2 h) within h, |d| - h / 2 beyond

The second term is there because a picture has one table, and a frame about one QP: what counts is that the picture as a
whole is told right. The cross entropy makes the bins mean what they say; without it training is several times slower.
"""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_deartifact.models.predictor import QualityPredictor
from keras_deartifact.models.quantisation_marks import BINS, picture_mean
from keras_deartifact.trainer import Trainer

__all__ = ["PredictorTrainer", "predictor_loss"]

_BIN = float(BINS[1] - BINS[0])
_WITHIN = 0.5


def _huber(difference: Any, width: float) -> Any:
    size = ops.abs(difference)
    return ops.where(size < width, ops.square(size) / (2.0 * width), size - 0.5 * width)


def _difference(scores: Any, known: Any) -> Any:
    return ops.sum(ops.softmax(scores) * BINS, axis=-1, keepdims=True) - known


def predictor_loss(known: Any, scores: Any) -> Any:
    """Returns the loss of the module's first lines, one value per image.

    Args:
        known: float tensor `(batch, rows, columns, 1)`, log2 steps.
        scores: float tensor `(batch, rows, columns, bins)`, see `QualityPredictor.scores`.
    """
    difference = _difference(scores, known)
    share = ops.relu(1.0 - ops.abs(known - BINS) / _BIN)
    entropy = -ops.sum(share * ops.log_softmax(scores), axis=-1, keepdims=True)
    blocks = picture_mean(0.5 * _huber(difference, 0.25) + 0.3 * entropy)
    return (blocks + _huber(picture_mean(difference), 0.15))[:, 0]


class PredictorTrainer(Trainer):
    """Trains a quality predictor; see the module. Called with images, it predicts with the averaged weights.

    It logs the loss, the error of the picture's mean in log2 steps, and the share of pictures where that is within 0.5.

    Args:
        predictor: built; it starts with the weights that it has.
        **kwargs: see `keras.Model`.
    """

    averaged_file = "predictor.keras"

    def __init__(self, predictor: QualityPredictor, **kwargs: Any) -> None:
        super().__init__(predictor, ["predictor_loss", "error", "within_half"], **kwargs)
        self.predictor = predictor
        self.built = True

    def compile(self, optimizer: keras.Optimizer, gradient_clip: float = 1.0, ema_momentum: float = 0.998) -> None:
        """Sets how to train; see `Trainer.compile_step`."""
        self.compile_step(optimizer, gradient_clip, ema_momentum)
        optimizer.build(self.predictor.trainable_variables)

    def train_step(self, data: Any) -> dict[str, Any]:
        images, known, _ = keras.utils.unpack_x_y_sample_weight(data)
        # Nothing of it is trained, so that the tape need not keep it.
        marks = self.predictor.marks(images)
        with tf.GradientTape() as tape:
            scores = self.predictor.scores(*marks)
            loss = predictor_loss(known, scores)
            scaled = self.scaled(loss, self.optimizer)
        self.descend(tape, scaled, self.predictor, self.optimizer)
        self.count(self.predictor)
        return self._measured(known, scores, loss)

    def test_step(self, data: Any) -> dict[str, Any]:
        images, known, _ = keras.utils.unpack_x_y_sample_weight(data)
        scores = self.averaged.scores(*self.averaged.marks(images))
        return self._measured(known, scores, predictor_loss(known, scores))

    def _measured(self, known: Any, scores: Any, loss: Any) -> dict[str, Any]:
        error = ops.abs(picture_mean(_difference(scores, known)))[:, 0]
        within = ops.cast(error <= _WITHIN, "float32")
        return self.log({"predictor_loss": loss, "error": error, "within_half": within})
