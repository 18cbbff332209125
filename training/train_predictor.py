"""Trains the quality predictor; `python -m training.train` calls it."""

from pathlib import Path

import keras
import tensorflow as tf

from keras_deartifact import models
from keras_deartifact.predictor_trainer import PredictorTrainer
from training import callbacks, distribution, runs
from training.configs import PredictorConfig, as_dict
from training.datasets import find_sources, make_predictor_datasets

__all__ = ["make_predictor_model", "train_predictor"]


def make_predictor_model(config: PredictorConfig, start: keras.Model | None = None) -> PredictorTrainer:
    """Returns the compiled trainer of a fresh run, of a predictor that may begin with the weights of another."""
    predictor = models.QualityPredictor(**config.predictor_arguments)
    predictor.build((None, None, None, predictor.channels))
    if start is not None:
        runs.take_over(start, predictor)
    model = PredictorTrainer(predictor)
    rate = runs.schedule(config, config.learning_rate)
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=config.weight_decay),
        gradient_clip=config.gradient_clip,
        ema_momentum=config.ema_momentum,
    )
    return model


def train_predictor(
    config: PredictorConfig,
    folders: list[str],
    video: str | None,
    run: Path,
    start: Path | None = None,
    histograms: bool = False,
    strategy: tf.distribute.Strategy | None = None,
) -> None:
    """Trains a quality predictor to its end, with the averaged weights in `run/predictor.keras`.

    Args:
        config: what to train.
        folders: of pictures.
        video: folder of video pairs, made with `--purpose=predicting`.
        run: the run's folder.
        start: a run's folder, or a .keras file, whose predictor to start from; None to begin from random weights.
        histograms: of every weight, in TensorBoard.
        strategy: of `distribution.make_strategy`; one device by default.

    Raises:
        ValueError: what the user gave does not fit; nothing was changed then.
        FloatingPointError: the loss is no number any more; the last good checkpoint is kept.
    """
    strategy = strategy or tf.distribute.get_strategy()
    distribution.check_run_is_shared(run, strategy)
    distribution.check_batch(config.still_batch + config.video_batch, strategy)
    if start is not None and start.is_dir():
        start = start / "predictor.keras"
    sources = find_sources(config, folders, video)
    keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        record = {"config": as_dict(config), "start": runs.start_record(start), "data": sources.record()}
        checkpoint = runs.open_run(run, record, distribution.is_chief(strategy))
        first = keras.models.load_model(start, compile=False) if start is not None else None
        model = make_predictor_model(config, first)
        if checkpoint:
            callbacks.load_checkpoint(model, checkpoint)
    datasets = make_predictor_datasets(config, sources, runs.epochs_done(model, config))
    runs.fit(model, datasets, config, run, strategy, histograms)
