"""The plan for the first minutes on a GPU, without one: stages stand alone, and what they had stays."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench"))

import gpu  # noqa: E402
import gpu_bench  # noqa: E402
import gpu_once  # noqa: E402


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "BUILD", tmp_path)
    return gpu.Plan(tmp_path, dry=True)


def soon(seconds: float = 20.0) -> float:
    return time.monotonic() + seconds


def test_a_crash_and_a_hang_do_not_take_the_others_with_them(plan, tmp_path):
    jobs = {
        "right": [sys.executable, "-c", "print('3 passed')"],
        "crash": [sys.executable, "-c", "import os; print('before', flush=True); os.abort()"],
        "hang": [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"],
    }
    assert plan.stage("tests", lambda log, deadline: gpu.side_by_side(plan, log, soon(10), jobs)) is False
    log = (tmp_path / "tests.log").read_text()
    assert "passed: right: 3 passed" in log
    assert "FAILED with exit code -6: crash: before" in log
    assert "STOPPED: hang: begun" in log
    assert "1 of 3 processes passed, 1 FAILED, 1 STOPPED" in (tmp_path / "summary.txt").read_text()


def test_a_stage_that_raises_is_noted_and_one_without_time_is_skipped(plan, tmp_path):
    def broken(log, deadline):
        raise OSError("disk full")

    assert plan.stage("first", broken) is False
    plan.begin -= gpu.TOTAL_SECONDS * plan.patience
    assert plan.stage("bench", broken) is False
    summary = (tmp_path / "summary.txt").read_text()
    assert "FAILED: OSError: disk full" in summary and "skipped: no time left" in summary


def test_rows_stay_when_a_part_of_the_bench_dies(plan, tmp_path, monkeypatch):
    row = {"op": "qscore", "met": True}
    script = f"print('COPY 4300.0'); print('ROW ' + {json.dumps(json.dumps(row))}); import os; os.abort()"
    run = gpu.lines_of
    monkeypatch.setattr(gpu, "parts", lambda module, name: ["qscore", "penalty"])
    monkeypatch.setattr(gpu, "lines_of", lambda command, *rest: run([sys.executable, "-uc", script], *rest))
    result = gpu.bench(plan, tmp_path / "bench.log", soon())
    assert result == "2 rows, 2 of 2 targets met; FAILED: qscore, penalty"
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert [r["part"] for r in written["rows"]] == ["qscore", "penalty"] and written["copy_gbps"] == [4300.0, 4300.0]


def test_the_parts_are_those_of_the_files_they_name():
    assert gpu.parts("gpu_bench", "PARTS") == list(gpu_bench.PARTS)
    assert gpu.parts("gpu_once", "OPS") == list(gpu_once.OPS)
    covered = "".join(Path(gpu_once.__file__).read_text())
    for op in torch._C._dispatch_get_all_op_names():
        name = op.removeprefix("sslk::")
        if (
            name != op
            and not name.startswith("linear_cka")
            and name not in ("circular_mask", "column_l1_backward", "qscore_backward")
        ):
            assert f"ops.{name}(" in covered, name


def test_limits_and_files():
    assert sum(gpu.LIMITS.values()) - gpu.LIMITS["bench"] < gpu.TOTAL_SECONDS <= 480
    assert len(gpu.LIMITS) + len({"summary.txt", "gpu.json"}) <= 8


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_nothing_is_built(tmp_path):
    command = ["bash", str(ROOT / "bench" / "gpu.sh"), str(tmp_path / "out")]
    found = subprocess.run(command, capture_output=True, text=True, env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"})
    assert found.returncode in (1, 3), found.stderr  # no nvcc on that PATH, or no card
    assert "nothing was built or measured" in found.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("op", ["qscore", "regression", "masking"])
def test_the_first_check_is_right_on_the_cpu(op):
    gpu_once.OPS[op]("cpu")


def test_the_first_check_finds_a_wrong_value():
    with pytest.raises(SystemExit, match="off by 1 where the largest value is 2"):
        gpu_once.close(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0]), "x")
