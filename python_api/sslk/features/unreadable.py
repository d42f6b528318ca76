"""Images that cannot be read: refused early, or left out, counted and listed; numbers of the others stay what they are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from sslk.data.dataset import Dataset, UnreadableImageError
from sslk.features.store import FeatureStore
from sslk.results.run import Run, RunTable

_NAMED = 10  # in a sentence; results list all
_PIECE = 64  # images decoded between two looks at the clock


def check_on_corrupt(on_corrupt: str) -> None:
    """Refuse another value than the two.

    Raises:
        ValueError: neither `raise` nor `skip`.
    """
    if on_corrupt not in ("raise", "skip"):
        raise ValueError(f"on_corrupt must be 'raise' or 'skip', got {on_corrupt!r}.")


def refusal(error: UnreadableImageError) -> ValueError:
    """What is said of an unreadable image where it ends the work: its file, why, and how to go on."""
    reason = error.reason.rstrip(".")
    return ValueError(f"image {error.image_name} cannot be read: {reason}; `--on-corrupt skip` leaves such images out.")


def readable_numbers(
    dataset: Dataset, numbers: Sequence[int] | np.ndarray | None = None, on_corrupt: str = "skip", *, threads: int = 8
) -> tuple[list[int], list[str]]:
    """Which images of a data set can be decoded, each by trying.

    Args:
        dataset: its transform is not used.
        numbers: places of the images in question; all by default.
        on_corrupt: `skip`, or `raise`: the first unreadable image is an error.
        threads: that decode.

    Returns:
        The places of the readable ones, in the order given, and the names of the others.

    Raises:
        ValueError: an image cannot be read and on_corrupt is `raise`, or none can.

    >>> from sslk.data import load_dataset
    >>> readable_numbers(load_dataset("sample"), [4, 7])
    ([4, 7], [])
    """
    check_on_corrupt(on_corrupt)
    asked = list(range(len(dataset))) if numbers is None else [int(number) for number in numbers]
    with ThreadPoolExecutor(threads) as pool:
        errors = list(pool.map(lambda number: _error_of(dataset, number), asked))
    for error in errors:
        if error is not None and on_corrupt == "raise":
            raise refusal(error)
    kept = [number for number, error in zip(asked, errors, strict=True) if error is None]
    if not kept:
        first = "there is none" if not asked else f"the first is {dataset.image_name(asked[0])}"
        raise ValueError(f"none of the {len(asked)} images of {dataset.name} can be read, {first}.")
    return kept, [error.image_name for error in errors if error is not None]


def require_readable(
    dataset: Dataset, numbers: Sequence[int] | np.ndarray | None = None, *, seconds: float = 5.0, threads: int = 8
) -> None:
    """Before long work: decode the images for some seconds at most, so that a small folder fails at once.

    Args:
        dataset: its transform is not used.
        numbers: places of the images in question; all by default.
        seconds: what the look may cost; the images behind are met when their turn comes.
        threads: that decode.

    Raises:
        ValueError: an image cannot be read.
    """
    asked = list(range(len(dataset))) if numbers is None else [int(number) for number in numbers]
    end = time.monotonic() + seconds
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(asked), _PIECE):
            for error in pool.map(lambda number: _error_of(dataset, number), asked[start : start + _PIECE]):
                if error is not None:
                    raise refusal(error)
            if time.monotonic() > end:
                return


def left_out_of(store: FeatureStore, dataset: Dataset, numbers: Sequence[int] | np.ndarray | None = None) -> list[str]:
    """Names of the images that an extraction left out, unreadable.

    Args:
        store: of the extraction.
        dataset: that was extracted.
        numbers: place in the data set of every sample of the store; the sample itself by default.
    """
    skipped = [sample for entry in store.manifest.shards for sample, _ in entry.skipped]
    return [dataset.image_name(sample if numbers is None else int(numbers[sample])) for sample in skipped]


def left_out_text(names: Sequence[str], images: int) -> str:
    """One sentence for a reader: how many of how many, and which.

    >>> left_out_text(["a.jpg", "b.png"], 12)
    '2 of 12 images cannot be read and are left out: a.jpg, b.png.'
    """
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    verb = "cannot be read and is left out" if len(names) == 1 else "cannot be read and are left out"
    return f"{len(names)} of {images} images {verb}: {', '.join(names[:_NAMED])}{more}."


def with_left_out(run: Run, names: Sequence[str], images: int) -> Run:
    """A run that says which images it lacks: a finding, a number and a table; the same run where it lacks none.

    >>> run = with_left_out(Run("probe", "k-NN", ["Top-1 is 9 %."], {}), ["a.jpg"], 12)
    >>> run.findings[-1], run.summary["left_out"], run.tables[-1].rows
    ('1 of 12 images cannot be read and is left out: a.jpg.', 1, [['a.jpg']])
    """
    if not names:
        return run
    table = RunTable("Images left out, unreadable", ["image"], [[name] for name in names], fold=True)
    return replace(
        run,
        findings=[*run.findings, left_out_text(names, images)],
        summary={**run.summary, "left_out": len(names)},
        tables=[*run.tables, table],
    )


def _error_of(dataset: Dataset, number: int) -> UnreadableImageError | None:
    try:
        dataset.image(number)
    except UnreadableImageError as error:
        return error
    return None
