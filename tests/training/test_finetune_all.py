"""`examples/finetune_all.py`: where each method starts from, and the tables that it writes."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sslk.statistics.bootstrap import Interval
from sslk.training.differences import ArmDifference

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    import finetune_all

    return finetune_all


def test_methods_start_from_their_own_checkpoint_where_there_is_one(script, tmp_path):
    (tmp_path / "byol").mkdir()
    save_file({"w": torch.zeros(1)}, tmp_path / "byol" / "model.safetensors", {"epochs": "3"})
    assert script.start_of("byol", tmp_path) == (str(tmp_path / "byol" / "model.safetensors"), "own, 3 epochs")
    assert script.start_of("dino", tmp_path) == (None, "embedded SimCLR, heads warmed up")
    assert script.start_of("simclr", None) == (None, "embedded SimCLR, its own head")


def test_tables_show_means_spreads_and_signed_intervals(script):
    rows = [
        {"method": "byol", "start": "own, 3 epochs", "seed": seed, "arm": arm}
        | dict.fromkeys(script.MEASURES, 60.0 + seed + number)
        for seed in (0, 1)
        for number, arm in enumerate(("before", *script.ARMS))
    ]
    rows[0]["final SSL loss"] = rows[4]["final SSL loss"] = None
    lines = script.arms_table(rows).splitlines()
    assert lines[2].startswith("| byol | own, 3 epochs | before | 60.5 (1) |") and lines[2].endswith("|  |")
    assert lines[5].startswith("| byol | own, 3 epochs | qscore | 63.5 (1) |")
    found = ArmDifference(Interval(-0.004, -0.01, 0.002), None, Interval(1e-3, 5e-4, 2e-3), Interval(0, -1, 1), [0, -0.008])
    table = script.differences_table({("byol", "qscore"): found}).splitlines()
    assert table[2].startswith("| byol | qscore less baseline | -0.4 [-1, +0.2] |  | +0.001 [+0.0005, +0.002] |")
    assert table[2].endswith("| +0.00, -0.80 |")
    assert [row["quantity"] for row in script.difference_rows("byol", "qscore", found)] == [
        "probe top-1 [points]",
        "mean Q",
        "mean |L_i|",
    ]
