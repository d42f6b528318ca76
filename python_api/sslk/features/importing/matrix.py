"""The features `[N, D]` of an import, converted and cut into blocks of rows."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslk.features.importing.sources import Source
from sslk.features.intact import dtype_of
from sslk.progress import Progress

PIECE = 16 << 20  # bytes read at once
_EXACT = {"float32": 1 << 24, "float16": 1 << 11, "bfloat16": 1 << 8}  # up to here every whole number is one of these


@dataclass(frozen=True)
class Matrix:
    """Features `[N, D]`, read block by block.

    Attributes:
        source: where they come from.
        rows: N.
        width: D.
        dtype: in which they are stored.
    """

    source: Source
    rows: int
    width: int
    dtype: str

    @classmethod
    def of(cls, source: Source, dtype: str | None) -> Matrix:
        """Check shape and dtype, and say what is converted.

        Raises:
            ValueError: not `[N, D]`, empty, or no real numbers.
        """
        if source.dtype == "void":  # it could not be opened: reading says why
            next(source.pieces(1))
        shape = list(source.shape)
        while len(shape) > 2 and shape[-1] == 1:
            shape.pop()
        if len(shape) != len(source.shape):
            warnings.warn(f"{source.where} is {list(source.shape)}, taken as {shape}.", stacklevel=4)
        if len(shape) != 2:
            advice = {
                1: "one row per sample is needed",
                3: "choose a token or the mean over tokens first, such as x[:, 0] or x.mean(1)",
                4: "pool the feature map first, such as x.mean((2, 3))",
            }.get(len(shape), "one row per sample is needed")
            raise ValueError(f"features must be [N, D], got {list(source.shape)} in {source.where}: {advice}.")
        if 0 in shape:
            raise ValueError(f"features must not be empty, got {shape} in {source.where}.")
        if not source.is_number or source.dtype.startswith("complex"):
            hint = "; NumPy writes bfloat16 so: use .pt, .safetensors or float32" if source.dtype.startswith("void") else ""
            raise ValueError(f"features must be real numbers, got {source.dtype} in {source.where}{hint}.")
        kept = source.dtype if source.dtype in _EXACT else "float32"
        if (dtype or kept) != source.dtype:
            kind = "numbers, one feature each (packed bits: unpack them first)" if "int" in source.dtype else "numbers"
            warnings.warn(f"{source.where} holds {source.dtype} {kind}, stored as {dtype or kept}.", stacklevel=4)
        return cls(source, shape[0], shape[1], dtype or kept)

    def blocks(self, rows: int) -> Iterator[Tensor]:
        """The rows in order as tensors in the stored dtype; every block has `rows` rows but the last.

        Raises:
            ValueError: a number does not fit the dtype, or there are fewer or more rows than were declared.
        """
        most = max(1, min(rows, PIECE // (self.width * 8)))
        block, filled, left = torch.empty(0), 0, self.rows
        for piece in self.source.pieces(most):
            part = self._converted(piece)
            if len(part) > left - filled:
                raise ValueError(f"{self.source.where} holds more than the {self.rows} rows that it declares.")
            while len(part):
                size = min(rows, left)
                if not filled:
                    if len(part) >= size:
                        yield part[:size]
                        part, left = part[size:], left - size
                        continue
                    block = torch.empty(size, self.width, dtype=part.dtype)
                taken = min(size - filled, len(part))
                block[filled : filled + taken] = part[:taken]
                part, filled = part[taken:], filled + taken
                if filled == size:
                    yield block
                    block, filled, left = torch.empty(0), 0, left - size  # let go of, before the next one is filled
        if left:
            raise ValueError(
                f"{self.source.where} ends after {self.rows - left + filled} of the {self.rows} rows that it declares."
            )

    def _converted(self, piece: Any) -> Tensor:
        """In the stored dtype, every number the same or the nearest."""
        if not isinstance(piece, Tensor):
            array = np.asarray(piece)
            if array.dtype.kind in "iub" and array.size:
                self._require_exact(int(array.max(initial=0)), int(array.min(initial=0)))
            narrow = np.float16 if self.dtype == "float16" and array.dtype.itemsize > 2 else np.float32
            with np.errstate(over="ignore"):
                converted = torch.from_numpy(np.require(array, narrow, ["C", "W", "A"])).to(dtype_of(self.dtype))
            finite = torch.from_numpy(np.isfinite(array)) if array.dtype.kind == "f" and array.dtype != self.dtype else None
        else:
            piece = piece.detach().cpu()
            if not piece.is_floating_point() and piece.numel():
                self._require_exact(int(piece.max()), int(piece.min()))
            converted = piece.to(dtype_of(self.dtype))
            finite = None if converted.dtype == piece.dtype else torch.isfinite(piece)
        if finite is not None and bool((finite & ~torch.isfinite(converted)).any()):
            raise ValueError(
                f"{self.source.where} holds numbers that do not fit {self.dtype}: choose another dtype, or scale them."
            )
        if converted.numel() != len(converted) * self.width:
            raise ValueError(
                f"{self.source.where} must have rows of one length, got {list(converted.shape[1:])} and {self.width}."
            )
        return converted.reshape(len(converted), self.width).contiguous()

    def _require_exact(self, most: int, least: int) -> None:
        if max(most, -least) > _EXACT[self.dtype]:
            raise ValueError(
                f"{self.source.where} holds whole numbers up to {max(most, -least)}, which {self.dtype} cannot tell apart: "
                "these look like labels or indices, or convert them first."
            )


@dataclass(frozen=True)
class Survey:
    """What one pass over the features finds.

    Attributes:
        content: SHA-256 of the stored numbers, row after row, whatever file they came from.
        signed: whether one is negative.
        nonfinite: rows with a NaN or an infinity.
        zero: rows of zeros.
    """

    content: str
    signed: bool
    nonfinite: int
    zero: int


def survey(matrix: Matrix, progress: Progress | None = None) -> Survey:
    """Read the features once."""
    digest = hashlib.sha256(f"{matrix.dtype} {matrix.rows} {matrix.width};".encode())
    signed, nonfinite, zero, done = False, 0, 0, 0
    for block in matrix.blocks(max(1, PIECE // (4 * matrix.width))):
        digest.update(block.view(torch.uint8).numpy().data)
        signed = signed or bool((block < 0).any())
        nonfinite += int((~torch.isfinite(block)).any(1).sum())
        zero += int((block == 0).all(1).sum())
        done += len(block)
        if progress is not None:
            progress(done, matrix.rows, "hashing")
    return Survey(digest.hexdigest(), signed, nonfinite, zero)
