"""The first minutes on a GPU, as stages of which each leaves its file in OUT_DIR the moment it ends: see `bench/gpu.sh`.

| stage | file | what it says |
|---|---|---|
| build | build.log | the libraries compile for this card; seconds per source |
| first | first.log | one op runs and is right |
| tests | tests.log | the kernel tests, each test function in a process of its own |
| memcheck | memcheck.log | every op once under compute-sanitizer, each in a process of its own |
| bench | bench.log, gpu.json | rates of every op beside the copy rate, what is worth most first; gpu.json after every row |
| racecheck | racecheck.log | as memcheck, for races in shared memory |

`summary.txt` has a line per stage, from its end on. The stages share eight minutes: one that is stopped or fails leaves what
it had, and the others run; what began ends with the run. `--dry-run` takes the CPU for the card: everything but the sanitizers
runs, at tiny sizes.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from children import STOPPED, Children

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("torch", "numpy", "pytest", "ninja", "pybind11", "setuptools")
TOTAL_SECONDS = 470
# Most seconds of a stage; the benches may use what the stages before have left over.
LIMITS = {"build": 150, "first": 30, "tests": 140, "memcheck": 70, "bench": 240, "racecheck": 60}
BUILD = ROOT / "build" / "gpu"
KEPT_OUTPUT = 6000  # characters of a failed process
FILES = (*(f"{stage}.log" for stage in LIMITS), "gpu.json", "summary.txt")


class Plan:
    """The stages, their clock and their files."""

    def __init__(self, out: Path, dry: bool) -> None:
        self.out, self.dry, self.begin = out, dry, time.monotonic()
        self.patience = 8 if dry else 1  # two cores and no card are not what the limits are for
        self.workers = max(2, min(12, (os.cpu_count() or 2) - 2))
        self.children = Children()
        self.stages: dict[str, str] = {}
        self.rows: list[dict[str, object]] = []
        self.copy: list[float] = []
        self.environment = {
            # A container may set it; what torch computes in float32 here is to be float32.
            **{key: value for key, value in os.environ.items() if key != "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"},
            "PATH": tool_path(),
            "PYTHONPATH": os.pathsep.join([str(BUILD / "lib"), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "2",
            "COLUMNS": "500",  # pytest cuts what it says of a failure at the width of a terminal
        }

    def left(self) -> float:
        return TOTAL_SECONDS * self.patience - (time.monotonic() - self.begin)

    def stage(self, name: str, run: Callable[[Path, float], str]) -> bool:
        """Run a stage into its log; `run(log, deadline)` says what came of it, or raises."""
        limit, start = min(LIMITS[name] * self.patience, self.left()), time.monotonic()
        if limit < 10:
            self.note(name, "skipped: no time left")
            return False
        try:
            result = run(self.out / f"{name}.log", start + limit)
        except KeyboardInterrupt:
            self.note(name, f"STOPPED by a signal ({time.monotonic() - start:.0f} s)")
            raise
        except Exception as error:  # the other stages run all the same
            result = f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        self.note(name, f"{result} ({time.monotonic() - start:.0f} s)")
        return "FAILED" not in result and "STOPPED" not in result

    def note(self, name: str, result: str) -> None:
        self.stages[name] = result
        line = f"{name:10s} {result}"
        print(line, flush=True)
        try:
            with open(self.out / "summary.txt", "a") as file:
                file.write(line + "\n")
            if self.rows:
                self.write_rows()
        except OSError as error:  # a full disk: what is there stays, and the other stages run
            print(f"{name:10s} not written: {error}", flush=True)

    def write_rows(self) -> None:
        rows = {"copy_gbps": self.copy, "stages": self.stages, "machine": self.about, "rows": self.rows}
        result = {"commit": commit(), "card": str(self.about.get("card", "none")), **rows}
        scratch = self.out / "gpu.json.tmp"
        scratch.write_text(json.dumps(result, indent=1) + "\n")
        os.replace(scratch, self.out / "gpu.json")

    @property
    def about(self) -> dict[str, object]:
        if not hasattr(self, "_about"):
            self._about = machine(self.dry)
        return self._about


def build(plan: Plan, log: Path, deadline: float) -> str:
    arch = "9.0" if plan.dry else str(plan.about["capability"])
    environment = {**os.environ, "PATH": plan.environment["PATH"], "SSLK_CUDA": "1", "TORCH_CUDA_ARCH_LIST": arch}
    command = [sys.executable, "setup.py", "-q", "build", "--build-lib", str(BUILD / "lib"), "--build-temp", str(BUILD / "temp")]
    status, output = plan.children.run(command, deadline, ROOT, environment)
    ninja = BUILD / "temp" / ".ninja_log"
    times = [line.split("\t") for line in (ninja.read_text().splitlines()[1:] if ninja.exists() else [])]
    seconds = sorted(((int(t[1]) - int(t[0])) / 1000, Path(t[3]).name) for t in times)[::-1]
    log.write_text("\n".join(f"{s:7.1f} s  {name}" for s, name in seconds) + "\n\n" + output)
    if status == STOPPED:
        return "STOPPED: what was compiled is kept, run it again"
    if status:
        return f"FAILED with exit code {status}: {last_line(output)[:300]}"
    # The tests run beside the built package, not beside the sources, which have no library.
    shutil.rmtree(BUILD / "tests", ignore_errors=True)
    shutil.copytree(ROOT / "tests", BUILD / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", BUILD)
    return f"built for sm_{arch.replace('.', '')}, longest {seconds[0][1]} {seconds[0][0]:.0f} s"


def last_line(output: str) -> str:
    return output.strip().splitlines()[-1] if output.strip() else ""


def out_of_memory(output: str) -> bool:
    """Whether memory is all that a failed process lacked: every test that failed in it, or its last line, says so."""
    failures = [line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return all(re.search("OutOfMemoryError|out of memory", line) for line in failures or [last_line(output)])


def side_by_side(plan: Plan, log: Path, deadline: float, jobs: dict[str, list[str]]) -> str:
    """Each job in a process of its own, several at once; a line per job in the log as it ends, with what failed.

    Those for which the card had not enough memory beside others run once more, one after the other.
    """
    said: dict[str, str] = {}
    with open(log, "w") as file:
        for workers in (plan.workers, 1):
            waiting = {name: job for name, job in jobs.items() if said.get(name, "out of memory") == "out of memory"}
            if not waiting:
                break
            pool = ThreadPoolExecutor(workers)
            try:
                running = {
                    pool.submit(plan.children.run, job, deadline, BUILD, plan.environment): name for name, job in waiting.items()
                }
                for done in as_completed(running):
                    name, (status, output) = running[done], done.result()
                    said[name] = {0: "passed", STOPPED: "STOPPED"}.get(status, f"FAILED with exit code {status}")
                    if status not in (0, STOPPED) and out_of_memory(output):
                        said[name] = "out of memory"
                    file.write(f"{said[name]}: {name}: {last_line(output) if not status else output[-KEPT_OUTPUT:]}\n")
                    file.flush()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                plan.children.stop()
                raise
            pool.shutdown()
    results = list(said.values())
    counts = {
        "FAILED": sum(result.startswith("FAILED") for result in results),
        "STOPPED": results.count("STOPPED"),
        "out of memory, each alone on the card": results.count("out of memory"),
    }
    passed = f"{results.count('passed')} of {len(jobs)} processes passed"
    return ", ".join([passed, *(f"{count} {what}" for what, count in counts.items() if count)])


def tests(plan: Plan, log: Path, deadline: float) -> str:
    pytest = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-p", "no:cacheprovider"]
    device = "cpu" if plan.dry else "cuda"
    choose = ["-m", "not slow", "-k", f"({device} and not avx2 and not avx512) or current_stream"]
    status, output = plan.children.run([*pytest, "--collect-only", *choose, "tests/ops"], deadline, BUILD, plan.environment)
    functions = sorted({line.partition("[")[0] for line in output.splitlines() if "::" in line and not line.startswith("ERROR")})
    if not functions:
        log.write_text(output)
        return f"FAILED: pytest found no test (exit code {status})"
    jobs = {name: [*pytest, *choose, name] for name in functions}
    if not plan.dry:
        for name in ("kmeans", "masking", "rows"):
            file = f"tests/ops/test_{name}.py"
            jobs[f"more than 2^31 elements, {name}"] = [*pytest, "-m", "slow", "-k", "2_31 and cuda", file]
    result = side_by_side(plan, log, deadline, jobs)
    unread = [line.split()[1] for line in output.splitlines() if line.startswith("ERROR")]
    return result + (f"; FAILED to read {', '.join(unread)}" if unread else "")


def once(plan: Plan, log: Path, deadline: float, names: list[str], wrapper: list[str]) -> str:
    command = [*wrapper, sys.executable, str(ROOT / "bench" / "gpu_once.py"), *(["--device", "cpu"] if plan.dry else [])]
    return side_by_side(plan, log, deadline, {name: [*command, name] for name in names})


def sanitizer(plan: Plan, tool: str) -> Callable[[Path, float], str]:
    def run(log: Path, deadline: float) -> str:
        wrapper = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", "--kernel-name", "kns=sslk"]
        if plan.dry or shutil.which(wrapper[0], path=plan.environment["PATH"]) is None:
            return "skipped: " + ("there is no card" if plan.dry else "there is no compute-sanitizer")
        return once(plan, log, deadline, parts("gpu_once", "OPS"), wrapper)

    return run


def bench(plan: Plan, log: Path, deadline: float) -> str:
    """The parts one after the other: two at once would time each other."""
    failed, small = [], []
    with open(log, "w") as file:
        for part in parts("gpu_bench", "PARTS"):
            command = [
                sys.executable,
                str(ROOT / "bench" / "gpu_bench.py"),
                part,
                "--rows",
                *(["--device", "cpu"] if plan.dry else []),
            ]
            status, said = None, ""
            for line in plan.children.lines(command, deadline, BUILD, plan.environment):
                if isinstance(line, int):
                    status = line
                elif line.startswith("ROW "):
                    plan.rows.append({"part": part, **json.loads(line[4:])})
                    plan.write_rows()
                elif line.startswith("COPY "):
                    plan.copy.append(json.loads(line[5:]))
                else:
                    said = line
                    file.write(line)
                    file.flush()
            if status:
                lacked_memory = status != STOPPED and out_of_memory(said)
                (small if lacked_memory else failed).append(part)
                what = "STOPPED" if status == STOPPED else "out of memory" if lacked_memory else f"FAILED with exit code {status}"
                file.write(f"{part}: {what}\n")
    missed = sum(row["met"] is False for row in plan.rows)
    asked = sum(row["met"] is not None for row in plan.rows)
    result = f"{len(plan.rows)} rows, {asked - missed} of {asked} targets met (asked of an H200)"
    return "; ".join([result, *(f"{what}: {', '.join(p)}" for what, p in (("FAILED", failed), ("out of memory", small)) if p)])


def parts(module: str, name: str) -> list[str]:
    """The keys of a dictionary in a file beside this one, in its order, without importing it."""
    source = (ROOT / "bench" / f"{module}.py").read_text()
    body = re.search(rf"^{name}\b[^\n]*= \{{\n(.*?)^\}}", source, re.DOTALL | re.MULTILINE)
    assert body is not None
    return re.findall(r'^    "(\w+)":', body[1], re.MULTILINE)


def commit() -> str:
    """Of the sources, as git knows it, or as SSLK_COMMIT says where they were copied without git."""
    if given := os.environ.get("SSLK_COMMIT"):
        return given
    if not (ROOT / ".git").exists():  # git would answer for a repository that this copy lies in
        return "unknown"
    try:
        found = subprocess.check_output(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"], text=True, stderr=subprocess.DEVNULL
        )
        return found.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine(dry: bool) -> dict[str, object]:
    """The card, driver and versions; raises SystemExit where there is no card."""
    import torch

    about: dict[str, object] = {"torch": torch.__version__, "python": platform.python_version(), "cores": os.cpu_count()}
    if dry:
        return {**about, "card": "none (dry run)"}
    if not torch.cuda.is_available():
        built = f"built with CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        print(
            f"gpu.sh: torch {torch.__version__} ({built}) sees no CUDA device here; nothing was built or measured.",
            file=sys.stderr,
        )
        raise SystemExit(3)
    properties = torch.cuda.get_device_properties(0)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split("\n")[0].strip()
    except (OSError, subprocess.CalledProcessError):  # containers may lack it, and it may not reach the driver
        driver = ""
    return {
        **about,
        "card": properties.name,
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "driver": driver or "unknown",
    }


def tool_path() -> str:
    """PATH; before it the CUDA that setup.py prefers, and after it what stands beside this Python."""
    home = os.environ.get("CUDA_HOME")
    first, last = [str(Path(home) / "bin")] if home else [], str(Path(sys.executable).parent)
    return os.pathsep.join([*first, os.environ.get("PATH", ""), last])


def missing() -> list[str]:
    """What the plan needs and does not find."""
    modules = [f"the Python package {name}" for name in MODULES if importlib.util.find_spec(name) is None]
    path = tool_path()
    home = os.environ.get("CUDA_HOME")
    nvcc = f"nvcc (in CUDA_HOME, {home},)" if home else "nvcc"
    found = {nvcc: shutil.which("nvcc", path=str(Path(home) / "bin") if home else path)}
    found |= {tool: shutil.which(tool, path=path) for tool in (os.environ.get("CXX", "c++").split()[0], "ninja")}
    return modules + [tool for tool, place in found.items() if place is None and f"the Python package {tool}" not in modules]


def only_run() -> None:
    """Takes the build folder for this process."""
    BUILD.mkdir(parents=True, exist_ok=True)
    lock = os.open(BUILD / "lock", os.O_WRONLY | os.O_CREAT)  # open until the end
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        wrong_use(f"another run uses {BUILD}; wait for it, or take a copy of the repository for another card.")


def wrong_use(what: str) -> None:
    print(f"gpu.sh: {what}", file=sys.stderr)
    raise SystemExit(2)


def interrupted(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bench/gpu.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    if lacking := missing():
        raise SystemExit(
            f"gpu.sh: {', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} missing; nothing was built or measured."
        )
    plan = Plan(arguments.out.resolve(), arguments.dry_run)
    about = plan.about  # ends here where there is no card
    only_run()
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
        for name in FILES:  # of an earlier run: they would pass for this one's
            (plan.out / name).unlink(missing_ok=True)
        (plan.out / "summary.txt").write_text(f"{commit()}\n{json.dumps(about)}\n")
    except OSError as error:
        wrong_use(f"OUT_DIR must be a folder that can be written, got {plan.out}: {error.strerror}.")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, interrupted)
    try:
        carry_out(plan)
    except KeyboardInterrupt:
        plan.children.end()
        raise SystemExit(130) from None


def carry_out(plan: Plan) -> None:
    if not plan.stage("build", lambda log, deadline: build(plan, log, deadline)):
        raise SystemExit(1)
    plan.stage("first", lambda log, deadline: once(plan, log, deadline, ["qscore"], []))
    plan.stage("tests", lambda log, deadline: tests(plan, log, deadline))
    plan.stage("memcheck", sanitizer(plan, "memcheck"))
    plan.stage("bench", lambda log, deadline: bench(plan, log, deadline))
    plan.stage("racecheck", sanitizer(plan, "racecheck"))
    bad = ("FAILED", "STOPPED", *([] if plan.dry else ["skipped"]))
    if any(word in result for word in bad for result in plan.stages.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
