"""Label-free and online measures of an encoder while it trains, in any loop."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from sslk.distributed import world
from sslk.probes.settings import changed
from sslk.probes.usable import finite_rows
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.quality.score import resolve_set
from sslk.training.monitor_features import Read, Recorder, encode, pooled, submodule
from sslk.training.monitor_log import Row, require_loggers, send, write_csv
from sslk.training.monitor_probe import OnlineProbe
from sslk.training.monitor_queue import Columns, FeatureQueue, gathered
from sslk.training.monitor_settings import MonitorSettings
from sslk.training.monitor_values import QScoreSet, aligned, neighbors, spread

if TYPE_CHECKING:
    from sslk.results.run import Run


class Monitor:
    """Watches the representations of an encoder while it trains.

    `step` keeps a copy of the batch's representations in a queue and lets the online probe learn from them; every n steps it
    computes, over the queue or over images that are held out: RankMe, effective rank, uniformity, alignment of two views,
    mean Q-Score with mean `|L_i|` and the share of empty sets, the spread of the features and the share of dead ones, and
    with labels the accuracies of the online probe and of k-NN. The training itself is left as it is: no gradient, buffer,
    mode or random number of it changes. Of several processes each keeps its share of the queue, and values are of all rows.

    Args:
        module: the encoder, or a module that holds it under the name `input`; its outputs with gradients enabled are read by
            a hook. None where every `step` is given features, as with CUDA graphs.
        settings: see `MonitorSettings`.
        discriminative: the set S, as `discover` returned it or a bool mask `[D]`; by default it is found at every evaluation.
        held_out: batches of images, or of images and labels, that are evaluated in place of the queue.
        read: from the encoder's output to `[N, D]`; by default a map is averaged, and of tokens the first is taken.
        folder: where the CSV file is written.
        loggers: `SummaryWriter`s, loggers of Lightning, functions of values and step.
        changes: fields of the settings by name, such as `every_n_steps=100`.

    Attributes:
        rows: every evaluation: `step`, `epoch`, and the values by key.

    Raises:
        ValueError: a setting is out of range, there is no such sub-module; in a step, the encoder gave nothing, labels are
            missing or of another number; at the first step, the folder holds the curve of another run.
        TypeError: there is no such setting, or a logger that takes no values.

    Examples:
        >>> encoder = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
        >>> monitor = Monitor(encoder, every_n_steps=2, queue_length=64, k=5, num_classes=2)
        >>> for _ in range(4):
        ...     x = torch.randn(16, 8)
        ...     loss = encoder(x).var(0).sub(1).square().mean()
        ...     values = monitor.step(labels=(x[:, 0] > 0).long())
        >>> len(monitor.rows), values["monitor/rows"], 1 <= values["monitor/rankme"] <= 32
        (2, 64, True)
    """

    def __init__(
        self,
        module: nn.Module | None = None,
        settings: MonitorSettings = MonitorSettings(),  # noqa: B008 (frozen)
        *,
        discriminative: DiscriminativeFeatures | Tensor | None = None,
        held_out: Iterable[Any] | None = None,
        read: Read = pooled,
        folder: str | os.PathLike[str] | None = None,
        loggers: Sequence[Any] = (),
        **changes: Any,
    ) -> None:
        self.settings = changed(settings, changes, "Monitor")
        require_loggers(loggers)
        self.held_out, self.read, self.loggers = held_out, read, list(loggers)
        self.path = None if folder is None else Path(folder) / f"{self.settings.name}.csv"
        eps = None if self.settings.eps == "auto" else float(self.settings.eps)
        self.set = QScoreSet(discriminative, eps, self.settings.two_sided)
        self.rows: list[Row] = []
        self.steps = self.epochs = 0
        self.queue: FeatureQueue | None = None
        self.probe: OnlineProbe | None = None
        self._loaded: dict[str, Any] = {}
        self.encoder: nn.Module | None = None
        self.recorder: Recorder | None = None
        if module is not None:
            self.attach(module)

    def attach(self, module: nn.Module) -> None:
        """Watch the encoder of a module, found by `input`.

        Raises:
            ValueError: there is no such sub-module.
        """
        self.close()
        self.encoder = submodule(module, self.settings.input)
        self.recorder = Recorder(self.encoder, self.read)

    def close(self) -> None:
        """Watch no more; what was found stays."""
        if self.recorder is not None:
            self.recorder.remove()
            self.recorder = None

    def step(self, features: Tensor | Sequence[Tensor] | None = None, labels: Tensor | None = None) -> Row:
        """Call it after every batch: the values by key where an evaluation is due, else nothing.

        Args:
            features: `[N, D]`, or those of the views one by one; by default what the encoder gave since the last step.
            labels: `[N]`, one for each image of the batch; below 0 for none.
        """
        self.push(features, labels)
        return self.advance(self.steps + 1)

    def push(self, features: Tensor | Sequence[Tensor] | None = None, labels: Tensor | None = None) -> None:
        """Add a batch to the queue, and let the probe learn from it; see `step`."""
        if not self.steps and self.queue is None:
            self._refuse_other_run()
        outputs = self.recorder.take() if self.recorder is not None else []
        if features is not None:
            given = [features] if isinstance(features, Tensor) else features
            outputs = [pooled(output.detach()) for output in given]
        if not outputs:
            name = f"input {self.settings.input!r}" if self.settings.input else "the encoder"
            raise ValueError(f"{name} gave no representations in this step: give features, or train through the encoder.")
        first, second = self._views(outputs, labels)
        if self.settings.num_classes and labels is None:
            raise ValueError("labels must be given for the online probe, got none: num_classes=0 goes without.")
        if self.queue is None:
            self._begin(first)
        assert self.queue is not None
        hits = None
        if labels is not None:
            labels = labels.detach().to(first.device, torch.int64, non_blocking=True)
            if self.probe is not None:
                with torch.autocast(first.device.type, enabled=False):
                    hits = self.probe.step(first, labels)
        self.queue.push(first, second, labels, hits)

    def _views(self, outputs: list[Tensor], labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The first view of the batch, and the second where there is one."""
        rows = len(outputs[0])
        if labels is not None and labels.ndim != 1:
            raise ValueError(f"labels must be [N], one for each image, got {list(labels.shape)}.")
        images = rows // self.settings.views if labels is None else len(labels)
        if not images or rows % images:
            raise ValueError(f"labels must be as many as the images of the batch, got {images} for {rows} representations.")
        first = outputs[0][:images]
        if rows > images:
            return first, outputs[0][images : 2 * images]
        return first, outputs[1] if len(outputs) > 1 and outputs[1].shape == first.shape else None

    def _begin(self, features: Tensor) -> None:
        if self.set.given is not None:
            resolve_set(self.set.given, features.shape[1], self.set.eps, self.set.two_sided)
        rank, size = world() if torch.distributed.is_initialized() else (0, 1)
        self.queue = FeatureQueue(-(-self.settings.queue_length // size))
        if self.settings.num_classes:
            self.probe = OnlineProbe(features.shape[1], self.settings.num_classes, self.settings.probe_lr, features.device)
        if self._loaded.get("rank") == rank:  # a checkpoint may hold the rows of one process: the others begin anew
            self.queue.load_state_dict(self._loaded["queue"])
        if self.probe is not None and self._loaded.get("probe"):
            self.probe.load_state_dict(self._loaded["probe"])
        self._loaded = {}

    def _refuse_other_run(self) -> None:
        if self.path is not None and not self.rows and world()[0] == 0 and self.path.exists():
            raise ValueError(f"{self.path} holds the curve of another run: load its state to go on, or give another folder.")

    def advance(self, step: int) -> Row:
        """Training has come to this step: the values where an evaluation is due, else nothing."""
        before, self.steps = self.steps, step
        every = self.settings.every_n_steps
        return self.evaluate() if every and step // every > before // every else {}

    def end_epoch(self) -> Row:
        """Call it after every epoch: the values where an evaluation is due by epochs, else nothing."""
        self.epochs += 1
        every = self.settings.every_n_epochs
        return self.evaluate() if every and self.epochs % every == 0 else {}

    def evaluate(self) -> Row:
        """The values now, by key; also written and logged. Several processes call it together.

        Raises:
            ValueError: no step was taken.
        """
        if self.rows and self.rows[-1]["step"] == self.steps:  # the end of an epoch after its last step
            return {name: value for name, value in self.rows[-1].items() if name not in ("step", "epoch")}
        if self.queue is None:
            raise ValueError("evaluate needs representations in the queue: call step first.")
        with isolate_rng(), torch.no_grad():
            held = None
            if self.held_out is not None:
                if self.encoder is None:
                    raise ValueError("held_out needs the encoder: give module.")
                features, labels = encode(self.encoder, self.held_out, self.settings.target, self.read)
                held = gathered({"features": features} | ({} if labels is None else {"labels": labels.long()}))
            queue = self.queue.columns() | {"asks": self.queue.newest().to(torch.int8)}
            with torch.autocast(queue["asks"].device.type, enabled=False):
                values = self._values(gathered(queue), held)
        row = {f"{self.settings.name}/{name}": value for name, value in values.items()}
        self.rows.append({"step": self.steps, "epoch": self.epochs, **row})
        if world()[0] == 0:
            if self.path is not None:
                write_csv(self.path, self.rows)
            send(self.loggers, row, self.steps)
        return row

    def _values(self, queue: Columns, held: Columns | None) -> Row:
        seen = queue if held is None else held
        finite = finite_rows(seen["features"])
        rows = seen["features"][finite]
        rows = rows if rows.dtype == torch.float64 else rows.float()
        values = spread(rows) | self.set.values(rows)
        if "second" in queue:
            values["alignment"] = aligned(queue["features"], queue["second"])
        if (queue["labels"] >= 0).any():
            values |= self._answers(queue, held if held is not None and "labels" in held else None)
        numbers = torch.stack([value.double().to(rows.device) for value in values.values()]).tolist()
        return dict(zip(values, numbers, strict=True)) | {"rows": len(rows), "nonfinite": len(finite) - len(rows)}

    def _answers(self, queue: Columns, held: Columns | None) -> dict[str, Tensor]:
        """Accuracies of the two classifiers."""
        bank, asks = (queue["features"], queue["labels"]), queue["asks"] > 0
        queries = (bank[0][asks], bank[1][asks]) if held is None else (held["features"], held["labels"])
        if held is None:
            bank = bank[0][~asks], bank[1][~asks]
        found = {"knn_top1": neighbors(bank, queries, self.settings)}
        if self.probe is None:
            return found
        if (largest := int(queue["labels"].max())) >= self.probe.num_classes:
            raise ValueError(f"num_classes must be above all labels, got {self.probe.num_classes} and a label {largest}.")
        seen = queue if held is None else held
        loss, top1 = self.probe.loss(seen["features"], seen["labels"])
        if held is None:  # answered before they were learnt
            top1 = queue["hits"][queue["hits"] >= 0].double().mean()
        return found | {"probe_top1": top1, "probe_loss": loss}

    def state_dict(self) -> dict[str, Any]:
        """Everything that goes on after an interruption: this process's rows of the queue, the probe, eps, and the curve."""
        return {
            "steps": self.steps,
            "epochs": self.epochs,
            "rows": [dict(row) for row in self.rows],
            "eps": self.set.eps,
            "two_sided": self.set.two_sided,
            "rank": world()[0] if torch.distributed.is_initialized() else 0,
            "queue": self._loaded.get("queue", {}) if self.queue is None else self.queue.state_dict(),
            "probe": self._loaded.get("probe", {}) if self.probe is None else self.probe.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken: the curve ends at its step, and later rows are computed again.

        A process that did not write the state starts with an empty share of the queue.
        """
        self.steps, self.epochs, self.rows = state["steps"], state["epochs"], [dict(row) for row in state["rows"]]
        self.set.eps, self.set.two_sided = state["eps"], state["two_sided"]
        self.queue, self.probe, self._loaded = None, None, dict(state)

    def run(self, model: str = "encoder", data: str = "training") -> Run:
        """The curve as a `Run`, which `sslk report` draws once it is saved.

        Args:
            model, data: names of what was trained and on what.

        Raises:
            ValueError: nothing was evaluated.
        """
        from sslk.training.monitor_run import monitor_run

        return monitor_run(self.settings, self.rows, model, data, held_out=self.held_out is not None)
