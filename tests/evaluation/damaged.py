"""A folder of real photographs with two files that cannot be read, and the same folder without them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from sslk.data.sample import load_sample

CLASSES = ("bird", "cat")


def write_photos(folder: Path, *, damaged: bool) -> Path:
    """Both splits with two classes; a split has 12 images with `damaged`, 10 without.

    The damaged ones stand first and in the middle of the order, so that the numbers of others depend on them: a text that is
    called .png, and a JPEG cut off in its data. Beside them lies what a camera and a system leave: hidden files, a turned
    picture, one of 16 bits.
    """
    for split in ("train", "test"):
        images, labels = load_sample(split)
        for label, name in enumerate(CLASSES):
            place = folder / split / name
            place.mkdir(parents=True)
            pictures = [Image.fromarray(pixels.numpy()) for pixels in images[labels == label + 2][:5].permute(0, 2, 3, 1)]
            for number, picture in enumerate(pictures):
                _save(picture.resize((60, 48)), place, number)
        if damaged:
            whole = folder / split / CLASSES[1] / "photo2a.jpg"
            Image.effect_noise((60, 48), 60).convert("RGB").save(whole)
            whole.write_bytes(whole.read_bytes()[:-900])
            (folder / split / CLASSES[0] / "a-text.png").write_text("this is no picture")
            for mess in (".DS_Store", "Thumbs.db", "._photo0.png"):
                (folder / split / CLASSES[0] / mess).write_bytes(b"mess")
    return folder


def _save(picture: Image.Image, place: Path, number: int) -> None:
    if number == 3:
        grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
        Image.fromarray(grey).save(place / "photo3.png")
    elif number == 4:
        exif = Image.Exif()
        exif[0x0112] = 6  # turned by 90 degrees
        picture.save(place / "photo4.jpg", exif=exif, quality=95)
    else:
        picture.save(place / f"photo{number}.png")


def numbers() -> list[int]:
    """Where the readable images of a split stand among all of it."""
    return [1, 2, 3, 4, 5, 6, 7, 8, 10, 11]
