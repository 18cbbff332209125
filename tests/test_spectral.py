import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deartifact.models.spectral import SpectralConv2D


@pytest.fixture(autouse=True)
def _float32():
    yield
    keras.mixed_precision.set_global_policy("float32")


def _layer(channels=3, filters=5, kernel_size=3, strides=1, seed=0):
    layer = SpectralConv2D(filters, kernel_size, strides)
    layer.build((None, None, None, channels))
    random = np.random.default_rng(seed)
    # A spectrum with a first value well above the second, so that the iteration gets there.
    kernel = random.normal(0, 1, layer.kernel.shape) + 0.7 * random.normal(0, 1, layer.kernel.shape[-1])
    layer.kernel.assign(kernel)
    return layer


def _images(channels=3, seed=1):
    return np.random.default_rng(seed).normal(size=(2, 12, 8, channels)).astype(np.float32)


def _largest_singular_value(kernel):
    return np.linalg.svd(np.reshape(kernel, (-1, np.shape(kernel)[-1])).astype(np.float64), compute_uv=False)[0]


def _converge(layer):
    for _ in range(100):
        layer(_images(layer.kernel.shape[-2]), training=True)


@pytest.mark.parametrize(
    ("channels", "filters", "kernel_size", "strides"), [(3, 5, 3, 1), (4, 2, 4, 2), (2, 7, 1, 1), (3, 1, 3, 1)]
)
def test_kernel_is_divided_by_its_largest_singular_value(channels, filters, kernel_size, strides):
    layer = _layer(channels, filters, kernel_size, strides)
    kernel = layer.kernel.numpy()
    _converge(layer)
    images = _images(channels)
    expected = tf.nn.conv2d(images, kernel / np.float32(_largest_singular_value(kernel)), strides, "SAME")
    for training in (False, True):
        np.testing.assert_allclose(layer(images, training=training), expected, atol=1e-5)
    np.testing.assert_array_equal(layer.kernel, kernel)


def test_one_iteration_by_hand():
    layer = SpectralConv2D(2, 1)
    layer.build((None, None, None, 2))
    layer.kernel.assign(np.diag([3.0, 4.0])[None, None])
    layer.u.assign([[0.6], [0.8]])
    images = _images(2)
    # sigma = |(3 * 0.6, 4 * 0.8)|
    before = np.hypot(1.8, 3.2)
    np.testing.assert_allclose(layer(images), images * (3 / before, 4 / before), rtol=1e-5)
    np.testing.assert_allclose(layer.u, [[0.6], [0.8]], atol=1e-7)
    # u <- (9 * 0.6, 16 * 0.8) to unit length
    u = np.array([5.4, 12.8]) / np.hypot(5.4, 12.8)
    sigma = np.hypot(3 * u[0], 4 * u[1])
    np.testing.assert_allclose(layer(images, training=True), images * (3 / sigma, 4 / sigma), rtol=1e-5)
    np.testing.assert_allclose(layer.u, u[:, None], rtol=1e-6)
    # What training has seen is what inference computes.
    np.testing.assert_allclose(layer(images), images * (3 / sigma, 4 / sigma), rtol=1e-5)


def test_gradient_knows_that_sigma_depends_on_the_kernel():
    layer, images = _layer(), _images()
    _converge(layer)
    kernel = layer.kernel.numpy().astype(np.float64)
    target = np.random.default_rng(2).normal(size=(2, 12, 8, 5))

    def loss(kernel):
        outputs = tf.nn.conv2d(images.astype(np.float64), kernel / _largest_singular_value(kernel), 1, "SAME")
        return float(tf.reduce_sum(tf.square(outputs - target)))

    with tf.GradientTape() as tape:
        value = tf.reduce_sum(tf.square(layer(images, training=True) - target.astype(np.float32)))
    gradient = tape.gradient(value, layer.kernel.value).numpy()
    assert float(value) == pytest.approx(loss(kernel), rel=1e-5)
    expected = np.empty(kernel.size)
    for index, direction in enumerate(np.eye(kernel.size)):
        step = 1e-5 * direction.reshape(kernel.shape)
        expected[index] = (loss(kernel + step) - loss(kernel - step)) / 2e-5
    np.testing.assert_allclose(gradient.ravel(), expected, atol=1e-4 * np.abs(expected).max())
    # Only the kernel's direction matters, thus nothing is to be gained along the kernel itself.
    assert abs((gradient * kernel).sum()) < 1e-4 * np.linalg.norm(gradient) * np.linalg.norm(kernel)


def test_scale_of_the_kernel_does_not_matter():
    layer, images = _layer(), _images()
    expected = layer(images)
    layer.kernel.assign(17.0 * layer.kernel)
    np.testing.assert_allclose(layer(images), expected, atol=1e-5)


def test_only_training_moves_u():
    layer, images = _layer(), _images()
    u = layer.u.numpy()
    layer(images)
    layer(images, training=False)
    np.testing.assert_array_equal(layer.u, u)
    layer(images, training=True)
    assert np.abs(layer.u - u).max() > 0.01
    assert np.linalg.norm(layer.u) == pytest.approx(1.0, abs=1e-6)


def test_u_starts_the_same_everywhere():
    keras.utils.set_random_seed(1)
    first = _layer()
    keras.utils.set_random_seed(2)
    np.testing.assert_array_equal(first.u, _layer().u)
    assert np.linalg.norm(first.u) == pytest.approx(1.0, abs=1e-6)
    assert [weight.name for weight in first.trainable_weights] == ["kernel"]


def test_a_kernel_of_zeros():
    layer, images = _layer(), _images()
    layer.kernel.assign(np.zeros(layer.kernel.shape))
    with tf.GradientTape() as tape:
        outputs = layer(images, training=True)
    np.testing.assert_array_equal(outputs, 0.0)
    assert np.isfinite(tape.gradient(outputs, layer.kernel.value)).all()
    assert np.isfinite(layer.u).all()


def test_mixed_precision_leaves_the_kernel_its_precision():
    expected_layer, images = _layer(), _images()
    keras.mixed_precision.set_global_policy("mixed_float16")
    layer = _layer()
    kernel = layer.kernel.numpy()
    outputs = layer(images, training=True)
    assert outputs.dtype == tf.float16
    assert {weight.dtype for weight in layer.weights} == {"float32"}
    np.testing.assert_array_equal(layer.kernel, kernel)
    assert (kernel != kernel.astype(np.float16)).mean() > 0.9
    # 11 significant bits.
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), expected_layer(images, training=True), atol=1e-2)
    # sigma and u are those of float32, to the last bit.
    np.testing.assert_array_equal(layer.u, expected_layer.u)


def test_compiled_by_xla():
    layer, compiled, images = _layer(), _layer(), _images()
    expected = layer(images, training=True)
    outputs = tf.function(lambda images: compiled(images, training=True), jit_compile=True)(images)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    np.testing.assert_allclose(compiled.u, layer.u, atol=1e-6)


def test_config():
    layer = SpectralConv2D(7, 4, strides=2, name="here")
    copy = SpectralConv2D.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    assert (copy.filters, copy.kernel_size, copy.strides, copy.name) == (7, 4, 2, "here")
