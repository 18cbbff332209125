"""What a picture costs."""


def bits_per_pixel(size_bytes: int, height: int, width: int, frame_count: int = 1) -> float:
    """Bits spent on a pixel.

        bits_per_pixel = 8 size_bytes / (height width frame_count)

    Of luma, or of RGB taken together: subsampled chroma adds no pixels. For a video, `size_bytes` should be that of
    the video stream alone, not of the file with its audio.

    Args:
        size_bytes: of the compressed picture or video stream, 0 or more.
        height: in pixels, as displayed.
        width: in pixels, as displayed.
        frame_count: 1 for a picture.

    Returns:
        Bits, 0 or more.

    Raises:
        ValueError: `size_bytes` is negative, or there is no pixel.
    """
    if size_bytes < 0:
        raise ValueError(f"expected size_bytes >= 0. Received: size_bytes={size_bytes}")
    if min(height, width, frame_count) < 1:
        raise ValueError(
            "expected height, width and frame_count >= 1. "
            f"Received: height={height}, width={width}, frame_count={frame_count}"
        )
    return 8 * size_bytes / (height * width * frame_count)
