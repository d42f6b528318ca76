"""A linear classifier that learns beside a training, from detached features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sslk.distributed import all_sum


class OnlineProbe:
    """Softmax regression, one step of Adam a batch; starts at zero, so that no random number is drawn.

    Rows are brought to length `sqrt(D)` first: features of 1 on average, for which one learning rate suits every encoder.
    The gradient is the mean over the labelled, finite rows of all processes, which therefore hold equal weights. No step
    makes the host wait.

    Args:
        num_features: D.
        num_classes: C.
        learning_rate: of Adam.
        device: of the features.

    Examples:
        >>> probe, x = OnlineProbe(2, 2, 0.1), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> for _ in range(5): hits = probe.step(x, torch.tensor([0, 1]))
        >>> hits.tolist(), probe.step(x, torch.tensor([1, -1])).tolist()
        ([1, 1], [0, -1])
    """

    def __init__(
        self, num_features: int, num_classes: int, learning_rate: float, device: torch.device | str | None = None
    ) -> None:
        self.num_classes = num_classes
        self.weight = torch.zeros(num_classes, num_features + 1, device=device)  # the bias is the last column
        fused = self.weight.device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.Adam([self.weight], lr=learning_rate, fused=fused)

    @torch.no_grad()
    def step(self, features: Tensor, labels: Tensor) -> Tensor:
        """Learn from rows `[N, D]` with labels `[N]`, after having answered them.

        Returns:
            int8 `[N]`: whether the answer was right, before this step; -1 for rows that are unlabelled or not finite.
        """
        rows, known = self._rows(features, labels)
        logits = rows @ self.weight.T
        hits = torch.where(known, (logits.argmax(1) == labels).to(torch.int8), -1)
        places = labels.clamp(0, self.num_classes - 1)
        delta = logits.softmax(1)
        delta.scatter_add_(1, places[:, None], torch.full_like(delta[:, :1], -1.0))  # `one_hot` would make the host wait
        gradient = (delta * known[:, None]).T @ rows
        total = all_sum(torch.cat([gradient.flatten(), known.sum()[None].to(gradient.dtype)]))
        self.weight.grad = (total[:-1] / total[-1].clamp(min=1)).view_as(self.weight)
        self.optimizer.step()
        return hits

    @torch.no_grad()
    def loss(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy `[]` in nats and accuracy `[]` on labelled rows, without learning; NaN where there is none."""
        rows, known = self._rows(features, labels)
        logits, labels = (rows @ self.weight.T)[known], labels[known]
        return F.cross_entropy(logits, labels), (logits.argmax(1) == labels).double().mean()

    def _rows(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Rows with a column of ones, in float32; and which of them are labelled and finite: the others are zeros."""
        unit = F.normalize(features.detach().float(), dim=1)
        rows = F.pad(unit * features.shape[1] ** 0.5, (0, 1), value=1.0)
        known = rows.isfinite().all(1) & (labels >= 0) & (labels < self.num_classes)
        return torch.where(known[:, None], rows, 0.0), known

    def state_dict(self) -> dict[str, Any]:
        """Weights and the optimiser's state."""
        return {"weight": self.weight.clone(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them up.

        Raises:
            ValueError: they are of another number of features or classes.
        """
        if state["weight"].shape != self.weight.shape:
            raise ValueError(
                f"the state's probe must be [C, D + 1] = {list(self.weight.shape)}, got {list(state['weight'].shape)}."
            )
        self.weight.copy_(state["weight"])
        self.optimizer.load_state_dict(state["optimizer"])
