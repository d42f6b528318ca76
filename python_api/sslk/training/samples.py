"""What an encoder of one arm gives for every evaluation image: all that comparisons of arms need."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from sslk.files.tensors import read_tensors, require_tensors
from sslk.results.atomic import write_atomically

SAMPLES = "samples.safetensors"
_FORMAT = "sslk-arm-samples-1"


@dataclass(frozen=True, eq=False)
class ArmSamples:
    """Of every evaluation image that has an answer, or of every one where there are no labels.

    Attributes:
        index: int64 `[N]`, the image's place in its data set.
        scores: float32 `[N]`, Q-Scores with the set S of the start.
        active: int32 `[N]`, `|L_i|`.
        correct: bool `[N]`, whether the probe was right; None without labels.
    """

    index: Tensor
    scores: Tensor
    active: Tensor
    correct: Tensor | None

    def save(self, path: str | PathLike[str], *, half: bool = False) -> None:
        """Write one safetensors file, atomically.

        Args:
            path: the file; its folder is made.
            half: scores as float16, at a third of the size: their mean then moves by less than 1e-6, and AUROC by less than 1e-3.
        """
        tensors = {"scores": self.scores.half() if half else self.scores, "active": self.active}
        if not torch.equal(self.index, torch.arange(len(self.index))):
            tensors["index"] = self.index
        if self.correct is not None:
            tensors["correct"] = self.correct
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(Path(path), save({name: t.contiguous() for name, t in tensors.items()}, {"format": _FORMAT}))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> ArmSamples:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: the arm has not been evaluated.
            ValueError: the file is damaged or holds something else.

        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / SAMPLES
        >>> ArmSamples(torch.arange(3), torch.rand(3), torch.ones(3, dtype=torch.int32), None).save(path)
        >>> ArmSamples.load(path).index.tolist()
        [0, 1, 2]
        """
        if not Path(path).exists():
            raise FileNotFoundError(f"{path} does not exist: the arm has not been evaluated; give the command again.")
        tensors, metadata = read_tensors(path, "the arm's samples")
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"{path} holds no samples of an arm (format {str(metadata.get('format'))[:40]!r}).")
        tensors = {name: tensor.float() if name == "scores" else tensor for name, tensor in tensors.items()}
        if "scores" in tensors:
            tensors.setdefault("index", torch.arange(len(tensors["scores"])))
        wanted = {"index": "int64 1", "scores": "float32 1", "active": "int32 1"}
        require_tensors(tensors, wanted | ({"correct": "bool 1"} if "correct" in tensors else {}), str(path), ValueError)
        if len({len(tensor) for tensor in tensors.values()}) > 1:
            raise ValueError(f"{path} is damaged: its tensors must have one length.")
        return cls(tensors["index"], tensors["scores"], tensors["active"], tensors.get("correct"))
