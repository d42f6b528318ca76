"""The plan for the first minutes on a GPU, without one: stages stand alone, and what they had stays."""

import json
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
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


def running() -> Iterator[tuple[int, str]]:
    """Group and command line of every process, those aside that have ended and that nobody has waited for."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            command = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it has ended meanwhile
            continue
        if state != "Z":
            yield int(group), command


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
    lines = plan.children.lines
    monkeypatch.setattr(gpu, "parts", lambda module, name: ["qscore", "penalty"])
    monkeypatch.setattr(plan.children, "lines", lambda command, *rest: lines([sys.executable, "-uc", script], *rest))
    result = gpu.bench(plan, tmp_path / "bench.log", soon())
    assert result == "2 rows, 2 of 2 targets met (asked of an H200); FAILED: qscore, penalty"
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert [r["part"] for r in written["rows"]] == ["qscore", "penalty"] and written["copy_gbps"] == [4300.0, 4300.0]


def test_what_lacks_memory_beside_others_runs_once_more_alone(plan, tmp_path):
    """And what lacks it then is not called wrong, unless something else failed in it too."""
    begun = tmp_path / "begun"
    lacks = "FAILED test_large.py::test_rows - torch.OutOfMemoryError: CUDA out of memory."
    scripts = {
        "right": "print('1 passed')",
        "beside": f"import pathlib as p; b = p.Path({str(begun)!r}); e = b.exists(); b.touch(); print({lacks!r}); exit(not e)",
        "too large": f"print({lacks!r}); print('1 failed in 2 s'); exit(1)",
        "a script": "raise RuntimeError('CUDA error: out of memory')",
        "wrong too": f"print({lacks!r}); print('FAILED test_large.py::test_images - assert 1 == 2'); exit(1)",
    }
    jobs = {name: [sys.executable, "-c", script] for name, script in scripts.items()}
    result = gpu.side_by_side(plan, tmp_path / "tests.log", soon(), jobs)
    assert result == "2 of 5 processes passed, 1 FAILED, 2 out of memory, each alone on the card"


def test_a_build_that_fails_before_it_compiles_says_why(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "ROOT", tmp_path)  # which holds no setup.py
    assert plan.stage("build", lambda log, deadline: gpu.build(plan, log, soon())) is False
    assert "FAILED with exit code 2" in plan.stages["build"] and "No such file" in plan.stages["build"]
    assert "No such file" in (tmp_path / "build.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_runs_ends_with_an_interrupted_run(tmp_path, number):
    """Those that wait are not begun, and a child that ignores the first request is killed with its own children."""
    script = f"""
import pathlib, sys, time
sys.path.insert(0, {str(ROOT / "bench")!r})
import gpu
gpu.BUILD, gpu.missing = pathlib.Path({str(tmp_path)!r}), list
child = "import os, pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
child += "pathlib.Path(f'{{os.getpid()}}.begun').touch(); os.fork(); time.sleep(60)"
jobs = {{str(i): [sys.executable, "-c", child] for i in range(40)}}
def carry_out(plan):
    plan.stage("tests", lambda log, deadline: gpu.side_by_side(plan, log, time.monotonic() + 60, jobs))
gpu.carry_out = carry_out
sys.argv = ["gpu.py", {str(tmp_path / "out")!r}, "--dry-run"]
gpu.main()
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    until = soon(60)
    while len(list(tmp_path.glob("*.begun"))) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=40) == 130
    assert "STOPPED by a signal" in (tmp_path / "out" / "summary.txt").read_text()
    begun = [path.stem for path in tmp_path.glob("*.begun")]
    assert 2 <= len(begun) <= 20
    assert not [command for group, command in running() if str(group) in begun]


def test_a_process_that_outlives_its_parent_keeps_no_deadline_waiting(tmp_path):
    children, begin, sleep = gpu.Children(), time.monotonic(), f"sleep 77.{os.getpid()}"
    status, output = children.run(["sh", "-c", f"echo said; {sleep} & exit 0"], soon(4), tmp_path, dict(os.environ))
    assert (status, output) == (gpu.STOPPED, "said\n") and time.monotonic() - begin < 40
    assert children.run(["sh", "-c", f"{sleep} > /dev/null 2>&1 & exit 3"], soon(), tmp_path, dict(os.environ)) == (3, "")
    assert not [command for _, command in running() if sleep in command]


def test_compilers_of_a_build_that_is_stopped_end_too(tmp_path):
    """ninja gives them groups of their own, and ends them if it is given the time."""
    sleep = f"sleep 78.{os.getpid()}"
    rule = f"rule wait\n  command = {sleep}\n"
    (tmp_path / "build.ninja").write_text(rule + "".join(f"build {i}: wait\n" for i in range(4)))
    script = "import subprocess; subprocess.run(['ninja', '-j', '4'])"
    environment = {**os.environ, "PATH": gpu.tool_path()}
    status, _ = gpu.Children().run([sys.executable, "-c", script], soon(3), tmp_path, environment)
    assert status == gpu.STOPPED and not [command for _, command in running() if sleep in command]


def test_a_stage_that_breaks_leaves_the_others_their_processes(plan, tmp_path):
    jobs = {"absent": ["/nonexistent"], "long": [sys.executable, "-c", "import time; time.sleep(60)"]}
    assert plan.stage("tests", lambda log, deadline: gpu.side_by_side(plan, log, soon(50), jobs)) is False
    assert plan.children.run([sys.executable, "-c", "print(1)"], soon(), tmp_path, plan.environment) == (0, "1\n")


def test_files_of_an_earlier_run_do_not_pass_for_this_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "BUILD", tmp_path / "build")
    monkeypatch.setattr(gpu, "carry_out", lambda plan: None)
    monkeypatch.setattr(sys, "argv", ["gpu.py", str(tmp_path / "out"), "--dry-run"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    (tmp_path / "out").mkdir()
    for name in ("gpu.json", "tests.log", "mine.txt"):
        (tmp_path / "out" / name).write_text("old")
    gpu.main()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mine.txt", "summary.txt"]


def test_wrong_use_is_said_in_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "BUILD", tmp_path / "build")
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["gpu.py", str(tmp_path / "file"), "--dry-run"])
    with pytest.raises(SystemExit, match="2"):
        gpu.main()
    with pytest.raises(SystemExit, match="2"):
        gpu.main()  # the first still holds the folder
    first, second = capsys.readouterr().err.splitlines()
    assert "OUT_DIR must be a folder that can be written" in first and "another run uses" in second


def test_the_commit_of_a_copy_is_not_that_of_what_it_lies_in(tmp_path, monkeypatch):
    monkeypatch.delenv("SSLK_COMMIT", raising=False)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(
        ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x", "--allow-empty"], check=True
    )
    (tmp_path / "copy").mkdir()
    monkeypatch.setattr(gpu, "ROOT", tmp_path / "copy")
    assert gpu.commit() == "unknown"


def test_a_card_without_nvidia_smi_is_one(monkeypatch):
    properties = types.SimpleNamespace(name="card", total_memory=1, multi_processor_count=2, major=8, minor=6)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setenv("PATH", "")
    assert gpu.machine(dry=False)["driver"] == "unknown"


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
    assert len(gpu.FILES) <= 8


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
