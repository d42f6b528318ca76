"""Settings of the monitor; importing them loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MonitorSettings:
    """What is watched in a training, and how often.

    `input`, `target`, `queue_length`, `num_classes`, `k` and `temperature` are named as in stable-pretraining's callbacks.

    Attributes:
        name: first part of the keys (`monitor/rankme`), and name of the CSV file.
        input: dotted name of the encoder in the module; empty where the module is the encoder.
        target: where the labels are in a batch: a position or a key; None where there are none.
        every_n_steps: steps between two evaluations; 0 for none by steps.
        every_n_epochs: epochs between two evaluations, at the end of an epoch; 0 for none by epochs.
        queue_length: rows that are kept, over all processes; one row is one image.
        views: how many views of the batch one output of the encoder holds, one after another (`torch.cat([x0, x1])`); with
            labels it is found from their number.
        eps: threshold of the Q-Score in standard deviations; `"auto"` is chosen at the first evaluation as `discover` does,
            and kept, so that the curve is of one measure.
        two_sided: whether large negative deviations count as activations; by default where the features of the first
            evaluation hold negative ones.
        num_classes: of the labels, for the online probe; 0 trains none.
        k: neighbours of the k-NN classifier.
        temperature: a neighbour with cosine similarity s votes with weight `exp(s / temperature)`.
        probe_lr: learning rate of the online probe's Adam.

    >>> MonitorSettings(k=0)
    Traceback (most recent call last):
    ValueError: k must be at least 1, got 0.
    """

    name: str = "monitor"
    input: str = ""
    target: int | str | None = None
    every_n_steps: int = 500
    every_n_epochs: int = 0
    queue_length: int = 4096
    views: int = 1
    eps: float | Literal["auto"] = "auto"
    two_sided: bool | None = None
    num_classes: int = 0
    k: int = 20
    temperature: float = 0.07
    probe_lr: float = 1e-3

    def __post_init__(self) -> None:
        least = {"every_n_steps": 0, "every_n_epochs": 0, "queue_length": 16, "views": 1, "num_classes": 0, "k": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}.")
        if self.k > self.bank:
            raise ValueError(
                f"k must be at most {self.bank}, the rows of a queue of {self.queue_length} that are searched, got {self.k}."
            )
        if self.eps != "auto" and (isinstance(self.eps, str) or not self.eps >= 0):
            raise ValueError(f"eps must be zero or positive, or 'auto', got {self.eps!r}.")
        for name in ("temperature", "probe_lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        if not self.name or "/" in self.name:
            raise ValueError(f"name must be a name without a slash, got {self.name!r}.")

    @property
    def bank(self) -> int:
        """Rows of a full queue in which neighbours are searched at most; the newest eighth asks, where no images are held out."""
        return self.queue_length - self.queue_length // 8
