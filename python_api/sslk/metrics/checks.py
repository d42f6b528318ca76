"""The argument checks that metrics over representations share."""

from collections.abc import Sequence

from torch import Tensor


def check_features(h: Tensor, num_features: int, name: str = "h") -> None:
    """Refuse anything but floating-point `[n, num_features]`.

    Raises:
        ValueError: with the shape and dtype that came.
    """
    if h.dim() != 2 or h.shape[1] != num_features or not h.is_floating_point():
        shape = list(h.shape)
        raise ValueError(f"{name} must be floating-point [n, {num_features}], got {h.dtype} {shape}.")


def check_widths(num_features: Sequence[int]) -> tuple[int, ...]:
    """The widths of V representations as a tuple.

    Raises:
        ValueError: there are none, or one is not positive.
    """
    if not num_features or min(num_features) < 1:
        raise ValueError(f"num_features must hold the width of every representation, got {list(num_features)}.")
    return tuple(num_features)


def check_representations(representations: Sequence[Tensor], num_features: Sequence[int]) -> None:
    """Refuse anything but V floating-point matrices of equal rows and the given widths.

    Raises:
        ValueError: with what came.
    """
    if len(representations) != len(num_features):
        raise ValueError(f"update needs {len(num_features)} representations, got {len(representations)}.")
    for number, (x, width) in enumerate(zip(representations, num_features, strict=True)):
        check_features(x, width, f"representation {number}")
    if len({len(x) for x in representations}) > 1:
        raise ValueError(f"representations must have equal rows, got {[len(x) for x in representations]}.")
