"""In which pixel format an encoder takes a frame."""

import av
from av.codec.codec import Codec
from av.video.format import VideoFormat

# These refuse an odd number of pixels where two share a chroma sample. Others encode the incomplete one.
_WHOLE_CHROMA = frozenset(("libx264", "libx265", "libsvtav1"))


def has_alpha(pix_fmt: str) -> bool:
    """Whether a pixel format has a plane or channel of transparency."""
    return any(component.is_alpha for component in VideoFormat(pix_fmt).components)


def keeps_alpha(codec: str, pix_fmt: str) -> bool:
    """Whether an encoder keeps the alpha of a pixel format, so that it is there again when the file is read."""
    return has_alpha(pix_fmt) and (codec == "ffv1" or (codec, pix_fmt) == ("libvpx-vp9", "yuva420p"))


def encodable(first: av.VideoFrame, encoder: Codec, fields: bool = False, keep_alpha: bool = True) -> str:
    """The encoder's nearest pixel format that loses neither depth nor chroma samples nor range.

    Args:
        first: a frame of the size and pixel format to encode.
        encoder: the codec, opened for writing.
        fields: whether each field is coded by itself.
        keep_alpha: whether alpha must not be lost either.

    Returns:
        ffmpeg's name of the format: that of the frame where the encoder has it.

    Raises:
        ValueError: the encoder has none.
    """
    pix_fmt = first.format.name
    offered = [offer.name for offer in encoder.video_formats or []]
    if encoder.name in _WHOLE_CHROMA:
        # The fields of an odd height differ by a row, which none of these codes.
        height = (0 if first.height % 2 else first.height // 2) if fields else first.height
        offered = [name for name in offered if height and _divides(name, first.width, height)]
    if pix_fmt in offered or not encoder.video_formats:
        return pix_fmt
    wanted = VideoFormat(pix_fmt, 16, 16)
    depth = wanted.components[0].bits
    grey, alpha = len(wanted.components) == 1, keep_alpha and has_alpha(pix_fmt)
    fits = []
    for name in offered:
        offer = VideoFormat(name, 16, 16)
        kept = (
            offer.is_rgb == wanted.is_rgb
            and offer.components[0].bits >= depth
            and name.startswith("yuvj") == pix_fmt.startswith("yuvj")
            and (not alpha or has_alpha(name))
            and not offer.is_big_endian
            and not offer.has_palette
        )
        if kept and not wanted.is_rgb and not grey:
            kept = (
                len(offer.components) >= 3
                and offer.chroma_width() >= wanted.chroma_width()
                and offer.chroma_height() >= wanted.chroma_height()
                # Chroma rows in between would come from both fields.
                and (not fields or offer.chroma_height() == wanted.chroma_height())
            )
        if kept:
            fits.append((offer.bits_per_pixel, name))
    if not fits:
        raise ValueError(
            f"{encoder.name} must take {pix_fmt} or a finer pixel format; it has {', '.join(offered)}. Choose another "
            f"codec, such as libx265 for 12 bits or ffv1 for RGB, alpha and fields of odd height. Received: "
            f"pix_fmt={pix_fmt!r}, size={first.width}x{first.height}, codec={encoder.name!r}"
        )
    return min(fits)[1]


def _divides(name: str, width: int, height: int) -> bool:
    """Whether every chroma sample of a picture stands for as many whole pixels."""
    offer = VideoFormat(name, width, height)
    return width % offer.chroma_width() == 0 and height % offer.chroma_height() == 0
