"""Image files for the tests, those too that Pillow does not write: TIFFs from their tags, an ICC profile of CMYK."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np
from PIL import Image


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tiff(width: int, height: int, data: bytes, bits: Sequence[int], photometric: int, sample_format: int = 1, *more) -> bytes:
    """One uncompressed strip, little-endian (TIFF 6.0); `more` holds further tags as (number, value)."""
    tags = {256: [width], 257: [height], 258: list(bits), 259: [1], 262: [photometric], 273: [8], 277: [len(bits)]}
    tags |= {278: [height], 279: [len(data)], 339: [sample_format] * len(bits), **{tag: [value] for tag, value in more}}
    data += b"\0" * (len(data) % 2)
    at = 8 + len(data)
    behind, entries = b"", b""
    end = at + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        kind, letter = (4, "I") if tag in (273, 279) else (3, "H")
        packed = struct.pack(f"<{len(values)}{letter}", *values)
        if len(packed) > 4:
            packed, behind = struct.pack("<I", end + len(behind)), behind + packed + b"\0" * (len(packed) % 2)
        entries += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<I", at) + data + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0" + behind


def cmyk_profile(lab: np.ndarray) -> bytes:
    """An ICC 2.4 profile of a printer: Lab `[2, 2, 2, 2, 3]` without and with each of the four inks, linear between."""
    corners = np.stack([lab[..., 0] * 2.55, lab[..., 1] + 128, lab[..., 2] + 128], -1).round().astype(np.uint8)
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + corners.tobytes() + ramp * 3
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = {b"desc": text, b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061), b"A2B0": table}
    at, entries, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        content += b"\0" * (-len(content) % 4)
        entries += name + struct.pack(">II", at + len(body), len(content))
        body += content
    header = struct.pack(">I4sI4s4s4s", at + len(body), b"test", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + entries + body


def srgb_of_lab(lab: np.ndarray) -> np.ndarray:
    """sRGB `[..., 3]` in 8 bits of CIE Lab under D50, by the definitions: Lab -> XYZ -> linear sRGB (Bradford to D65) -> sRGB."""
    f = (lab[..., :1] + 16) / 116 + np.stack([lab[..., 1] / 500, 0 * lab[..., 1], -lab[..., 2] / 200], -1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.9642, 1.0, 0.8249]
    to_linear = [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
    linear = np.clip(xyz @ np.array(to_linear).T, 0, 1)
    return np.rint(255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)).astype(int)
