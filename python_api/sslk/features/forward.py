"""The forward pass of extraction: without gradients, in the layout and precision asked for, in batches that fit the memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from sslk.features.identity import model_name
from sslk.features.intact import dtype_of
from sslk.features.memory import is_out_of_memory, kept_memory
from sslk.features.settings import ExtractSettings

_NO_VIEW = "view size is not compatible"  # of a tensor whose layout is not the one that the network was written for

Outputs = tuple[Tensor, ...]
"""The representations `[n, D_k]` of n images, one of every kind that is stored."""


def is_convolutional(model: nn.Module) -> bool:
    """Whether a network has a convolution whose windows overlap: those of ResNets do, a ViT's patch embedding does not.

    >>> is_convolutional(nn.Conv2d(3, 64, 3)), is_convolutional(nn.Conv2d(3, 64, 16, stride=16))
    (True, False)
    """
    convolutions = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    return any(k > s for module in convolutions for k, s in zip(module.kernel_size, module.stride, strict=True))


class Forward:
    """A model in eval mode under the settings of an extraction; its training flags and layout are restored on leaving.

    Convolutional networks run channels-last, which changes nothing but the order of sums; one that cannot (`view` on a
    map, say) runs as it is. A batch that does not fit the memory is halved, and so are all that follow.

    Args:
        model: gives one representation, or several where names are given.
        names: of the representations; None for a model with one.
        settings: precision, compilation.
        device: where the model is.

    Attributes:
        batch_size: images per pass, at most.
    """

    batch_size = 1

    def __init__(self, model: nn.Module, names: Sequence[str] | None, settings: ExtractSettings, device: torch.device) -> None:
        self.model, self.names, self.device = model, names, device
        self._call = getattr(model, "forward_several", model) if names is not None else model
        self._compile, self._amp = settings.compile, settings.amp
        self._reordered: list[nn.Parameter] = []
        self._layout = torch.channels_last if is_convolutional(model) else torch.contiguous_format
        self._stack = ExitStack()

    def __enter__(self) -> Forward:
        training = [module for module in self.model.modules() if module.training]
        with ExitStack() as stack:  # undone at once where something here fails
            stack.callback(_train, training)
            self.model.eval()
            if self.device.type == "cpu":
                stack.enter_context(kept_memory())
            # Outside of the inference mode: parameters assigned inside could not be trained afterwards.
            stack.callback(self._restore)
            if self._layout == torch.channels_last:
                self._reorder()
            stack.enter_context(torch.inference_mode())
            if self._amp != "off":
                _warn_if_imitated(self.device, self._amp)
                stack.enter_context(torch.autocast(self.device.type, dtype=dtype_of(self._amp)))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def first(self, image: Tensor) -> Outputs:
        """The representations `[1, D_k]` of one image, not compiled."""
        outputs = self._attempt(image[None], compiled=False)
        if outputs is None:
            raise self._too_large(image)
        return outputs

    def __call__(self, images: Tensor) -> Iterator[Outputs]:
        """The representations of `[n, C, H, W]`, of all images in one piece where they fit the memory.

        Raises:
            ValueError: the model gives something else, a single image does not fit, or the model cannot be compiled.
        """
        done = 0
        while done < len(images):
            rows = images[done : done + self.batch_size]
            outputs = self._attempt(rows, self._compile)
            if outputs is None:
                self._halve(self.batch_size if self._compile else len(rows), rows[0])
                continue
            done += len(rows)
            yield outputs

    def _attempt(self, rows: Tensor, compiled: bool) -> Outputs | None:
        """The representations, None where memory ran out; by then the frames that held memory are gone."""
        # Compiled for one shape: once, and with the same kernels in every run.
        computed = self.batch_size if compiled else len(rows)
        try:
            output = self._run(_padded(rows.to(self.device, non_blocking=True), computed), compiled)
            return tuple(_alone(part[: len(rows)]) for part in self._outputs(output, computed))
        except Exception as error:
            if is_out_of_memory(error):
                return None
            if self._layout != torch.channels_last or _NO_VIEW not in str(error):
                raise
        self._restore()
        return self._attempt(rows, compiled)

    def _run(self, rows: Tensor, compiled: bool) -> Any:
        if rows.dim() == 4:
            rows = rows.contiguous(memory_format=self._layout)
        if not compiled:
            return self._call(rows)
        from torch._dynamo.exc import TorchDynamoException  # the base of all that compilation raises; it has no public name

        try:
            return self._compiled(rows)
        except TorchDynamoException as error:
            if is_out_of_memory(error) or _NO_VIEW in str(error):
                raise
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ValueError(
                f"compile=True: torch.compile cannot compile {model_name(self.model)} ({reason.strip()}); leave compile out."
            ) from error

    @cached_property
    def _compiled(self) -> Callable[[Tensor], Any]:
        return torch.compile(self._call, dynamic=False)

    def _halve(self, tried: int, image: Tensor) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if tried == 1:
            raise self._too_large(image)
        self.batch_size = (tried + 1) // 2
        warnings.warn(
            f"{tried} images at once do not fit the memory of {self.device}: going on with batch_size {self.batch_size}.",
            stacklevel=2,
        )

    def _too_large(self, image: Tensor) -> ValueError:
        return ValueError(
            f"one image of shape {list(image.shape)} does not fit the memory of {self.device} under {model_name(self.model)}: "
            "take smaller images, amp='bfloat16' or another device."
        )

    def _outputs(self, output: Any, rows: int) -> Outputs:
        """The model's output as one representation per name, each refused unless it is `[rows, D]`."""
        if self.names is None:
            return (checked(output, rows),)
        if isinstance(output, Mapping):
            missing = [name for name in self.names if name not in output]
            if missing:
                raise ValueError(
                    f"out must name representations of the model, which are {', '.join(map(str, output))}; got {missing[0]!r}."
                )
            output = [output[name] for name in self.names]
        if not isinstance(output, tuple | list) or len(output) != len(self.names):
            found = f"{len(output)}" if isinstance(output, tuple | list) else type(output).__name__
            raise ValueError(f"model must return {len(self.names)} representations, as out names them, but gave {found}.")
        return tuple(checked(part, rows, name) for name, part in zip(self.names, output, strict=True))

    def _reorder(self) -> None:
        for parameter in self.model.parameters():
            plain = type(parameter) is nn.Parameter and parameter.dim() == 4 and parameter.is_contiguous()
            if plain and not parameter.is_contiguous(memory_format=torch.channels_last):
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
                self._reordered.append(parameter)

    def _restore(self) -> None:
        """Back to the layout that the parameters had."""
        self._layout = torch.contiguous_format
        with torch.inference_mode(False):
            while self._reordered:
                parameter = self._reordered.pop()
                parameter.data = parameter.data.contiguous()


def checked(output: object, rows: int, name: str = "") -> Tensor:
    """A representation, refused unless it is `[rows, D]`."""
    if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != rows or not output.is_floating_point():
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"model must return representations [n, D], but gave {found} for {rows} images{f' as {name}' if name else ''}: "
            "pool the feature map, or pass the backbone alone."
        )
    return output


def _padded(rows: Tensor, count: int) -> Tensor:
    """As many rows as asked for, the last one repeated."""
    missing = count - len(rows)
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows


def _alone(output: Tensor) -> Tensor:
    """The tensor without the larger one that it is a view of: a class token must not keep all tokens in memory."""
    return output if output.untyped_storage().nbytes() <= output.numel() * output.itemsize else output.clone()


def _train(modules: list[nn.Module]) -> None:
    for module in modules:
        module.training = True


def _warn_if_imitated(device: torch.device, amp: str) -> None:
    """Half precision is quicker only where the processor computes in it."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if device.type != "cpu" or capabilities.get("architecture") != "x86_64":
        return
    needed = {"bfloat16": ("avx512_bf16", "amx_bf16"), "float16": ("avx512_fp16", "amx_fp16")}[amp]
    if not any(capabilities.get(name) for name in needed):
        warnings.warn(f"amp={amp!r} is imitated by this processor, which has neither {' nor '.join(needed)}.", stacklevel=2)
