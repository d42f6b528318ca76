"""What an expert is: a callable that looks at images and says which of its concepts they show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from PIL import Image


class ConceptSample(NamedTuple):
    """One image as experts see it.

    Attributes:
        number: in the data set.
        image: RGB, as stored.
        label: class, None where the data set has none.
        mask: class per pixel, uint8 `[H, W]`; None where the data set has none.
    """

    number: int
    image: Image.Image
    label: int | None = None
    mask: np.ndarray | None = None


@runtime_checkable
class Expert(Protocol):
    """Anything with a group, names and a call.

    Attributes:
        group: name of the columns' group, such as `"objects"`.
        names: of the columns.

    The call takes a list of samples and gives, per sample, the numbers of the concepts it shows. Its `repr` states the
    settings: a table remembers it, and a resumed build compares it.
    """

    group: str

    @property
    def names(self) -> Sequence[str]: ...

    def __call__(self, samples: Sequence[ConceptSample]) -> Sequence[Iterable[int]]: ...
