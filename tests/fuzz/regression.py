"""A step of sparse softmax regression against the equations in float64."""

from __future__ import annotations

import numpy as np
import torch

from tests.fuzz.draw import Draw, assert_near, assert_refused
from tests.ops.test_regression import oracle, problem


def fuzz_regression(draw: Draw) -> None:
    classes = draw.size(140)
    dtype = draw.choice([torch.float32, torch.float64])
    arguments = problem(
        draw.size(40),
        draw.size(50),
        classes,
        draw.choice([None, 64, 16]),
        draw.size(8),
        dtype,
        int(draw.rng.integers(2**31)),
        scale=draw.choice([1.0, 1.0, 1e-20, 30.0]),
    )
    if draw.chance(0.1):
        arguments = (*arguments[:7], arguments[7][:0])
    step = (draw.rng.random(), draw.choice([0.0, 0.9]), draw.choice([0.0, 3e-3]))
    names = ("weight", "bias", "weight_velocity", "bias_velocity")
    before = [t.clone() for t in arguments[:4]]
    hostile = draw.choice([(4, 1 << 30), (6, classes), (6, -1), (7, 1 << 40)])
    broken = [t.clone() for t in arguments]
    if broken[hostile[0]].numel() and len(broken[7]) == len(broken[6]):
        row = int(broken[7][0])
        place = {4: int(broken[5][row]), 6: row, 7: 0}[hostile[0]]
        if place < broken[hostile[0]].numel() and (hostile[0] != 4 or broken[5][row] < broken[5][row + 1]):
            broken[hostile[0]][place] = hostile[1]
            assert_refused("sparse_softmax_sgd_", draw.op("sparse_softmax_sgd_"), *broken, *step)
            for name, found, wanted in zip(names, broken, before, strict=False):
                assert torch.equal(found, wanted), f"sparse_softmax_sgd_: {name} changed by a call that was refused"
    expected = oracle(*arguments, *step) if len(arguments[7]) else None
    loss = draw.op("sparse_softmax_sgd_")(*arguments, *step)
    if expected is None:
        assert float(loss) == 0.0, f"the loss of an empty batch is {float(loss)}"
        for name, found, wanted in zip(names, arguments, before, strict=False):
            assert torch.equal(found, wanted), f"{name} changed by an empty batch"
        return
    tight = dtype == torch.float64
    assert_near("loss", loss, np.asarray(expected[0]), (1e-12 if tight else 4e-6) * (abs(expected[0]) + 30.0))
    for name, found, wanted in zip(names, arguments, expected[1:], strict=False):
        flat = torch.cat(list(found), 1)[:, :classes] if found.dim() == 3 else found
        # Errors of the logits, of the size of the weights times the ones of a row, reach the probabilities.
        slack = (1e-11 if tight else 4e-5) * (1.0 + np.abs(wanted).max())
        assert_near(name, flat, wanted, slack)
