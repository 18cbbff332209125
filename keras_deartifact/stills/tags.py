"""EXIF, XMP and resolution as Pillow gives and takes them."""

from typing import Any

from PIL import Image, PngImagePlugin, TiffImagePlugin

from keras_deartifact.stills import png_chunks
from keras_deartifact.stills.still import COMMENT, Still

# In TIFF the EXIF tags share a directory with those that lay out the pixels; only these describe the picture.
_DESCRIPTIVE_TAGS = (269, 270, 271, 272, 274, 285, 305, 306, 315, 316, 318, 319, 18246, 33432, *range(40091, 40096))
_EXIF_DIRECTORIES = (0x8769, 0x8825)
_EXIF_HEADER = b"Exif\x00\x00"
_PHOTOSHOP = 34377
_X_RESOLUTION = 282


def exif(image: Image.Image) -> bytes | None:
    """The EXIF block of an image as `Still.exif` has it; of a TIFF one made of the tags that describe the picture."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = _descriptive(image.getexif())
        return tags.tobytes() if len(tags) else None
    block = as_bytes(image.info.get("exif"))
    if block is None:
        return None
    # WebP stores it without the header that JPEG needs.
    return block if block.startswith(_EXIF_HEADER) else _EXIF_HEADER + block


def _descriptive(tags: Image.Exif) -> Image.Exif:
    """The tags that describe the picture, without those that lay out a TIFF or a thumbnail."""
    kept = Image.Exif()
    kept.update({tag: tags[tag] for tag in _DESCRIPTIVE_TAGS if tag in tags})
    for directory in _EXIF_DIRECTORIES:
        if entries := tags.get_ifd(directory):
            kept.get_ifd(directory).update(entries)
            kept[directory] = kept.get_ifd(directory)
    return kept


def as_bytes(text: str | bytes | None) -> bytes | None:
    """A text in UTF-8; None where there is nothing."""
    return text.encode() if isinstance(text, str) else text or None


def dpi(image: Image.Image) -> tuple[float, float] | None:
    """Dots per inch across and down, None where the file states none that can be."""
    across, down = (float(each) for each in image.info.get("dpi", (0, 0)))
    # Broken headers hold 0, and a rational with denominator 0 is NaN.
    return (across, down) if 0 < across < 1e6 and 0 < down < 1e6 else None


def states_resolution(block: bytes | None) -> bool:
    """Whether an EXIF block holds the resolution."""
    return _X_RESOLUTION in loaded(block)


def loaded(block: bytes | None) -> Image.Exif:
    """The tags of an EXIF block, none of a broken one."""
    tags = Image.Exif()
    try:
        tags.load(block or b"")
    except Exception:
        # Pillow lets out SyntaxError, struct.error, ...
        return Image.Exif()
    return tags


def photoshop(image: Image.Image) -> bytes | None:
    """Photoshop's resources of a TIFF."""
    block = image.tag_v2.get(_PHOTOSHOP) if isinstance(image, TiffImagePlugin.TiffImageFile) else None
    return block if isinstance(block, bytes) and block.startswith(b"8BIM") else None


def options(template: Still, image_format: str) -> dict[str, Any]:
    """Pillow's options that carry a template's metadata into a format."""
    options: dict[str, Any] = {"exif": template.exif, "icc_profile": template.icc_profile}
    if image_format != "WEBP":
        options["dpi"] = template.dpi
    if image_format == "PNG":
        options["pnginfo"] = _png_info(template)
    elif template.xmp and image_format != "TIFF":
        options["xmp"] = template.xmp
    if image_format == "TIFF":
        options |= _tiff_tags(template)
    return {name: value for name, value in options.items() if value is not None}


def _tiff_tags(template: Still) -> dict[str, Any]:
    """EXIF, XMP and Photoshop's resources for a TIFF, where all are tags.

    Pillow takes them from either `exif` or `tiffinfo`, never both.
    """
    blocks = {TiffImagePlugin.XMP: template.xmp, _PHOTOSHOP: template.photoshop}
    others = {tag: block for tag, block in blocks.items() if block}
    if template.exif is None:
        return {"tiffinfo": others} if others else {}
    tags = Image.Exif()
    tags.load(template.exif)
    tags = _descriptive(tags)
    tags.update(others)
    return {"exif": tags}


def _png_info(template: Still) -> PngImagePlugin.PngInfo:
    """Texts of a PNG that Pillow has no option for."""
    info = PngImagePlugin.PngInfo()
    if template.xmp:
        info.add_itxt("XML:com.adobe.xmp", template.xmp.decode("utf-8", "replace"))
    if template.photoshop:
        info.add_text(png_chunks.RAW_PROFILE, png_chunks.raw_profile(template.photoshop), zip=True)
    for marker, content in template.segments:
        if marker == COMMENT:
            info.add_itxt("Comment", content.rstrip(b"\0").decode("utf-8", "replace"))
    for kind, content in template.chunks:
        info.add(kind, content)
    return info
