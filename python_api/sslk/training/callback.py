"""The Q-Score regulariser for a Lightning module of someone else: lightly's, solo-learn's, or one's own."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

import ssl_kernels  # noqa: F401 (registers the ops)
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.quality.regularizer import QScoreRegularizer
from sslk.training.module import diagnostics


class QScoreCallback(pl.Callback):
    """Adds the Q-Score penalty to the loss of any `LightningModule`, reading the outputs of its backbone by a hook.

    Every output that the backbone gives in a training step with a gradient counts as representations, so views that
    are encoded one by one are taken together, as `[V N, D]`. Feature maps `[N, D, h, w]` are averaged over space.
    The penalty is added to what `training_step` returns: a tensor, or a dictionary with `loss`.

    Args:
        discriminative: what `discover` returned for this backbone, or a bool mask `[D]`.
        backbone: dotted name of the encoder in the module; `backbone` in lightly's and solo-learn's.
        lambda1, lambda2: weights of the two terms.
        **settings: further arguments of `QScoreRegularizer`.

    Raises:
        ValueError: at the start of fitting, where the module has no such sub-module or optimises by hand; in a step,
            where the backbone gave nothing with a gradient or another D.

    Examples:
        >>> from sslk.training.callback import QScoreCallback
        >>> callback = QScoreCallback(torch.arange(64) < 32, eps=1.0)   # pl.Trainer(callbacks=[callback])
        >>> callback.regularizer
        QScoreRegularizer(features=64, discriminative=32, lambda1=0.0001, lambda2=0.0001, eps=1)
    """

    def __init__(
        self,
        discriminative: DiscriminativeFeatures | Tensor,
        backbone: str = "backbone",
        lambda1: float = 1e-4,
        lambda2: float = 1e-4,
        **settings: Any,
    ) -> None:
        self.regularizer = QScoreRegularizer(discriminative, lambda1, lambda2, **settings)
        self.backbone = backbone
        self._outputs: list[Tensor] = []
        self._undo: Any = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if not pl_module.automatic_optimization:
            raise ValueError(
                f"{type(pl_module).__name__} optimises by hand: add sslk.QScoreRegularizer to its loss in training_step."
            )
        try:
            encoder = pl_module.get_submodule(self.backbone)
        except AttributeError:
            names = ", ".join(name for name, _ in pl_module.named_children())
            raise ValueError(
                f"backbone must name a sub-module of {type(pl_module).__name__}, got {self.backbone!r}; it has {names}."
            ) from None
        handle = encoder.register_forward_hook(self._record)
        step = pl_module.training_step

        def training_step(*args: Any, **kwargs: Any) -> Any:
            self._outputs.clear()
            return self._add_penalty(pl_module, step(*args, **kwargs))

        pl_module.training_step = training_step  # type: ignore[method-assign]

        def undo() -> None:
            handle.remove()
            del pl_module.training_step

        self._undo = undo

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._undo is not None:
            self._undo()
            self._undo = None
        self._outputs.clear()

    def _record(self, module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad and module.training:
            self._outputs.append(output.mean((2, 3)) if output.ndim == 4 else output)

    def _add_penalty(self, module: pl.LightningModule, result: Any) -> Any:
        if result is None:  # the module skips this batch
            return None
        if not self._outputs:
            raise ValueError(f"backbone {self.backbone!r} gave no representations with a gradient in this step.")
        h = torch.cat(self._outputs)
        self._outputs.clear()
        penalty = self.regularizer.to(h.device)(h)
        if (module.trainer.global_step + 1) % module.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            values = {f"qscore/{name}": value for name, value in diagnostics(self.regularizer, h).items()}
            module.log_dict(values | {"qscore/penalty": penalty.detach()})
        if isinstance(result, dict):
            return {**result, "loss": result["loss"] + penalty}
        return result + penalty
