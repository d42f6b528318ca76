"""Building a concept table: experts over a data set, resumable, images that an expert cannot take told apart."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from sslk.concepts.expert import ConceptSample, Expert
from sslk.concepts.table import ConceptError, ConceptTable
from sslk.data.dataset import Dataset, UnreadableImageError
from sslk.data.source import OnCorrupt
from sslk.features.memory import kept_memory
from sslk.features.unreadable import check_on_corrupt, require_readable
from sslk.files.text import from_fields, read_json
from sslk.progress import Progress
from sslk.results.atomic import write_atomically

OnError = Literal["raise", "skip"]


def build_concepts(
    dataset: Dataset,
    experts: Sequence[Expert],
    out: str | os.PathLike[str] | None = None,
    *,
    batch_size: int = 64,
    part_rows: int = 2048,
    masks: bool | None = None,
    on_error: OnError = "raise",
    on_corrupt: OnCorrupt = "raise",
    progress: Progress | None = None,
) -> ConceptTable:
    """Ask every expert about every image.

    With `out`, finished parts of `part_rows` images are kept in `out + ".parts"` until the table is whole: killed at
    any moment, the same call goes on at the first unfinished part. Called again for a finished table it returns it.

    Args:
        dataset: images as stored, without a transform.
        experts: their columns follow each other in this order.
        out: file of the table; None keeps it in memory.
        batch_size: images an expert sees at once.
        part_rows: images a kill can cost.
        masks: whether to read the label maps; where the data set has them and no label by default.
        on_error: an expert that raises on an image ends the build with the image's name, or the image is left out of
            the table, counted and listed under `about["left_out"]`. A damaged image counts as raising.
        on_corrupt: an image that cannot be read ends the build, or is left out of the table in the same way; the rows of the
            others keep the images' numbers, by which they meet those of a feature store.
        progress: called with images done and in all.

    Raises:
        ConceptError: two experts share a column, an expert raises or gives a column it does not have, or `out` holds a
            table of another data set or of other experts.

    >>> from sslk.data import load_dataset
    >>> from sslk.concepts import ClassLabels, Colors
    >>> data = load_dataset("sample", "test")
    >>> build_concepts(data, [ClassLabels(data.classes), Colors()]).group_sizes
    {'labels': 10, 'colour': 11}
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}.")
    check_on_corrupt(on_corrupt)
    if not experts or batch_size < 1 or part_rows < 1:
        raise ValueError(
            f"build_concepts needs an expert and positive sizes, got {len(experts)} experts, "
            f"batch_size={batch_size}, part_rows={part_rows}."
        )
    names = [name for expert in experts for name in expert.names]
    groups = [expert.group for expert in experts for _ in expert.names]
    about: dict[str, Any] = {
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "samples": len(dataset),
        "experts": [repr(expert) for expert in experts],
        "on_error": on_error,
    }
    ConceptTable.from_rows([], names, groups)  # refuses columns of one name before any work
    strict = "skip" not in (on_error, on_corrupt)
    if out is not None and Path(out).exists():
        table = _finished(Path(out), about)
        _refuse_left_out(table.about.get("left_out", []) if strict else [], dataset)
        return table
    if strict:
        try:
            require_readable(dataset)
        except ValueError as error:
            raise ConceptError(str(error)) from error
    parts = None if out is None else _parts_folder(Path(out), about)
    refuse = _Refusals(dataset, on_error, on_corrupt)
    builder = _Builder(dataset, experts, batch_size, _wants_masks(dataset) if masks is None else masks, refuse)
    rows: list[list[int]] = []
    samples: list[int] = []
    left_out: list[list[Any]] = []
    seconds = [0.0] * len(experts)
    for start in range(0, len(dataset), part_rows):
        stop = min(start + part_rows, len(dataset))
        file = None if parts is None else parts / f"{start:09d}.json"
        if file is not None and file.exists():
            part = read_part(file, len(experts), len(names))
        else:
            with kept_memory():  # without, a network among the experts takes up to twice as long
                part = builder.part(start, stop, progress, len(dataset))
            if file is not None:
                write_atomically(file, json.dumps(asdict(part)).encode())
        rows += part.rows
        samples += part.samples
        left_out += map(list, part.left_out)
        seconds = [total + spent for total, spent in zip(seconds, part.seconds, strict=True)]
        if progress is not None:
            progress(stop, len(dataset), "asking experts")
    _refuse_left_out(left_out if strict else [], dataset)
    if not rows:
        raise ConceptError(f"no image of {dataset.name} got concepts; the first failed with: {left_out[0][1]}.")
    about |= {"left_out": left_out, "seconds": [round(spent, 3) for spent in seconds]}
    table = ConceptTable.from_rows(rows, names, groups, torch.tensor(samples), about)
    if out is not None and parts is not None:
        table.save(out)
        for file in parts.iterdir():
            file.unlink()
        parts.rmdir()
    return table


@dataclass(frozen=True)
class Part:
    """What the experts said about some images in a row.

    Attributes:
        rows: columns of each image.
        samples: number of each image in its data set.
        left_out: number and reason of those that are left out.
        seconds: of each expert.
    """

    rows: list[list[int]]
    samples: list[int]
    left_out: list[tuple[int, str]]
    seconds: list[float]


def read_part(file: Path, experts: int, columns: int) -> Part:
    """A finished part.

    Raises:
        ConceptError: it is damaged.
    """
    part = from_fields(Part, read_json(file, "the part", ConceptError), f"the part {file}", ConceptError)
    numbers = [*part.samples, *(number for number, _ in part.left_out)]
    bits = [bit for row in part.rows for bit in row]
    if (
        len(part.rows) != len(part.samples)
        or len(part.seconds) != experts
        or not all(0 <= number < 2**63 for number in numbers)
        or not all(0 <= bit < columns for bit in bits)
    ):
        raise ConceptError(f"the part {file} is damaged: delete it and build the table again.")
    return part


class _Builder:
    """Runs the experts over ranges of the data set."""

    def __init__(self, dataset: Dataset, experts: Sequence[Expert], batch_size: int, masks: bool, refuse: _Refusals) -> None:
        self.dataset, self.experts, self.batch_size = dataset, experts, batch_size
        self.masks, self.refuse = masks, refuse
        self.labels = dataset.labels

    def part(self, start: int, stop: int, progress: Progress | None, total: int) -> Part:
        rows: list[list[int]] = []
        samples: list[int] = []
        left_out: list[tuple[int, str]] = []
        seconds = [0.0] * len(self.experts)
        for first in range(start, stop, self.batch_size):
            batch: list[ConceptSample] = []
            for number in range(first, min(first + self.batch_size, stop)):
                try:
                    batch.append(self._sample(number))
                except Exception as error:  # what decoders raise is a zoo
                    self.refuse(number, "reading it", error, left_out)
            found, refused = self._ask(batch, seconds, left_out)
            kept = [i for i in range(len(batch)) if i not in refused]
            rows += [found[i] for i in kept]
            samples += [batch[i].number for i in kept]
            if progress is not None:
                progress(min(first + self.batch_size, stop), total, "asking experts")
        return Part(rows, samples, left_out, seconds)

    def _sample(self, number: int) -> ConceptSample:
        image, _ = self.dataset[number]
        label = None if self.labels is None else int(self.labels[number])
        return ConceptSample(number, image, label, self.dataset.annotation(number).mask if self.masks else None)

    def _ask(
        self, batch: list[ConceptSample], seconds: list[float], left_out: list[tuple[int, str]]
    ) -> tuple[list[list[int]], set[int]]:
        """The columns of each sample, and which samples an expert failed on."""
        found: list[list[int]] = [[] for _ in batch]
        refused: set[int] = set()
        shift = 0
        for place, expert in enumerate(self.experts):
            begun = time.perf_counter()
            answers = self._answers(expert, batch, left_out, refused)
            for i, answer in answers.items():
                bits = sorted({int(bit) for bit in answer})
                if bits and not 0 <= bits[0] <= bits[-1] < len(expert.names):
                    raise ConceptError(f"{expert!r} gave the column {bits[-1]}, it has {len(expert.names)}.")
                found[i] += [shift + bit for bit in bits]
            shift += len(expert.names)
            seconds[place] += time.perf_counter() - begun
        return found, refused

    def _answers(
        self, expert: Expert, batch: list[ConceptSample], left_out: list[tuple[int, str]], refused: set[int]
    ) -> dict[int, Any]:
        asked = [i for i in range(len(batch)) if i not in refused]
        if not asked:
            return {}
        try:
            answers = list(expert([batch[i] for i in asked]))
        except Exception:  # one by one, to find the image that an expert cannot take
            answers = []
            for i in list(asked):
                try:
                    answers += list(expert([batch[i]]))
                except Exception as error:
                    self.refuse(batch[i].number, f"the expert {expert!r}", error, left_out)
                    refused.add(i)
                    asked.remove(i)
        if len(answers) != len(asked):
            raise ConceptError(f"{expert!r} gave {len(answers)} answers for {len(asked)} images.")
        return dict(zip(asked, answers, strict=True))


@dataclass(frozen=True, eq=False)
class _Refusals:
    """What becomes of an image that cannot be read or that an expert cannot take."""

    dataset: Dataset
    on_error: OnError
    on_corrupt: OnCorrupt

    def __call__(self, number: int, where: str, error: Exception, left_out: list[tuple[int, str]]) -> None:
        """Note the image as left out, or raise."""
        unreadable = isinstance(error, UnreadableImageError)
        reason = f"{where} raised {type(error).__name__}: {error}"
        if self.on_error == "skip" or (unreadable and self.on_corrupt == "skip"):
            left_out.append((number, reason))
            return
        way = "on_corrupt='skip' (`--on-corrupt skip`)" if unreadable else "on_error='skip'"
        raise ConceptError(
            f"sample {number} ({self.dataset.image_name(number)}) of {self.dataset.name}: {reason}; {way} leaves such images out."
        ) from error


def _wants_masks(dataset: Dataset) -> bool:
    if dataset.labels is not None:
        return False
    try:
        return dataset.annotation(0).mask is not None
    except ValueError:
        return False


def _refuse_left_out(left_out: Sequence[Any], dataset: Dataset) -> None:
    """Another call skipped images; this one would not."""
    if left_out:
        number, reason = left_out[0]
        raise ConceptError(
            f"{len(left_out)} images were left out before, the first is {dataset.image_name(int(number))} ({reason}); "
            "on_corrupt='skip' (`--on-corrupt skip`) leaves unreadable images out."
        )


def _finished(out: Path, about: dict[str, Any]) -> ConceptTable:
    table = ConceptTable.load(out)
    different = [key for key, value in about.items() if table.about.get(key) != value]
    if different:
        raise ConceptError(f"{out} holds another table ({', '.join(different)} differ): choose another file.")
    return table


def _parts_folder(out: Path, about: dict[str, Any]) -> Path:
    """The folder of finished parts; those of another build are refused."""
    folder = out.with_name(out.name + ".parts")
    folder.mkdir(parents=True, exist_ok=True)
    identity = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest().encode()
    stamp = folder / ".identity"
    if stamp.exists() and stamp.read_bytes() != identity:
        raise ConceptError(f"{folder} holds parts of another build: delete the folder or choose another file.")
    write_atomically(stamp, identity)
    return folder
