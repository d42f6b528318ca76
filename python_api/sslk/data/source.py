"""A data set as it is written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sslk.data.dataset import Dataset

OnCorrupt = Literal["raise", "skip"]  # an unreadable image ends the work, or is left out, counted and listed


@dataclass(frozen=True)
class DataSource:
    """A data set by name.

    Attributes:
        data: name of a published data set, folder:PATH, manifest:PATH, npz:PATH, hf:NAME, camvid:PATH,
            tiny-imagenet:PATH or sample.
        split: split of the data set.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
    """

    data: str
    split: str = "test"
    root: str | None = None

    def load(self, on_corrupt: OnCorrupt = "raise") -> Dataset:
        """Open the data set; with `skip` every image is decoded once now, and unreadable ones are left out with a warning."""
        from sslk.data.load import load_dataset

        return load_dataset(self.data, self.split, root=self.root, on_error=on_corrupt)
