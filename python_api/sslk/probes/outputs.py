"""What a probe says about every sample, and how sure its accuracy is; kept in a file for failure prediction."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from sslk.files.tensors import read_tensors, require_tensors
from sslk.files.text import parse_json
from sslk.results.atomic import write_atomically
from sslk.results.run import Measure

_FORMAT = "sslk-probe-outputs-1"
_TENSORS = {
    "index": "int64 1",
    "labels": "int64 1",
    "predictions": "int64 1",
    "confidence": "float32 1",
    "correct": "bool 1",
    "logits": "float32 2",
    "classes": "int64 1",
}


@dataclass(frozen=True, eq=False)
class ProbeOutputs:
    """A classifier's answer for every sample, in the order of the rows it was given.

    Attributes:
        index: int64 `[N]`, the sample's place in its data set (as in a feature store), or in what the probe was given. Samples
            that are unlabelled or not finite have no answer: their places are left out.
        labels: int64 `[N]`.
        predictions: int64 `[N]`, labels too.
        confidence: float32 `[N]`, the largest softmax probability.
        correct: bool `[N]`.
        logits: float32 `[N, C]`; for k-NN the logarithm of the votes' shares.
        classes: int64 `[C]`, the label of every column.
        source: where they come from: `probe`, and `model`, `weights_hash`, `dataset` of the store where there is one.

    >>> outputs = ProbeOutputs.from_logits(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([3, 7]),
    ...                                    torch.tensor([3, 3]))
    >>> outputs.predictions.tolist(), outputs.correct.tolist(), outputs.accuracy
    ([3, 7], [True, False], 0.5)
    """

    index: Tensor
    labels: Tensor
    predictions: Tensor
    confidence: Tensor
    correct: Tensor
    logits: Tensor
    classes: Tensor
    source: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_logits(
        cls, logits: Tensor, classes: Tensor, labels: Tensor, index: Tensor | None = None, source: dict[str, str] | None = None
    ) -> ProbeOutputs:
        """Predictions, confidence and correctness of class scores `[N, C]`."""
        logits, labels = logits.detach().float().cpu(), labels.cpu().long()
        if logits.ndim != 2 or len(logits) != len(labels) or logits.shape[1] != len(classes):
            raise ValueError(
                f"logits must be [N, C] with N = {len(labels)} labels and C = {len(classes)} classes, got {list(logits.shape)}."
            )
        predictions = classes.cpu()[logits.argmax(1)]
        index = torch.arange(len(labels)) if index is None else index.cpu()
        confidence = logits.softmax(1).amax(1)
        return cls(index, labels, predictions, confidence, predictions == labels, logits, classes.cpu(), source or {})

    @property
    def accuracy(self) -> float:
        """Share of correct predictions."""
        return float(self.correct.double().mean())

    @property
    def balanced_accuracy(self) -> float:
        """Mean over the classes that occur of the share of correct predictions."""
        return balanced_accuracy(self.predictions, self.labels)

    def measures(self, task: str) -> list[Measure]:
        """Top-1 with its interval and balanced accuracy in percent, of the model and data that the source names."""
        model, data, count = self.source.get("model", ""), self.source.get("dataset", ""), len(self.correct)
        low, high = accuracy_interval(int(self.correct.sum()), count)
        return [
            Measure(data, model, task, "top-1 [%]", 100 * self.accuracy, 100 * low, 100 * high, count),
            Measure(data, model, task, "balanced accuracy [%]", 100 * self.balanced_accuracy, samples=count),
        ]

    @property
    def unknown(self) -> int:
        """Samples of classes that the classifier does not know: never right."""
        return int((~torch.isin(self.labels, self.classes)).sum())

    @property
    def known_accuracy(self) -> float:
        """Share of correct predictions among the samples of classes that the classifier knows; NaN without any."""
        return float(self.correct[torch.isin(self.labels, self.classes)].double().mean())

    def missing_classes(self) -> list[str]:
        """One sentence where samples are of classes that training lacks, with the accuracy without them; else none.

        >>> outputs = ProbeOutputs.from_logits(torch.eye(3, 2), torch.tensor([3, 7]), torch.tensor([3, 7, 9]))
        >>> outputs.missing_classes()[0]
        '1 of 3 test samples is of a class that training lacks (9) and counts as wrong: top-1 is 100.00 % without it.'
        """
        lacking = self.labels[~torch.isin(self.labels, self.classes)].unique().tolist()
        if not lacking:
            return []
        one = self.unknown == 1
        named = ", ".join(map(str, lacking[:5])) + (", ..." if lacking[5:] else "")
        classes = "a class" if one else f"{len(lacking)} classes" if lacking[1:] else "one class"
        share = f"top-1 is {100 * self.known_accuracy:.2f} % without {'it' if one else 'them'}"
        if self.unknown == len(self.labels):
            share = "none is left without them"
        return [
            f"{self.unknown} of {len(self.labels)} test samples {'is' if one else 'are'} of {classes} that training lacks "
            f"({named}) and {'counts' if one else 'count'} as wrong: {share}."
        ]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one safetensors file, atomically."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: getattr(self, name).contiguous() for name in _TENSORS}
        write_atomically(path, save(tensors, {"format": _FORMAT, "source": json.dumps(self.source)}))
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ProbeOutputs:
        """Read what `save` wrote; of a run's folder its `outputs.safetensors`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged or holds something else.
        """
        path = Path(path)
        path = path / "outputs.safetensors" if path.is_dir() else path
        if not path.exists():
            raise FileNotFoundError(f"No probe outputs at {path}: the file does not exist; `sslk probe` writes it.")
        try:
            tensors, metadata = read_tensors(path, "the file")
        except ValueError as error:
            raise ValueError(f"{path} cannot be read as probe outputs, it is damaged: {error}") from None
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"{path} holds no probe outputs (format {metadata.get('format')!r}).")
        require_tensors(tensors, _TENSORS, str(path), ValueError)
        rows, columns = tensors["logits"].shape
        if any(len(t) != (columns if name == "classes" else rows) for name, t in tensors.items()):
            raise ValueError(f"{path} is damaged: its tensors are of {rows} samples and {columns} classes only in part.")
        source = parse_json(metadata.get("source", ""), f"the source in {path}")
        if not isinstance(source, dict) or not all(isinstance(value, str) for value in source.values()):
            raise ValueError(f"{path} is damaged: its source must be names and text.")
        return cls(**tensors, source=source)


def balanced_accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Mean recall of the classes among `labels`; a class that is only predicted does not count.

    >>> balanced_accuracy(torch.tensor([1, 1, 1, 9]), torch.tensor([1, 1, 1, 4]))
    0.5
    """
    classes, inverse = torch.unique(labels, return_inverse=True)
    hits = torch.zeros(len(classes), dtype=torch.float64, device=labels.device)
    hits.index_add_(0, inverse, (predictions == labels).double())
    return float((hits / torch.bincount(inverse, minlength=len(classes))).mean())


def accuracy_interval(correct: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share, 95 % by default: how far another test set of this size could be.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).

    >>> [round(end, 3) for end in accuracy_interval(721, 1000)]
    [0.692, 0.748]
    """
    share = correct / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return centre - half, centre + half
