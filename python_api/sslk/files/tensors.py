"""Safetensors files by a name that a user or another file gave."""

from __future__ import annotations

from os import PathLike

from torch import Tensor

from sslk.files.regular import is_utf8, require_regular_file


def read_tensors(
    path: str | PathLike[str], what: str, error: type[ValueError] = ValueError
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, mapped into memory, and its metadata.

    Args:
        path: the file.
        what: it is, for the message.
        error: raised where it is no such file.

    Raises:
        error: no regular file, truncated, or no safetensors.
        FileNotFoundError: it does not exist.

    Examples:
        >>> read_tensors("/dev/null", "the table")
        Traceback (most recent call last):
        ValueError: the table /dev/null must be a regular file.
    """
    from safetensors import safe_open

    try:
        require_regular_file(path, what)
    except ValueError as problem:
        raise error(str(problem)) from None
    if not is_utf8(path):
        raise error(f"{what} {path} cannot be read: safetensors takes names in UTF-8 only, rename the file or folder.")
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except Exception as problem:  # a dtype that torch lacks makes it fail in ways that are not documented
        reason = (str(problem) or type(problem).__name__).splitlines()[0][:200]
        raise error(f"{what} {path} cannot be read as safetensors ({reason}).") from None


def require_tensors(tensors: dict[str, Tensor], wanted: dict[str, str], where: str, error: type[ValueError]) -> None:
    """Refuse a file that holds other tensors than the wanted ones, given as dtype and dimensions: `"int64 2"`.

    Examples:
        >>> import torch
        >>> require_tensors({"sizes": torch.zeros(3)}, {"sizes": "int64 2"}, "masks", ValueError)
        Traceback (most recent call last):
        ValueError: masks must hold sizes: int64 2, it holds sizes: float32 1.
    """
    found = {name: f"{tensor.dtype}".removeprefix("torch.") + f" {tensor.ndim}" for name, tensor in tensors.items()}
    if found != wanted:
        listed = [", ".join(f"{name}: {kind}" for name, kind in sorted(each.items())) for each in (wanted, found)]
        raise error(f"{where} must hold {listed[0]}, it holds {listed[1] or 'nothing'}.")
