"""What all training with `model.fit` here has in common: a step on many devices, and averaged weights.

Losses are one value per image; here alone they are reduced, to the mean over the *global* batch, and here alone
gradients are clipped, after they were summed over the replicas: a step is the same on one device and on many.

`averaged` is a second network whose weights are the running mean of those that are trained. It is what validation
measures and what is exported. Early on, its memory is shorter, so that it forgets where training began:

    averaged += (1 - min(ema_momentum, (1 + step) / (10 + step))) * (weights - averaged)
"""

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf
from keras import ops

__all__ = ["Trainer"]


class Trainer(keras.Model):
    """Trains a network; see the module. A subclass has the steps and, in `averaged_file`, the result's name.

    Args:
        network: built; it starts with the weights that it has.
        names: of the values that the steps log.
        **kwargs: see `keras.Model`.
    """

    averaged_file: str

    def __init__(self, network: keras.Model, names: Iterable[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.averaged = type(network).from_config(network.get_config())
        self.averaged.build_from_config(network.get_build_config())
        self.averaged.set_weights(network.get_weights())
        self.averaged.trainable = False
        self.means = {name: keras.metrics.Mean(name=name) for name in names}
        # Not the optimizer's count, which leaves out the steps that a scaled loss skips.
        self.step = self.add_weight(name="step", shape=(), dtype="int64", initializer="zeros", trainable=False)
        self.gradient_clip: float | None = None
        self.ema_momentum = 0.0

    def compile_step(self, optimizer: keras.Optimizer, gradient_clip: float | None, ema_momentum: float) -> None:
        """Sets what every kind of training needs.

        Args:
            optimizer: of the network; a `LossScaleOptimizer` where the dtype policy is `mixed_float16`.
            gradient_clip: largest norm of a network's whole gradient; None for no limit.
            ema_momentum: of the running mean of the weights, in `[0, 1)`.

        Raises:
            ValueError: `ema_momentum` lies outside.
        """
        if not 0.0 <= ema_momentum < 1.0:
            raise ValueError(f"Expected a momentum in [0, 1). Received: ema_momentum={ema_momentum}")
        # XLA's convolutions are several times slower than oneDNN's on a CPU.
        super().compile(optimizer=optimizer, jit_compile=False, auto_scale_loss=False)
        self.gradient_clip = gradient_clip
        self.ema_momentum = ema_momentum

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.averaged(inputs, training=training)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self.means.values())

    def scaled(self, loss: Any, optimizer: keras.Optimizer) -> Any:
        """The mean over the global batch, less what the other replicas add to it, times float16's loss scale."""
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return optimizer.scale_loss(ops.mean(loss) / replicas)

    def descend(self, tape: tf.GradientTape, loss: Any, network: keras.Model, optimizer: keras.Optimizer) -> None:
        """Moves the network's weights along the gradient of a scaled loss, clipped as a whole."""
        variables = network.trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        context = tf.distribute.get_replica_context()
        gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        # The optimizer sums over the replicas once more.
        factor = 1.0 / context.num_replicas_in_sync
        if self.gradient_clip is not None:
            # Where float16's scaled gradients are not finite, neither is this, and the optimizer skips the step.
            scale = optimizer.scale_loss(1.0)
            norm = tf.linalg.global_norm([gradient / scale for gradient in gradients])
            factor *= self.gradient_clip / tf.maximum(norm, self.gradient_clip)
        optimizer.apply([gradient * factor for gradient in gradients], variables)

    def count(self, network: keras.Model) -> None:
        """Counts the step and moves the averaged weights."""
        step = tf.cast(self.step.value, tf.float32)
        rate = 1.0 - tf.minimum(self.ema_momentum, (1.0 + step) / (10.0 + step))

        def update(strategy: tf.distribute.Strategy, rate: Any) -> None:
            strategy.extended.update(self.step.value, lambda step: step.assign_add(1))
            for average, weight in zip(self.averaged.weights, network.weights, strict=True):
                strategy.extended.update(
                    average.value,
                    lambda average, weight, rate: average.assign_add(rate * (weight - average)),
                    args=(weight.value, rate),
                )

        tf.distribute.get_replica_context().merge_call(update, args=(rate,))

    def log(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Adds values, one per image each, to the means of their names, and returns those."""
        for name, value in values.items():
            self.means[name].update_state(value)
        return {name: self.means[name].result() for name in values}
