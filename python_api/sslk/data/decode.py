"""What the bytes of an image file become: upright, and RGB in 8 bits. Every image, mask and thumbnail is decoded here.

The table of docs/data.md says what each kind of file becomes, and tests/data/test_decode.py holds every row of it.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

DECODING = "upright, alpha on white"  # stands in the identity of stores; change it with what the pixels become

# Pillow knows more, and some of those run a program (EPS runs Ghostscript) or take any bytes for theirs (TGA).
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "DIB", "PPM", "JPEG2000", "AVIF", "HEIF")
RAW_SUFFIXES = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw")
_RAW = "camera RAW, of which only the preview could be read: develop it to TIFF, PNG or JPEG"
_HEIC = "HEIC, which Pillow does not read: pip install pillow-heif, and convert it to JPEG or PNG"
_BEGINNINGS = {
    b"8BPS": "a Photoshop document: save it flat, as PNG or TIFF",
    b"%PDF": "a PDF: render its pages to PNG",
    b"%!PS": "PostScript, which is a program and is not run: render it to PNG",
    b"\xff\x0a": "JPEG XL, which Pillow does not read: convert it to PNG or JPEG",
    b"\0\0\0\x0cJXL ": "JPEG XL, which Pillow does not read: convert it to PNG or JPEG",
    b"\x76\x2f\x31\x01": "OpenEXR, light without a white: tone-map it to PNG",
    b"version https://git-lfs": "a pointer of git-LFS in place of the file: git lfs pull",
}
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")
_TIFF_BITS, _DNG_VERSION, _TIFF_COLOURS = 258, 50706, 262
_ORIENTATION = 0x0112
_TURNED = range(2, 9)


def decode(content: bytes, where: str) -> Image.Image:
    """An image from the bytes of its file: the first frame, upright as its EXIF says, in the mode it is stored in.

    Args:
        content: of the file; what it is decides, not its suffix.
        where: it stands, for the message.

    Raises:
        OSError: it is no image, one of a kind that is refused, damaged, cut off, or larger than Pillow takes for safe.

    >>> file = io.BytesIO()
    >>> Image.new("L", (3, 2), 7).save(file, "PNG")
    >>> decode(file.getvalue(), "a.jpg").size
    (3, 2)
    >>> decode(b"<svg/>", "a.svg")
    Traceback (most recent call last):
    OSError: a.svg is SVG, a drawing without pixels: render it to PNG.
    """
    if where.lower().endswith(RAW_SUFFIXES) or content[8:11] == b"CR\x02":
        raise OSError(f"{where} is {_RAW}.")
    Image.init()  # all readers, those registered since too; at once after the first time
    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=[name for name in _FORMATS if name in Image.OPEN])
        image.load()
    except Image.UnidentifiedImageError:
        known = _kind_of(content)
        raise OSError(f"{where} is {known}." if known else f"{where} is no image that can be read.") from None
    except Exception as error:  # each format's decoder fails in its own way
        raise OSError(f"{where} cannot be read as an image: {error}") from None
    if _DNG_VERSION in _tags(image):
        raise OSError(f"{where} is {_RAW}.")
    return upright(image)


def upright(image: Image.Image) -> Image.Image:
    """An image turned and mirrored as its EXIF orientation says, once; the same one where it says nothing.

    >>> turned = Image.Exif()
    >>> turned[0x0112] = 6
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (80, 40)).save(file, "JPEG", exif=turned)
    >>> upright(upright(Image.open(file))).size
    (40, 80)
    """
    try:
        if image.getexif().get(_ORIENTATION) not in _TURNED:
            return image
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF fails in any way, and says nothing about the pixels
        return image


def rgb(image: Image.Image) -> Image.Image:
    """An image in RGB of 8 bits; one that is RGB already as it is.

    Grey of 16 bits is divided by 257 and rounded; of 32 bits, integers are taken as 16 bits and floats as [0, 1]. What is
    transparent shows white. CMYK goes through its own profile where it has one, LAB through Pillow's.

    Raises:
        ValueError: a grey image of 32 bits whose values have no known white, or a mode without a rule.

    >>> rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 102))).getpixel((0, 0))
    (255, 153, 153)
    >>> rgb(Image.fromarray(np.array([[0, 257, 65535]], np.uint16))).getpixel((1, 0))
    (1, 1, 1)
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        return _grey16(image)
    if image.mode == "I":
        return _grey_integers(image)
    if image.mode == "F":
        return _grey_floats(image)
    if image.has_transparency_data:
        return _on_white(image)
    if image.mode == "CMYK" and (profile := image.info.get("icc_profile")):
        return _with_profile(image, profile)
    if image.mode == "LAB":
        return _converted(image, ImageCms.createProfile("LAB"))
    try:
        return image.convert("RGB")
    except ValueError:
        raise ValueError(f"its mode {image.mode} has no rule for RGB: save it as RGB or grey in 8 bits") from None


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode in ("La", "RGBa"):  # colours times alpha
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    layers = image.convert("RGBA")
    page = Image.new("RGB", layers.size, (255, 255, 255))
    page.paste(layers, mask=layers.getchannel("A"))
    return page


def _grey16(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.uint32)
    tags = _tags(image)
    white = 4095 if tags.get(_TIFF_BITS) == (12,) else 65535
    bright = white - values if tags.get(_TIFF_COLOURS) == 0 else values  # white is 0 there
    levels = (bright * 255 + white // 2) // white
    if (key := image.info.get("transparency")) is not None:
        levels[values == key] = 255
    return Image.fromarray(levels.astype(np.uint8)).convert("RGB")


def _grey_integers(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    least, most = int(values.min()), int(values.max())
    # Pillow scales PGM and PNG to 16 bits; of other files nothing says what white is.
    known = image.format in ("PPM", "PNG") or least == most == 0
    if least < 0 or most > 65535 or (most <= 255 and not known):
        raise ValueError(
            f"it is grey in integers of 32 bits from {least} to {most} (mode I), which do not say what white is: "
            "save it in 8 or 16 bits"
        )
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8)).convert("RGB")


def _grey_floats(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.float64)
    least, most = float(values.min()), float(values.max())
    if not (least >= 0 and most <= 1):
        raise ValueError(f"it is grey in floats from {least:g} to {most:g} (mode F), they must be from 0 to 1: scale them")
    return Image.fromarray(np.rint(values * 255).astype(np.uint8)).convert("RGB")


def _with_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """CMYK by its own ICC profile; by Pillow's plain rule where that is damaged."""
    try:
        return _converted(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, OSError):
        return image.convert("RGB")


def _converted(image: Image.Image, profile: Any) -> Image.Image:
    changed = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    if changed is None:  # only where it works in place
        raise ValueError(f"its mode {image.mode} has no rule for RGB")
    return changed


def _tags(image: Image.Image) -> Any:
    return getattr(image, "tag_v2", {})


def _kind_of(content: bytes) -> str:
    """What a file that no reader takes is, with the remedy; empty where it is not known."""
    if not content:
        return "empty"
    if content[4:8] == b"ftyp":
        brands = [content[start : start + 4] for start in (8, *range(16, min(int.from_bytes(content[:4]), 128), 4))]
        if any(brand in _AVIF_BRANDS for brand in brands):
            return "AVIF, which this Pillow does not read: install Pillow 11.3 or later"
        if b"crx " in brands:
            return _RAW
        if any(brand in _HEIC_BRANDS for brand in brands):
            return _HEIC
    beginning = content[:1024].lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if b"<svg" in beginning or content[:2] == b"\x1f\x8b":
        return "SVG, a drawing without pixels: render it to PNG" if b"<svg" in beginning else "packed by gzip: unpack it"
    if beginning.startswith((b"<!doctype html", b"<html")):
        return "a page of HTML, as a failed download leaves it: fetch the image again"
    return next((what for start, what in _BEGINNINGS.items() if content.startswith(start)), "")
