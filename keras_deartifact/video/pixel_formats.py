"""In which pixel format an encoder takes a frame."""

import av
from av.codec.codec import Codec
from av.video.format import VideoFormat

# These refuse an odd number of pixels where two share a chroma sample. Others encode the incomplete one.
_WHOLE_CHROMA = frozenset(("libx264", "libx265", "libsvtav1"))


def encodable(first: av.VideoFrame, encoder: Codec) -> str:
    """The encoder's nearest pixel format that loses neither depth nor chroma samples nor range.

    Args:
        first: a frame of the size and pixel format to encode.
        encoder: the codec, opened for writing.

    Returns:
        ffmpeg's name of the format: that of the frame where the encoder has it.

    Raises:
        ValueError: the encoder has none.
    """
    pix_fmt = first.format.name
    offered = [offer.name for offer in encoder.video_formats or []]
    if encoder.name in _WHOLE_CHROMA:
        offered = [name for name in offered if _divides(VideoFormat(name, first.width, first.height))]
    if pix_fmt in offered or not offered:
        return pix_fmt
    wanted = VideoFormat(pix_fmt, 16, 16)
    depth = wanted.components[0].bits
    grey, alpha = len(wanted.components) == 1, any(component.is_alpha for component in wanted.components)
    fits = []
    for name in offered:
        offer = VideoFormat(name, 16, 16)
        kept = (
            offer.is_rgb == wanted.is_rgb
            and offer.components[0].bits >= depth
            and name.startswith("yuvj") == pix_fmt.startswith("yuvj")
            and (not alpha or any(component.is_alpha for component in offer.components))
            and not offer.is_big_endian
            and not offer.has_palette
        )
        if kept and not wanted.is_rgb and not grey:
            kept = (
                len(offer.components) >= 3
                and offer.chroma_width() >= wanted.chroma_width()
                and offer.chroma_height() >= wanted.chroma_height()
            )
        if kept:
            fits.append((offer.bits_per_pixel, name))
    if not fits:
        raise ValueError(
            f"{encoder.name} must take {pix_fmt} or a finer pixel format; it has {', '.join(offered)}. Choose another "
            f"codec, such as libx265 for 12 bits or ffv1 for RGB. Received: pix_fmt={pix_fmt!r}, size={first.width}x"
            f"{first.height}, codec={encoder.name!r}"
        )
    return min(fits)[1]


def _divides(offer: VideoFormat) -> bool:
    """Whether every chroma sample of a picture stands for as many whole pixels."""
    chroma = offer.chroma_width(), offer.chroma_height()
    return offer.width % chroma[0] == 0 and offer.height % chroma[1] == 0
