"""How the ops meet autograd: first derivatives, forward mode, torch.func, and refusals where there is none.

Each op gets one `torch.autograd.Function`, used under torch.func's transforms and wherever an input is differentiated.
An op without a derivative is refused in one sentence when the derivative is asked for, never answered with zeros.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

# Kernels last as long as the library object that registered them.
_library = torch.library.Library("sslk", "IMPL")

Rule = Callable[..., Any]


def _refuse(name: str, what: str) -> None:
    raise RuntimeError(f"sslk::{name}: {what}; detach its input, or use ssl_kernels.reference.")


def _tensors(arguments: tuple) -> list[Tensor]:
    return [a for a in arguments if isinstance(a, Tensor)]


def _has_tangent(arguments: tuple) -> bool:
    return any(
        forward_ad._current_level >= 0 and a.is_floating_point() and forward_ad.unpack_dual(a).tangent is not None
        for a in _tensors(arguments)
    )


def _is_differentiated(arguments: tuple) -> bool:
    return torch.is_grad_enabled() and any(a.requires_grad for a in _tensors(arguments))


def one_by_one(apply: Rule, info: Any, in_dims: tuple, *arguments: Any) -> tuple:
    """The op on each element of a vmap's batch; lists of numbers have a list of dimensions, which are None."""
    batched = [d if isinstance(a, Tensor) else None for a, d in zip(arguments, in_dims, strict=True)]
    results = [
        apply(*(a if d is None else a.select(d, i) for a, d in zip(arguments, batched, strict=True)))
        for i in range(info.batch_size)
    ]
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    return tuple(torch.stack(parts) for parts in zip(*results, strict=True)), (0,) * len(results[0])


def _function(name: str, setup: Rule, backward: Rule, jvp: Rule, vmap: Rule) -> Any:
    op = getattr(torch.ops.sslk, name).default

    def forward(*arguments: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return op(*arguments)

    methods = {"forward": forward, "setup_context": setup, "backward": backward, "jvp": jvp, "vmap": vmap}
    return type(name, (torch.autograd.Function,), {key: staticmethod(rule) for key, rule in methods.items()})


def _register(name: str, function: Any, on_tangent: Rule, on_gradient: Rule) -> None:
    """The kernels above the device's: autograd's, and that of torch.func's transforms."""
    op = getattr(torch.ops.sslk, name).default
    defaults = tuple(a.default_value for a in op._schema.arguments if a.has_default_value())
    count = len(op._schema.arguments)

    def with_defaults(arguments: tuple) -> tuple:
        missing = count - len(arguments)
        return arguments + (defaults[-missing:] if missing else ())

    def autograd(keyset: Any, *arguments: Any) -> Any:
        if _has_tangent(arguments):
            return on_tangent(*with_defaults(arguments))
        if _is_differentiated(arguments):
            return on_gradient(*with_defaults(arguments))
        with torch._C._AutoDispatchBelowAutograd():
            return op.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)

    _library.impl(name, autograd, "Autograd", with_keyset=True)
    _library.impl(name, lambda *a: function.apply(*with_defaults(a)), "FuncTorchDynamicLayerFrontMode")


def differentiable(name: str, setup: Rule, backward: Rule, jvp: Rule | None = None, vmap: Rule | None = None) -> None:
    """Give an op its first derivative.

    Args:
        name: of the op in `torch.ops.sslk`.
        setup: `setup_context` of the `torch.autograd.Function`, called with all arguments, defaults too.
        backward: its `backward`.
        jvp: its `jvp`; forward mode is refused without.
        vmap: a rule for `torch.func.vmap` that takes the op's own function first; one element at a time without.
    """
    no_forward = functools.partial(_refuse, name, "no forward-mode derivative, only the gradient")
    above: Any = _function(
        name, setup, backward, jvp or (lambda ctx, *_: no_forward()), lambda *a: (vmap or one_by_one)(above.apply, *a)
    )
    _register(name, above, above.apply if jvp else lambda *_: no_forward(), above.apply)


def _underivable(name: str, what: str, vmap: Rule | None) -> Any:
    def refuse(ctx: Any, *_: Any) -> None:
        _refuse(name, what)

    above: Any = _function(
        name, lambda ctx, inputs, output: None, refuse, refuse, lambda *a: (vmap or one_by_one)(above.apply, *a)
    )
    return above


def first_order(name: str, forward: str, vmap: Rule | None = None) -> None:
    """Refuse the derivative of an op that is itself the backward of the op `forward`."""
    what = f"no second derivative of sslk::{forward} (create_graph=True, or torch.func applied twice)"
    function = _underivable(name, what, vmap)

    def refuse(*_: Any) -> None:
        _refuse(name, what)

    _register(name, function, refuse, refuse)


def constant(name: str) -> None:
    """An op without a derivative: its outputs never require grad, and forward mode and torch.func are refused."""
    what = "not differentiable"
    op = getattr(torch.ops.sslk, name).default

    def detached(*arguments: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return op(*arguments)

    _register(name, _underivable(name, what, None), lambda *_: _refuse(name, what), detached)


def in_place(name: str, written: tuple[str, ...]) -> None:
    """An op that changes arguments outside of autograd: no gradient may need them, and their versions count up."""
    op = getattr(torch.ops.sslk, name).default
    places = [i for i, a in enumerate(op._schema.arguments) if a.name in written]

    def autograd(keyset: Any, *arguments: Any) -> Any:
        for i in places:
            if torch.is_grad_enabled() and arguments[i].requires_grad:
                raise RuntimeError(
                    f"sslk::{name}: {op._schema.arguments[i].name} requires grad and is changed in place, without a "
                    "gradient; call it under torch.no_grad()."
                )
        if _has_tangent(arguments):
            _refuse(name, "not differentiable")
        with torch._C._AutoDispatchBelowAutograd():
            return op.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)

    def count_up(keyset: Any, *arguments: Any) -> Any:
        result = op.redispatch(keyset & torch._C._after_ADInplaceOrView_keyset, *arguments)
        torch.autograd.graph.increment_version(arguments[i] for i in places)
        return result

    def refuse(*_: Any) -> None:
        raise RuntimeError(f"sslk::{name}: not for torch.func, because it changes its arguments in place.")

    _library.impl(name, autograd, "Autograd", with_keyset=True)
    _library.impl(name, count_up, "ADInplaceOrView", with_keyset=True)
    _library.impl(name, refuse, "FuncTorchDynamicLayerFrontMode")
