"""Training data: files -> degradations -> `tf.data` of `((compressed, quantiser_map), original)`.

Stills are cropped, compressed and decoded on the fly by TensorFlow's own JPEG operations. Video codecs are far too slow
for that, so that their pairs are made once (`python -m training.prepare_video`) and read back from TFRecord shards.

Every batch is float32: `compressed` and `original` `(batch, crop, crop, 3)` RGB in `[0, 1]`, `quantiser_map`
`(batch, crop / 16, crop / 16, 1)` log2 steps (see `quantiser.py`). Crops start on the codec's 16-pixel grid, except for
a share that is deliberately misaligned, as video is that was cropped after compression.

Every random choice is a function of the seed, the epoch and the sample's number in it, whatever the number of threads:
a run that starts again at an epoch sees the samples that it would have seen.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_deartifact import quantiser, stills

__all__ = [
    "StillsConfig",
    "epochs",
    "image_files",
    "mix",
    "parse_pair",
    "serialise_pair",
    "shard_files",
    "still_pairs",
    "video_pairs",
]

_EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
_QUALITIES_444 = tuple(range(5, 100, 5))
_LOG2_STEPS = np.array([0.0] + [quantiser.jpeg_quality_log2_step(q) for q in range(1, 101)], np.float32)
# Above this many bytes of decoded pictures, the rest is decoded anew each time it comes up.
_MEMORY_BYTES = 6 << 30
# Reduced by this much or more, a picture shows nothing of the file that it came from.
_CLEAN_REDUCTION = 1.3
# So many crops without texture, one after another, and it is the pictures that have none.
_MOST_FLAT_CROPS = 2000


@dataclass(frozen=True)
class StillsConfig:
    """How still pictures are cropped and degraded.

    Attributes:
        crop: side of a training crop in pixels, a multiple of 16.
        quality_range: JPEG qualities of most samples, inclusive.
        wide_quality_range: JPEG qualities of the rest.
        wide_share: share of samples that use the wide range.
        share_444: share without chroma subsampling.
        misaligned_share: share whose JPEG grid does not start at the crop's corner.
        double_share: share compressed twice, the second time on a shifted grid.
        unknown_share: share whose map says `DEFAULT_LOG2_STEP`, as where a file tells nothing.
        reduced_share: share of crops taken from a reduced picture, which is sharper and cleaner than the file.
        smallest_gradient: crops with a smaller mean absolute gradient, in 8-bit levels, are left out.
        clean_share: share that is not compressed at all, each taken from a reduced picture; their map says 0.
        coarser_of_double: if True, the map of a sample that was compressed twice is that of the coarser compression,
            as the quality predictor is to see it; else that of the last, as a file tells it.
    """

    crop: int = 96
    quality_range: tuple[int, int] = (8, 60)
    wide_quality_range: tuple[int, int] = (5, 95)
    wide_share: float = 0.25
    share_444: float = 0.2
    misaligned_share: float = 0.15
    double_share: float = 0.1
    unknown_share: float = 0.05
    reduced_share: float = 0.3
    smallest_gradient: float = 2.5
    clean_share: float = 0.0
    coarser_of_double: bool = False


class _Draws:
    """Hands out random values that depend on the seed alone; each call of a method is another value."""

    def __init__(self, seed: tf.Tensor) -> None:
        self._seed = seed
        self._calls = 0

    def _next_seed(self) -> tf.Tensor:
        self._calls += 1
        return tf.random.experimental.stateless_fold_in(self._seed, self._calls)

    def uniform(self, low: Any = 0.0, high: Any = 1.0) -> tf.Tensor:
        return tf.random.stateless_uniform((), self._next_seed(), low, high)

    def integers(self, low: Any, high: Any, shape: tuple[int, ...] = ()) -> tf.Tensor:
        """Returns int32 values in `low..high`, both ends included."""
        return tf.random.stateless_uniform(shape, self._next_seed(), low, high + 1, tf.int32)

    def chance(self, share: float) -> tf.Tensor:
        return self.uniform() < share


def image_files(directory: str | os.PathLike[str]) -> list[str]:
    """Returns the picture files below `directory`, sorted, by their extension.

    Raises:
        ValueError: there is none.
    """
    files = sorted(str(path) for path in Path(directory).rglob("*") if path.suffix.lower() in _EXTENSIONS)
    if not files:
        raise ValueError(f"Expected pictures ({', '.join(sorted(_EXTENSIONS))}) below {directory}, found none.")
    return files


def _usable(files: Sequence[str], smallest_side: int) -> Callable[[int], np.ndarray]:
    """Reads every picture once, names those that can't be used in the log, and returns how to get the n-th other."""
    kept: list[np.ndarray | str] = []
    spare = _MEMORY_BYTES
    for file in files:
        try:
            pixels = stills.read(file).pixels
        except (OSError, ValueError) as error:
            tf.get_logger().warning("left out %s: %s", file, error)
            continue
        if pixels.dtype != np.uint8 or min(pixels.shape[:2]) < smallest_side:
            tf.get_logger().warning("left out %s: %s, %s pixels", file, pixels.dtype, pixels.shape[:2])
            continue
        spare -= pixels.nbytes
        kept.append(pixels if spare > 0 else file)
    if len(kept) < len(files):
        tf.get_logger().warning("left out %d of %d pictures", len(files) - len(kept), len(files))
    if not kept:
        raise ValueError(f"Expected 8-bit pictures of {smallest_side} pixels or more each way, found none.")

    def get(number: int) -> np.ndarray:
        entry = kept[int(number) % len(kept)]
        return stills.read(entry).pixels if isinstance(entry, str) else entry

    return get


def _is_clean(sample_seed: tf.Tensor, config: StillsConfig) -> tf.Tensor:
    return _Draws(tf.random.experimental.stateless_fold_in(sample_seed, 1 << 21)).chance(config.clean_share)


def _random_crop(image: tf.Tensor, size: int, config: StillsConfig, draws: _Draws, clean: tf.Tensor) -> tf.Tensor:
    shape = tf.shape(image)
    shortest = tf.minimum(shape[0], shape[1])
    largest = tf.clip_by_value(tf.cast(shortest, tf.float32) / float(size), 1.0, 2.5)
    reduced = draws.chance(config.reduced_share) | clean
    smallest = tf.where(clean, tf.minimum(_CLEAN_REDUCTION, largest), 1.0)
    factor = tf.where(reduced, draws.uniform(smallest, largest + 1e-3), 1.0)
    side = tf.minimum(tf.cast(factor * float(size), tf.int32), shortest)
    row, column = draws.integers(0, shape[0] - side), draws.integers(0, shape[1] - side)
    crop = image[row : row + side, column : column + side]

    def reduce() -> tf.Tensor:
        resized = tf.image.resize(crop, (size, size), method="bicubic", antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)

    crop = tf.cond(side == size, lambda: crop, reduce)
    crop = tf.where(draws.chance(0.5), crop[:, ::-1], crop)
    crop = tf.image.rot90(crop, draws.integers(0, 3))
    return tf.ensure_shape(crop, (size, size, 3))


def _jpeg(image: tf.Tensor, config: StillsConfig, draws: _Draws) -> tuple[tf.Tensor, tf.Tensor]:
    """Compresses with a random quality and returns `(decoded, quality)`."""
    quality = tf.where(
        draws.chance(config.wide_share),
        draws.integers(*config.wide_quality_range),
        draws.integers(*config.quality_range),
    )

    def subsampled() -> tuple[tf.Tensor, tf.Tensor]:
        return tf.raw_ops.EncodeJpegVariableQuality(images=image, quality=quality), quality

    # The operation with a variable quality always halves the chroma; the other takes the quality as an attribute only.
    def full_chroma() -> tuple[tf.Tensor, tf.Tensor]:
        index = tf.clip_by_value((quality + 2) // 5 - 1, 0, len(_QUALITIES_444) - 1)
        encoders = [lambda q=q: tf.io.encode_jpeg(image, quality=q, chroma_downsampling=False) for q in _QUALITIES_444]
        return tf.switch_case(index, encoders), tf.gather(tf.constant(_QUALITIES_444), index)

    contents, quality = tf.cond(draws.chance(config.share_444), full_chroma, subsampled)
    # The default DCT method differs from every other decoder's result at half of the samples.
    decoded = tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")
    return tf.ensure_shape(decoded, image.shape), quality


def _cut(image: tf.Tensor, offset: tf.Tensor, side: int) -> tf.Tensor:
    return tf.ensure_shape(tf.slice(image, tf.concat([offset, [0]], 0), (side, side, 3)), (side, side, 3))


def _compress_still(
    image: tf.Tensor, config: StillsConfig, draws: _Draws, clean: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Compresses a `(crop + 16, crop + 16, 3)` picture and cuts the pair out of it."""
    double = draws.chance(config.double_share)
    first, first_quality = tf.cond(double, lambda: _jpeg(image, config, draws), lambda: (image, 0))
    # The shift before the second compression, which is the one whose grid and tables the file shows.
    shift = tf.where(double, draws.integers(0, 8, (2,)), 0)
    original = _cut(image, shift, config.crop + 8)
    compressed, quality = _jpeg(_cut(first, shift, config.crop + 8), config, draws)
    offset = tf.where(draws.chance(config.misaligned_share), draws.integers(1, 7, (2,)), 0)
    # Quality 0 stands for "not compressed".
    known = tf.gather(tf.constant(_LOG2_STEPS), quality)
    if config.coarser_of_double:
        known = tf.maximum(known, tf.gather(tf.constant(_LOG2_STEPS), first_quality))
    log2_step = tf.where(draws.chance(config.unknown_share), quantiser.DEFAULT_LOG2_STEP, known)
    log2_step = tf.where(clean, _LOG2_STEPS[0], log2_step)
    compressed = tf.where(clean, original, compressed)
    blocks = config.crop // quantiser.BLOCK
    quantiser_map = tf.fill((blocks, blocks, 1), log2_step)
    return _cut(compressed, offset, config.crop), quantiser_map, _cut(original, offset, config.crop)


def _is_textured(image: tf.Tensor, smallest_gradient: float) -> tf.Tensor:
    pixels = tf.cast(image[..., 1], tf.float32)
    horizontal = tf.reduce_mean(tf.abs(pixels[:, 1:] - pixels[:, :-1]))
    vertical = tf.reduce_mean(tf.abs(pixels[1:] - pixels[:-1]))
    return horizontal + vertical >= 2.0 * smallest_gradient


def _to_float(compressed: tf.Tensor, quantiser_map: tf.Tensor, original: tf.Tensor) -> tuple[Any, tf.Tensor]:
    scale = 1.0 / 255.0
    return (tf.cast(compressed, tf.float32) * scale, quantiser_map), tf.cast(original, tf.float32) * scale


def still_pairs(
    files: Sequence[str], config: StillsConfig, batch: int, seed: int = 0, threads: int = 2
) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Makes JPEG pairs from picture files.

    The decoded pictures are kept in memory, up to 6 GiB. Unreadable, too small and 16-bit ones are left out, and named
    in TensorFlow's log.

    Args:
        files: picture files, 8 bit.
        config: crops and degradations.
        batch: samples a batch.
        seed: of every choice.
        threads: parallel calls of the cropping and compressing.

    Returns:
        A function of the epoch (an int64 scalar) that returns that epoch's endless dataset of batches of
        `((compressed, quantiser_map), original)`, see the module. It raises `tf.errors.InvalidArgumentError` where
        the pictures hardly have a crop that is not flat.

    Raises:
        ValueError: `config.crop` is no multiple of 16, or no file can be used.
    """
    if config.crop % quantiser.BLOCK:
        raise ValueError(f"crop must be a multiple of {quantiser.BLOCK}. Received: crop={config.crop}")
    side = config.crop + quantiser.BLOCK
    get = _usable(files, side)

    def crop(sample_seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        draws = _Draws(sample_seed)
        image = tf.numpy_function(get, [draws.integers(0, 2**30)], tf.uint8)
        image = tf.ensure_shape(image, (None, None, 3))
        return _random_crop(image, side, config, draws, _is_clean(sample_seed, config)), sample_seed

    def compress(image: tf.Tensor, sample_seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        draws = _Draws(tf.random.experimental.stateless_fold_in(sample_seed, 1 << 20))
        return _compress_still(image, config, draws, _is_clean(sample_seed, config))

    def judge(flat_before: tf.Tensor, sample: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        textured = _is_textured(sample[0], config.smallest_gradient)
        flat = tf.where(textured, 0, flat_before + 1)
        message = f"The pictures are too flat: {_MOST_FLAT_CROPS} random crops without texture; see smallest_gradient."
        with tf.control_dependencies([tf.debugging.assert_less(flat, _MOST_FLAT_CROPS, message)]):
            return tf.identity(flat), (*sample, textured)

    def pairs(epoch: tf.Tensor) -> tf.data.Dataset:
        seeds = tf.data.Dataset.counter().map(lambda number: tf.stack([seed + epoch * 1_000_003, number]))
        dataset = seeds.map(crop, num_parallel_calls=threads).scan(0, judge)
        dataset = dataset.filter(lambda *sample: sample[-1]).map(lambda *sample: sample[:-1])
        dataset = dataset.map(compress, num_parallel_calls=threads)
        return dataset.batch(batch, drop_remainder=True).map(_to_float)

    return pairs


def serialise_pair(original: np.ndarray, compressed: np.ndarray, quantiser_map: np.ndarray) -> bytes:
    """Packs a uint8 pair `(side, side, 3)` and its float32 map `(side / 16, side / 16)` into a `tf.train.Example`."""
    feature = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.tobytes()]))
        for name, value in (
            ("original", original),
            ("compressed", compressed),
            ("quantiser_map", quantiser_map.astype(np.float32)),
        )
    }
    feature["side"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[original.shape[0]]))
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def parse_pair(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Unpacks what `serialise_pair` packed: compressed and original uint8, map float32 `(rows, columns, 1)`."""
    strings = {name: tf.io.FixedLenFeature((), tf.string) for name in ("original", "compressed", "quantiser_map")}
    example = tf.io.parse_single_example(record, {**strings, "side": tf.io.FixedLenFeature((), tf.int64)})
    side = tf.cast(example["side"], tf.int32)
    blocks = side // quantiser.BLOCK
    pixels = {
        name: tf.reshape(tf.io.decode_raw(example[name], tf.uint8), (side, side, 3))
        for name in ("original", "compressed")
    }
    quantiser_map = tf.reshape(tf.io.decode_raw(example["quantiser_map"], tf.float32), (blocks, blocks, 1))
    return pixels["compressed"], quantiser_map, pixels["original"]


def _crop_pair(pair: tuple[tf.Tensor, ...], crop: int, draws: _Draws) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Cuts a random crop on the 16-pixel grid and flips it left to right half of the time."""
    compressed, quantiser_map, original = pair
    blocks = crop // quantiser.BLOCK
    rows, columns = tf.unstack(tf.shape(quantiser_map)[:2])
    row, column = draws.integers(0, rows - blocks), draws.integers(0, columns - blocks)
    corner = tf.stack([row, column]) * quantiser.BLOCK
    cut = (
        _cut(compressed, corner, crop),
        tf.ensure_shape(quantiser_map[row : row + blocks, column : column + blocks], (blocks, blocks, 1)),
        _cut(original, corner, crop),
    )
    mirrored = draws.chance(0.5)
    return tuple(tf.where(mirrored, part[:, ::-1], part) for part in cut)


def shard_files(directory: str | os.PathLike[str]) -> list[str]:
    """Returns the shards that `training.prepare_video` wrote to `directory`, sorted.

    Raises:
        ValueError: there is none.
    """
    shards = sorted(str(path) for path in Path(directory).glob("*.tfrecord"))
    if not shards:
        raise ValueError(
            f"Expected *.tfrecord shards in {directory}, found none. Make them: python -m training.prepare_video"
        )
    return shards


def _is_known(pair: tuple[tf.Tensor, ...]) -> tf.Tensor:
    return tf.reduce_any(pair[1] != quantiser.DEFAULT_LOG2_STEP)


def video_pairs(
    shards: Sequence[str], crop: int, batch: int, seed: int = 0, threads: int = 2, known_only: bool = False
) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Reads the pairs that `training.prepare_video` wrote.

    Args:
        shards: files, see `shard_files`.
        crop: side of the crops, a multiple of 16 and at most the side of the stored pairs.
        batch: samples a batch.
        seed: of every choice.
        threads: parallel calls.
        known_only: leave out the crops whose map says `DEFAULT_LOG2_STEP` everywhere: that stands for "unknown".

    Returns:
        A function of the epoch, like that of `still_pairs`.
    """

    def pairs(epoch: tf.Tensor) -> tf.data.Dataset:
        epoch_seed = seed + epoch * 1_000_003
        # Not Dataset.shuffle, which mixes TensorFlow's global seed in. A shard's records were shuffled when written.
        order = tf.random.experimental.stateless_shuffle(tf.constant(shards), tf.stack([epoch_seed, 0]))
        names = tf.data.Dataset.from_tensor_slices(order).repeat()
        records = names.interleave(tf.data.TFRecordDataset, cycle_length=min(8, len(shards))).enumerate()

        def cut(number: tf.Tensor, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            return _crop_pair(parse_pair(record), crop, _Draws(tf.stack([epoch_seed, number])))

        samples = records.map(cut, num_parallel_calls=threads)
        if known_only:
            samples = samples.filter(lambda *pair: _is_known(pair))
        return samples.batch(batch, drop_remainder=True).map(_to_float)

    return pairs


def mix(sources: Sequence[Callable[[tf.Tensor], tf.data.Dataset]]) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Joins one batch of each source into one batch, so that every training step sees every kind of sample."""

    def pairs(epoch: tf.Tensor) -> tf.data.Dataset:
        batches = tf.data.Dataset.zip(tuple(source(epoch) for source in sources))
        return batches.map(lambda *parts: tf.nest.map_structure(lambda *tensors: tf.concat(tensors, 0), *parts))

    return pairs


def epochs(
    source: Callable[[tf.Tensor], tf.data.Dataset], steps_per_epoch: int, first_epoch: int = 0
) -> tf.data.Dataset:
    """Strings a source's epochs together, `steps_per_epoch` batches each, without end, from `first_epoch` on."""
    dataset = tf.data.Dataset.counter(first_epoch).flat_map(lambda epoch: source(epoch).take(steps_per_epoch))
    return dataset.prefetch(4)
