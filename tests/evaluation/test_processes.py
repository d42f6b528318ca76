"""Steps in several processes: the same states, order and errors as in one, with steps that wait for what they need."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sslk.evaluation.plan import Step
from sslk.evaluation.run import Evaluation
from sslk.results.atomic import write_atomically


def write(out, needs=(), seconds=0.0, progress=None):
    missing = [path for path in needs if not Path(path).exists()]
    if missing:
        raise ValueError(f"began before {missing}")
    time.sleep(seconds)
    Path(out).write_text(f"{os.getpid()} {torch.get_num_threads()}")


def meet(out, other, progress=None):
    """Ends when the other step has begun too."""
    Path(out + ".begun").touch()
    wait_until(Path(other + ".begun").exists)
    write(out)


def fail(out, progress=None):
    raise ValueError(f"no {out}")


def killed(out, progress=None):
    os.kill(os.getpid(), signal.SIGKILL)


def asleep(out, progress=None):
    write_atomically(Path(out), str(os.getpid()).encode())
    time.sleep(300)


def step(folder, name, call=write, needs=(), **arguments):
    if call is write:
        arguments["needs"] = [str(folder / need) for need in needs]
    return Step(name, call, {"out": str(folder / name), **arguments}, folder / name, tuple(needs))


def read(path):
    process, threads = path.read_text().split()
    return int(process), int(threads)


@pytest.mark.parametrize("workers", [1, 2])
def test_states_and_order_do_not_depend_on_the_processes(tmp_path, workers):
    steps = [
        step(tmp_path, "a", seconds=0.3),
        step(tmp_path, "b", needs=["a"]),
        step(tmp_path, "bad", fail, needs=["a"]),
        step(tmp_path, "after", needs=["bad"]),
        step(tmp_path, "c"),
    ]
    told = []
    evaluation = Evaluation(tmp_path, steps, {})
    states = evaluation.run(lambda number, begun: told.append((number, begun.name)), workers=workers)
    assert states == {"a": "done", "b": "done", "bad": "failed", "after": "left out", "c": "done"}
    assert evaluation.outcomes["bad"].error == f"ValueError: no {tmp_path / 'bad'}"
    assert "in fail" in evaluation.log_of(steps[2]).read_text()
    assert sorted(told) == [(0, "a"), (1, "b"), (2, "bad"), (4, "c")]
    again = []
    Evaluation(tmp_path, steps, {}).run(lambda number, begun: again.append(begun.name), workers=workers)
    assert again == ["bad"]  # what is done stays done


def test_two_steps_run_at_once_in_processes_of_their_own(tmp_path):
    steps = [step(tmp_path, "a", meet, other=str(tmp_path / "b")), step(tmp_path, "b", meet, other=str(tmp_path / "a"))]
    states = Evaluation(tmp_path, steps, {}).run(workers=2)
    assert states == {"a": "done", "b": "done"}  # neither could end before the other had begun
    first, second = read(tmp_path / "a"), read(tmp_path / "b")
    assert len({first[0], second[0], os.getpid()}) == 3
    assert first[1] == second[1] == max(1, len(os.sched_getaffinity(0)) // 2)


def test_a_killed_process_fails_its_step_and_leaves_a_state_to_go_on_from(tmp_path):
    steps = [step(tmp_path, "a"), step(tmp_path, "bad", killed, needs=["a"]), step(tmp_path, "c", needs=["a"])]
    states = Evaluation(tmp_path, steps, {}).run(workers=2)
    assert states["a"] == "done" and states["bad"] == "failed"
    steps[1] = step(tmp_path, "bad")
    assert set(Evaluation(tmp_path, steps, {}).run(workers=2).values()) == {"done"}


def test_what_cannot_be_carried_out_is_refused(tmp_path):
    waiting = [step(tmp_path, "a", needs=["b"]), step(tmp_path, "b", needs=["a"])]
    with pytest.raises(ValueError, match="must not wait for each other, as a, b do"):
        Evaluation(tmp_path, waiting, {}).run()
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        Evaluation(tmp_path, [], {}).run(workers=0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        "from pathlib import Path\n"
        "from tests.evaluation.test_processes import Evaluation, asleep, step\n"
        "if __name__ == '__main__':\n"
        f"    folder = Path({str(tmp_path)!r})\n"
        "    Evaluation(folder, [step(folder, 'a', asleep), step(folder, 'b', asleep)], {}).run(workers=2)\n"
    )
    parent = subprocess.Popen([sys.executable, script], env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    wait_until(lambda: all((tmp_path / name).exists() for name in "ab"))
    processes = [int((tmp_path / name).read_text()) for name in "ab"]
    assert len(set(processes)) == 2 and all(map(runs, processes))
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(map(runs, processes)))


def runs(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(happened):
    end = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)
