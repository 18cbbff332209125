"""JPEG and PNG files inside a TensorFlow graph: what a server is sent, decoded, with what the file says of itself.

Everything is checked before a pixel is decoded: the kind of file by its first bytes, its size by its header. What is
refused raises `tf.errors.InvalidArgumentError`.

The picture is as stored: EXIF may say that it should be turned, and the answer, a PNG, carries no metadata.
"""

import tensorflow as tf

from keras_deartifact import quantiser

__all__ = ["MOST_PIXELS", "decode", "jpeg_log2_step"]

MOST_PIXELS = 25_000_000
"""Of a picture, which goes through the network in one piece: `shuffle_nano` takes 200 bytes a pixel, which is 5 GB.

A file of some kB can claim 65535x65535 pixels."""

# A 16 MB colour profile takes 255 segments. More than this, or so many bytes of rubbish between two, and the quality
# counts as unknown.
_MOST_SEGMENTS = 1000

_JPEG_START = b"\xff\xd8\xff"
_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"

_STEPS = 64
_LOWEST = 4


def _lowest_in_zigzag() -> list[int]:
    """Where the 4x4 lowest frequencies lie in a JPEG's table, which runs along the diagonals, to and fro."""
    # Up to the right on even diagonals, down to the left on odd ones.
    order = sorted(
        ((row, column) for row in range(8) for column in range(8)),
        key=lambda at: (sum(at), at[1] if sum(at) % 2 == 0 else at[0]),
    )
    return [index for index, at in enumerate(order) if max(at) < _LOWEST]


def decode(content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes one file.

    Args:
        content: scalar string, the bytes of a JPEG, or of a PNG of up to 8 bits; grey and palettes become RGB, alpha is
            dropped.

    Returns:
        uint8 `(height, width, 3)`, RGB, and the scalar float32 log2 step that a JPEG states;
        `quantiser.DEFAULT_LOG2_STEP` for a PNG.
    """
    is_jpeg = tf.equal(tf.strings.substr(content, 0, len(_JPEG_START)), _JPEG_START)
    is_png = tf.equal(tf.strings.substr(content, 0, len(_PNG_START)), _PNG_START)
    content = _checked(content, is_jpeg | is_png, "Expected the bytes of a JPEG or PNG file.")
    return tf.cond(is_jpeg, lambda: _decode_jpeg(content), lambda: _decode_png(content))


def _decode_jpeg(content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    shape = tf.cast(tf.io.extract_jpeg_shape(content), tf.int64)
    content = _checked(content, tf.not_equal(shape[2], 4), "Expected a JPEG of grey or RGB, not of CMYK.")
    content = _of_bounded_size(content, shape[0], shape[1])
    # The decoder that libjpeg itself uses by default, and so Pillow.
    pixels = tf.io.decode_jpeg(content, channels=3, fancy_upscaling=True, dct_method="INTEGER_ACCURATE")
    return pixels, jpeg_log2_step(content)


def _decode_png(content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    # The header is the first part, always: width and height in 4 bytes each, then the bits of a sample.
    content = _checked(content, tf.strings.length(content) > 24, "Expected a whole PNG file.")
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(content, 16, 9), tf.uint8), tf.int64)
    places = tf.constant([1 << 24, 1 << 16, 1 << 8, 1], tf.int64)
    width, height = (tf.reduce_sum(header[start : start + 4] * places) for start in (0, 4))
    content = _checked(content, header[8] <= 8, "Expected a PNG of up to 8 bits, not of 16.")
    content = _of_bounded_size(content, height, width)
    return tf.io.decode_png(content, channels=3), tf.constant(quantiser.DEFAULT_LOG2_STEP)


def jpeg_log2_step(content: tf.Tensor) -> tf.Tensor:
    """Returns `quantiser.jpeg_table_log2_step` of the table that a JPEG uses for luma, its first component.

        log2_step = mean over the 4x4 lowest frequencies of log2(table)

    The file is walked from segment to segment up to the first scan. Nothing in it can make that fail or take long: what
    states no table, or a wrong one, gives `quantiser.DEFAULT_LOG2_STEP`.

    Args:
        content: scalar string, the bytes of a JPEG.

    Returns:
        Scalar float32.
    """
    # Zeros behind it, so that a table or segment that is cut off reads as one of zeros, which is none.
    data = tf.cast(tf.pad(tf.io.decode_raw(content, tf.uint8), [[0, 2 * _STEPS + 1]]), tf.int32)
    total = tf.strings.length(content)

    def read(position: tf.Tensor) -> tf.Tensor:
        return data[tf.minimum(position, total)]

    def read_16_bits(position: tf.Tensor) -> tf.Tensor:
        return read(position) * 256 + read(position + 1)

    def has_more(position: tf.Tensor, *state: tf.Tensor) -> tf.Tensor:
        del state
        return position < total

    def step(
        position: tf.Tensor, tables_end: tf.Tensor, chosen: tf.Tensor, known: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """One table inside a segment of tables, or else one marker and its segment."""
        in_tables = position < tables_end
        kind = read(position)
        value, size = _table(data, position + 1, is_deep=kind >= 16)
        known = tf.where(in_tables & (tf.range(4) == kind % 16), value, known)

        is_marker, marker = read(position) == 0xFF, read(position + 1)
        is_marker &= (marker != 0xFF) & ~in_tables
        # SOI, the restart markers, TEM and a stuffed zero stand alone; EOI and SOS are the end of what is looked for.
        is_alone = (marker <= 0x01) | ((marker >= 0xD0) & (marker <= 0xD8))
        is_end = is_marker & ((marker == 0xD9) | (marker == 0xDA))
        is_frame = (marker >= 0xC0) & (marker <= 0xCF) & (marker != 0xC4) & (marker != 0xC8) & (marker != 0xCC)
        is_segment = is_marker & ~is_alone
        end = position + 2 + tf.maximum(read_16_bits(position + 2), 2)
        # Of a frame: length 2, precision 1, height 2, width 2, components 1; the first one's name, sampling and table.
        chosen = tf.where(is_segment & is_frame, read(position + 12), chosen)
        is_tables = is_segment & (marker == 0xDB)
        tables_end = tf.where(is_tables, end, tables_end)
        ahead = tf.where(is_tables, position + 4, tf.where(is_segment, end, position + tf.where(is_marker, 2, 1)))
        ahead = tf.where(in_tables, position + 1 + size, ahead)
        return tf.where(is_end, total, ahead), tables_end, chosen, known

    start = (tf.constant(0), tf.constant(0), tf.constant(-1), tf.fill([4], float("nan")))
    *_, chosen, known = tf.while_loop(has_more, step, start, maximum_iterations=_MOST_SEGMENTS, parallel_iterations=1)
    stated = tf.reduce_sum(tf.where(tf.range(4) == chosen, known, 0.0))
    stated = tf.where((chosen >= 0) & (chosen < 4) & tf.math.is_finite(stated), stated, quantiser.DEFAULT_LOG2_STEP)
    return tf.clip_by_value(stated, quantiser.MINIMUM_LOG2_STEP, quantiser.MAXIMUM_LOG2_STEP)


def _table(data: tf.Tensor, start: tf.Tensor, is_deep: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the log2 step of a table, not finite where one of its steps is 0, and its size in bytes."""
    start = tf.minimum(start, tf.size(data) - 2 * _STEPS)
    window = data[start : start + 2 * _STEPS]
    deep = window[0::2] * 256 + window[1::2]
    steps = tf.cast(tf.where(is_deep, deep, window[:_STEPS]), tf.float32)
    log2_steps = tf.math.log(steps) / tf.math.log(2.0)
    # All 64 must be positive, as in `quantiser.py`.
    value = tf.reduce_mean(tf.gather(log2_steps, _lowest_in_zigzag())) + 0.0 * tf.reduce_sum(log2_steps)
    return value, tf.where(is_deep, 2 * _STEPS, _STEPS)


def _of_bounded_size(content: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    return _checked(content, height * width <= MOST_PIXELS, f"Expected a picture of at most {MOST_PIXELS} pixels.")


def _checked(content: tf.Tensor, condition: tf.Tensor, message: str) -> tf.Tensor:
    """The content, for what must not run before the condition is known to hold: decoders have no order of their own."""
    with tf.control_dependencies([tf.debugging.Assert(condition, [message])]):
        return tf.identity(content)
