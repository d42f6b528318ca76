"""What the ops demand of their arguments, in the words of the kernels.

One function per op, with its signature and name. They stand before the ops' fakes, so that a meta tensor, a tensor of
`torch.compile` or one on another device is refused as a kernel would refuse it, and before the reference on devices
without kernels. `csrc/*/args.h` says the same in C++; a test compares the two sentence by sentence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_NAMES = (
    *("float64", "float32", "float16", "bfloat16", "bool", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "complex32", "complex64", "complex128"),
    *("float8_e5m2", "float8_e4m3fn", "float8_e5m2fnuz", "float8_e4m3fnuz"),
)
_FLOATING = ("float64", "float32", "float16", "bfloat16")


def _name(dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    return name if name in _NAMES else "an unsupported dtype"


def _dtype(t: Tensor | None) -> str:
    return "None" if t is None else _name(t.dtype)


def _shape(t: Tensor) -> str:
    return _listed(t.shape)


def _listed(numbers: Sequence[int]) -> str:
    return f"[{', '.join(str(n) for n in numbers)}]"


def _device(t: Tensor) -> str:
    return str(t.device) if t.device.type in ("cpu", "cuda", "meta") else "another device"


def accumulation(t: Tensor) -> torch.dtype:
    """The dtype of scores and sums: float64 for float64, else float32."""
    return torch.float64 if t.dtype == torch.float64 else torch.float32


def _must(condition: bool | torch.SymBool, op: str, sentence: Callable[[], str]) -> None:
    """Sizes may be symbols: the sentence is put together only when it is needed, and a condition becomes a guard."""
    torch._check(condition, lambda: f"sslk::{op}: {sentence()}")


def _is_shape(t: Tensor, *sizes: int) -> bool:
    return t.dim() == len(sizes) and all(found == size for found, size in zip(t.shape, sizes, strict=True))


def _floating(op: str, name: str, t: Tensor) -> None:
    _must(_name(t.dtype) in _FLOATING, op, lambda: f"{name} must be float64, float32, float16 or bfloat16, got {_name(t.dtype)}.")


def _bool(op: str, name: str, what: str, t: Tensor | None) -> None:
    """None is what comes where a mask was forgotten."""
    _must(t is not None and t.dtype == torch.bool, op, lambda: f"{name} must be {what}, got {_dtype(t)}.")


def _same_device(op: str, name: str, t: Tensor, other: str, like: Tensor) -> None:
    _must(t.device == like.device, op, lambda: f"{name} must be on the device of {other}, {_device(like)}, got {_device(t)}.")


def _matrix(op: str, name: str, t: Tensor) -> None:
    _must(t.dim() == 2, op, lambda: f"{name} must be a matrix [N, D], got shape {_shape(t)}.")
    _must(t.shape[1] > 0, op, lambda: f"{name} must have at least one feature (D > 0), got shape {_shape(t)}.")
    _floating(op, name, t)


def _zero_or_positive(op: str, name: str, value: float) -> None:
    _must(value >= 0.0, op, lambda: f"{name} must be zero or positive, got {value:g}.")


def _scored(op: str, h: Tensor, discriminative: Tensor, eps: float) -> None:
    _matrix(op, "h", h)
    _bool(op, "discriminative", "a bool mask", discriminative)
    _must(
        _is_shape(discriminative, h.shape[1]),
        op,
        lambda: f"discriminative must have one entry per feature, shape [{h.shape[1]}], got {_shape(discriminative)}.",
    )
    _same_device(op, "discriminative", discriminative, "h", h)
    _zero_or_positive(op, "eps", eps)


def _vector(op: str, name: str, v: Tensor, size: int, h: Tensor) -> None:
    _must(_is_shape(v, size), op, lambda: f"{name} must have shape [{size}], got {_shape(v)}.")
    _must(
        v.dtype == accumulation(h),
        op,
        lambda: f"{name} must be {_name(accumulation(h))} for h of {_name(h.dtype)}, got {_name(v.dtype)}.",
    )
    _same_device(op, name, v, "h", h)


def qscore(h: Tensor, discriminative: Tensor, eps: float = 4.0, normalize: bool = True, two_sided: bool = False) -> None:
    _scored("qscore", h, discriminative, eps)


def qscore_counts(h: Tensor, discriminative: Tensor, eps: float = 4.0, normalize: bool = True, two_sided: bool = False) -> None:
    _scored("qscore_counts", h, discriminative, eps)


def qscore_backward(grad: Tensor, h: Tensor, discriminative: Tensor, eps: float, normalize: bool, two_sided: bool) -> None:
    _scored("qscore_backward", h, discriminative, eps)
    _vector("qscore_backward", "grad", grad, h.shape[0], h)


def activating_mask(h: Tensor, eps: float = 4.0, two_sided: bool = False) -> None:
    _matrix("activating_mask", "h", h)
    _zero_or_positive("activating_mask", "eps", eps)


def activation_counts(h: Tensor, eps: float = 4.0, two_sided: bool = False) -> None:
    _matrix("activation_counts", "h", h)
    _zero_or_positive("activation_counts", "eps", eps)


def row_moments(h: Tensor) -> None:
    _matrix("row_moments", "h", h)


def column_l1(h: Tensor, normalize: bool = True) -> None:
    _matrix("column_l1", "h", h)


def column_l1_backward(grad: Tensor, h: Tensor, normalize: bool) -> None:
    _matrix("column_l1_backward", "h", h)
    _vector("column_l1_backward", "grad", grad, h.shape[1], h)


def qscore_penalty(
    h: Tensor,
    discriminative: Tensor,
    lambda1: float = 1e-4,
    lambda2: float = 1e-4,
    eps: float = 4.0,
    normalize: bool = True,
    two_sided: bool = False,
    alpha: Tensor | None = None,
    beta: Tensor | None = None,
) -> None:
    op = "qscore_penalty"
    _scored(op, h, discriminative, eps)
    _zero_or_positive(op, "lambda1", lambda1)
    _zero_or_positive(op, "lambda2", lambda2)
    for name, t in (("alpha", alpha), ("beta", beta)):
        if t is not None:
            _number(op, name, t, h)


def _number(op: str, name: str, t: Tensor, h: Tensor) -> None:
    _must(t.numel() == 1, op, lambda: f"{name} must hold one number, got shape {_shape(t)}.")
    _must(t.dtype == accumulation(h), op, lambda: f"{name} must be {_name(accumulation(h))}, got {_name(t.dtype)}.")
    _same_device(op, name, t, "h", h)


def qscore_penalty_backward(
    grad_q: Tensor, grad_column_l1: Tensor, h: Tensor, discriminative: Tensor, eps: float, normalize: bool, two_sided: bool
) -> None:
    op = "qscore_penalty_backward"
    _scored(op, h, discriminative, eps)
    _vector(op, "grad_q", grad_q, h.shape[0], h)
    _vector(op, "grad_column_l1", grad_column_l1, h.shape[1], h)


def _batched(op: str, name: str, shape: str, t: Tensor) -> None:
    _must(t.dim() == 3, op, lambda: f"{name} must have shape {shape}, got {_shape(t)}.")
    _must(t.shape[2] > 0, op, lambda: f"{name} must have at least one feature (D > 0), got shape {_shape(t)}.")
    _floating(op, name, t)


def _enough_samples(op: str, x: Tensor, needed: int, purpose: str) -> None:
    if x.shape[0] != 0:
        _must(x.shape[1] >= needed, op, lambda: f"x must have at least {needed} samples (N){purpose}, got shape {_shape(x)}.")


def _cka_samples(op: str, x: Tensor, debiased: bool) -> None:
    _enough_samples(op, x, 4 if debiased else 2, f" for {'debiased' if debiased else 'biased'} CKA")


def _cka_gradient(op: str, grad: Tensor, sizes: tuple[int, ...], x: Tensor) -> None:
    _must(_is_shape(grad, *sizes), op, lambda: f"grad must have the shape of the output, got {_shape(grad)}.")
    _must(grad.dtype == accumulation(x), op, lambda: f"grad must be {_name(accumulation(x))}, got {_name(grad.dtype)}.")
    _same_device(op, "grad", grad, "x", x)


def _pairs(op: str, x: Tensor, y: Tensor, debiased: bool) -> None:
    _batched(op, "x", "[B, N, D1]", x)
    _batched(op, "y", "[B, N, D2]", y)
    _must(
        x.shape[:2] == y.shape[:2],
        op,
        lambda: f"y must have the batch and samples of x, [{x.shape[0]}, {x.shape[1]}, D2], got {_shape(y)}.",
    )
    _must(x.dtype == y.dtype, op, lambda: f"y must have the dtype of x, {_name(x.dtype)}, got {_name(y.dtype)}.")
    _same_device(op, "y", y, "x", x)
    _cka_samples(op, x, debiased)


def linear_cka(x: Tensor, y: Tensor, debiased: bool = True) -> None:
    _pairs("linear_cka", x, y, debiased)


def linear_cka_backward(grad: Tensor, x: Tensor, y: Tensor, debiased: bool) -> None:
    _pairs("linear_cka_backward", x, y, debiased)
    _cka_gradient("linear_cka_backward", grad, (x.shape[0],), x)


def cka_matrix(x: Tensor, debiased: bool = True) -> None:
    _batched("cka_matrix", "x", "[V, N, D]", x)
    _cka_samples("cka_matrix", x, debiased)


def cka_matrix_backward(grad: Tensor, x: Tensor, debiased: bool) -> None:
    op = "cka_matrix_backward"
    _batched(op, "x", "[V, N, D]", x)
    _cka_samples(op, x, debiased)
    _cka_gradient(op, grad, (x.shape[0], x.shape[0]), x)


def cca_matrix(x: Tensor, rtol: float | None = None, ridge: float = 0.0) -> None:
    op = "cca_matrix"
    _batched(op, "x", "[V, N, D]", x)
    _enough_samples(op, x, 2, "")
    if rtol is not None:
        _must(0.0 <= rtol < 1.0, op, lambda: f"rtol must be at least 0 and less than 1, got {rtol:g}.")
    _must(0.0 <= ridge < math.inf, op, lambda: f"ridge must be finite and zero or positive, got {ridge:g}.")


def kmeans_assign(x: Tensor, centroids: Tensor) -> None:
    op = "kmeans_assign"
    _matrix(op, "x", x)
    _must(
        centroids.dim() == 2 and centroids.shape[1] == x.shape[1],
        op,
        lambda: f"centroids must be a matrix with the features of x, [K, {x.shape[1]}], got shape {_shape(centroids)}.",
    )
    for bounded in (centroids.shape[0] > 0, centroids.shape[0] <= 2**31 - 1):
        _must(bounded, op, lambda: f"centroids must hold between 1 and 2^31 - 1 of them, got shape {_shape(centroids)}.")
    _must(
        centroids.dtype == x.dtype,
        op,
        lambda: f"centroids must have the dtype of x, {_name(x.dtype)}, got {_name(centroids.dtype)}.",
    )
    _same_device(op, "centroids", centroids, "x", x)


def _radius(op: str, radius: float | None) -> None:
    if radius is not None:
        _must(
            0.0 <= radius < math.inf, op, lambda: f"radius must be a finite number of pixels, zero or positive, got {radius:g}."
        )


def masked_variants(
    images: Tensor,
    foreground: Tensor | None,
    mean: Sequence[float],
    std: Sequence[float],
    variants: Sequence[int],
    radius: float | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    op = "masked_variants"
    _must(images.dim() == 4, op, lambda: f"images must have shape [N, C, H, W], got {_shape(images)}.")
    _must(
        _name(images.dtype) in (*_FLOATING, "uint8"),
        op,
        lambda: f"images must be uint8 (0 to 255) or floating point (0 to 1), got {_name(images.dtype)}.",
    )
    channels = images.shape[1]
    for name, values in (("mean", mean), ("std", std)):
        _must(
            len(values) == channels,
            op,
            lambda name=name, values=values: (
                f"{name} must have one number per channel ({channels}), "  # type: ignore[misc]
                f"got {len(values)}."
            ),
        )
    for s in std:
        _must(s > 0.0, op, lambda s=s: f"std must be positive in every channel, got {s:g}.")  # type: ignore[misc]
    _must(len(variants) > 0, op, lambda: "variants must name at least one variant, 0 to 4.")
    for v in variants:
        _must(
            0 <= v <= 4,
            op,
            lambda v=v: (
                "variants must be 0 (original), 1 (foreground), 2 (background), "  # type: ignore[misc]
                f"3 (center) or 4 (border), got {v}."
            ),
        )
    _radius(op, radius)
    _must(
        dtype in (None, torch.float32, torch.float16, torch.bfloat16),
        op,
        lambda: f"dtype must be float32, float16 or bfloat16, got {_name(dtype or torch.float32)}.",
    )
    if foreground is None:
        _must(not {1, 2} & set(variants), op, lambda: "foreground must be given for variants 1 (foreground) and 2 (background).")
    else:
        _foreground(op, foreground, images)


def _foreground(op: str, foreground: Tensor, images: Tensor) -> None:
    n, _, height, width = images.shape
    _bool(op, "foreground", "a bool mask", foreground)
    _must(
        _is_shape(foreground, n, height, width),
        op,
        lambda: f"foreground must have shape [N, H, W] = [{n}, {height}, {width}], got {_shape(foreground)}.",
    )
    _same_device(op, "foreground", foreground, "images", images)


def circular_mask(height: int, width: int, radius: float | None = None) -> None:
    for name, size in (("height", height), ("width", width)):
        _must(size >= 0, "circular_mask", lambda name=name, size=size: f"{name} must be zero or positive, got {size}.")  # type: ignore[misc]
    _radius("circular_mask", radius)


def heatmap_iou(heat: Tensor, mask: Tensor, threshold: float = 0.0) -> None:
    op = "heatmap_iou"
    _must(heat.dim() == 3, op, lambda: f"heat must have shape [N, H, W], got {_shape(heat)}.")
    _floating(op, "heat", heat)
    _bool(op, "mask", "bool", mask)
    _must(_is_shape(mask, *heat.shape), op, lambda: f"mask must have the shape of heat, {_shape(heat)}, got {_shape(mask)}.")
    _same_device(op, "mask", mask, "heat", heat)
    _must(not math.isnan(threshold), op, lambda: "threshold must be a number, got NaN.")


def sparse_softmax_sgd_(
    weight: Tensor,
    bias: Tensor,
    weight_velocity: Tensor,
    bias_velocity: Tensor,
    columns: Tensor,
    offsets: Tensor,
    target: Tensor,
    index: Tensor,
    learning_rate: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> None:
    op = "sparse_softmax_sgd_"
    written = {"weight": weight, "bias": bias, "weight_velocity": weight_velocity, "bias_velocity": bias_velocity}
    read = {"columns": columns, "offsets": offsets, "target": target, "index": index}
    _must(
        weight.dtype in (torch.float32, torch.float64),
        op,
        lambda: f"weight must be float32 or float64, got {_name(weight.dtype)}.",
    )
    _must(
        weight.dim() == 3 and weight.numel() > 0,
        op,
        lambda: f"weight must hold tiles of columns, [T, M, W] with none of them 0, got shape {_shape(weight)}.",
    )
    tiles, rows, width = weight.shape
    _must(rows <= 2**31 - 1, op, lambda: f"weight must have fewer than 2^31 rows, got {rows}.")
    _must(
        bias.dim() == 1 and bias.shape[0] > width * (tiles - 1) and bias.shape[0] <= width * tiles,
        op,
        lambda: (
            "bias must have one entry per class, [K], with W (T - 1) < K <= W T for weight [T, M, W] = "
            f"{_shape(weight)}, got shape {_shape(bias)}."
        ),
    )
    for name, t, like in (("weight", weight_velocity, weight), ("bias", bias_velocity, bias)):
        _must(
            _is_shape(t, *like.shape),
            op,
            lambda name=name, t=t, like=like: (
                f"{name}_velocity must have the shape of {name}, "  # type: ignore[misc]
                f"{_shape(like)}, got {_shape(t)}."
            ),
        )
    for name, t in written.items():
        _written(op, name, t, weight)
    for name, t in read.items():
        _index(op, name, t, torch.int32 if name == "columns" else torch.int64, weight)
    _must(
        offsets.shape[0] == target.shape[0] + 1,
        op,
        lambda: (
            f"offsets must have one entry more than target, which has one per row: got {offsets.shape[0]} and {target.shape[0]}."
        ),
    )
    for name, value in (("learning_rate", learning_rate), ("momentum", momentum), ("weight_decay", weight_decay)):
        _must(
            0.0 <= value < math.inf,
            op,
            lambda name=name, value=value: f"{name} must be finite and zero or positive, got {value:g}.",  # type: ignore[misc]
        )
    everything = list({**written, **read}.items())
    for i, (name, t) in enumerate(everything[: len(written)]):
        for other, u in everything[i + 1 :]:
            _must(
                not _share_memory(t, u),
                op,
                lambda name=name, other=other: (
                    f"{other} must not share memory with {name}, "  # type: ignore[misc]
                    "which is changed in place."
                ),
            )


def _written(op: str, name: str, t: Tensor, weight: Tensor) -> None:
    _must(
        t.dtype == weight.dtype, op, lambda: f"{name} must have the dtype of weight, {_name(weight.dtype)}, got {_name(t.dtype)}."
    )
    _must(t.is_contiguous(), op, lambda: f"{name} is changed in place and must be contiguous, got strides {_listed(t.stride())}.")
    _same_device(op, name, t, "weight", weight)


def _index(op: str, name: str, t: Tensor, dtype: torch.dtype, weight: Tensor) -> None:
    _must(
        t.dim() == 1 and t.dtype == dtype,
        op,
        lambda: f"{name} must be a vector of {_name(dtype)}, got {_name(t.dtype)} of shape {_shape(t)}.",
    )
    _must(t.is_contiguous(), op, lambda: f"{name} must be contiguous, got strides {_listed(t.stride())}.")
    _same_device(op, name, t, "weight", weight)


def _share_memory(a: Tensor, b: Tensor) -> bool:
    """Of two contiguous tensors; those without memory share it where they have one storage."""
    if a.untyped_storage()._cdata != b.untyped_storage()._cdata:
        return False
    (start, end), (first, last) = (
        (t.storage_offset() * t.element_size(), (t.storage_offset() + t.numel()) * t.element_size()) for t in (a, b)
    )
    return bool(start < last and first < end and start < end and first < last)
