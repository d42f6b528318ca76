"""A bounded run of the op fuzzer, the same cases every time; `make fuzz` runs others for as long as wanted."""

import re

import pytest
import torch

from tests.fuzz import ops
from tests.fuzz.draw import Draw, assert_near

BATCHES, BATCH = 8, 500
NAMES = sorted(
    name.removeprefix("sslk::") for name in torch._C._dispatch_get_all_op_names() if name.startswith("sslk::") and "." not in name
)


def run(cases: range) -> None:
    for case in cases:
        ops.run_case(0, case)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_cases_equal_their_oracles(batch):
    run(range(batch * BATCH, (batch + 1) * BATCH))


@pytest.mark.parametrize("name", NAMES)
def test_every_op_is_fuzzed_and_one_wrong_number_of_it_is_noticed(monkeypatch, name):
    right = Draw.op

    def damaged(draw, called):
        op = right(draw, called)

        def call(*arguments):
            result = op(*arguments)
            number = arguments[0] if called.endswith("_") else result if torch.is_tensor(result) else result[0]
            if number.numel():
                flat = number.view(-1)
                flat[-1] = ~flat[-1] if flat.dtype == torch.bool else 1.1 * flat[-1] + 1
            return result

        return call if called == name else op

    monkeypatch.setattr(Draw, "op", damaged)
    with pytest.raises(AssertionError, match=r"again: python -m tests\.fuzz\.ops"):
        run(range(BATCH))


def test_a_failure_is_printed_with_what_reproduces_it(monkeypatch, capsys):
    def wrong(draw: Draw) -> None:
        assert_near("answer", torch.tensor([41.0]), draw.normal(1).numpy() * 0 + 42.0, 0.5)

    monkeypatch.setattr(ops, "FAMILIES", (wrong,))
    assert ops.main(["--minutes", "0.0001", "--seed", "7"]) == 1
    assert "again: python -m tests.fuzz.ops --seed 7 --case 0" in capsys.readouterr().out
    with pytest.raises(AssertionError, match=re.escape("41.0 at (0,), want 42.0")):
        ops.main(["--seed", "7", "--case", "0"])
