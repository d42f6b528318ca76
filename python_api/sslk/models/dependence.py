"""Which of a network's weights its representation depends on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def unused_parameters(net: nn.Module, images: Tensor) -> frozenset[str]:
    """Names, as in the state, of the parameters that do not change `net(images)`: a pooler beside the path, a mask token.

    Candidates are those that automatic differentiation does not reach; they are left out only if the output stays the
    same, bit by bit, with NaN in the place of all of them. Buffers are never left out.

    Args:
        net: in eval mode; it is left as it was.
        images: `[N, 3, H, W]`.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    >>> net.head = nn.Sequential(nn.Identity())  # a module of a Sequential is always run
    >>> unused_parameters(net, torch.zeros(1, 3, 2, 2))
    frozenset()
    """
    named = dict(net.named_parameters(remove_duplicate=False))
    frozen = [p for p in named.values() if p.is_floating_point() and not p.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            output = net(images)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
    reached = _leaves(output)
    candidates = {name: p for name, p in named.items() if p.is_floating_point() and id(p) not in reached}
    if not candidates:
        return frozenset()
    with torch.no_grad():
        kept = {name: p.clone() for name, p in candidates.items()}
        try:
            for parameter in candidates.values():
                parameter.fill_(torch.nan)
            same = torch.equal(output, net(images))
        finally:
            for name, parameter in candidates.items():
                parameter.copy_(kept[name])
    return frozenset(candidates) if same else frozenset()


def _leaves(output: Tensor) -> set[int]:
    """Ids of the tensors at the ends of the graph that made `output`."""
    seen: set[Any] = set()
    found: set[int] = set()
    waiting = [output.grad_fn]
    while waiting:
        node: Any = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        waiting.extend(child for child, _ in node.next_functions)
    return found
