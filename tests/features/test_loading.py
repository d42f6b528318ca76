"""What is said of a sample that cannot be read."""

import io

from PIL import Image

from sslk.features.loading import Samples


class Damaged:
    """A data set whose image is none; PIL's message names the stream by its address."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return Image.open(io.BytesIO(b"no image")), 0


def test_the_reason_is_alike_in_every_run():
    reason = Samples(Damaged(), True)[0].error
    assert reason == "UnidentifiedImageError: cannot identify image file <_io.BytesIO object>"
