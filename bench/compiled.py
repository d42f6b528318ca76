"""What the compiler made of the CUDA kernels, and what can be expected of them before any has run.

    python bench/compiled.py [--library libsslk_cuda.so] [--arch 90] [--out bench/compiled/sm_90.json]
    python bench/compiled.py --library NEW --against OLD     # which kernels have other machine code, and how many have not

Reads the machine code with cuobjdump (of the CUDA toolkit, or of Triton's package): registers, stack, shared memory, local
memory accesses (spills), 16-byte loads. For the kernels that walk over rows it finds the loop over rows in the machine
code, counts the instructions of its shortest way round (the one that a row takes whose active set float32 can decide), and
derives what a device can reach at most, as a share of its memory rate, for every op, dtype and row length:

    flight   bytes that the resident threads have under way, over what the latency of memory asks for
    issue    memory's time for a row over the time its instructions take in the busiest unit of a multiprocessor

The rates of the device are assumptions that stand in the result; a measurement replaces all of this.
"""

from __future__ import annotations

import argparse
import heapq
import importlib.util
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

Code = list[tuple[int, str, str]]  # address, predicate, instruction
ROOT = Path(__file__).resolve().parents[1]
STATIC_SHARED_LIMIT = 48 << 10  # bytes; more must be asked for at run time, which no kernel here does
DTYPES = {"float": 4, "__nv_bfloat16": 2}  # float16 is as bfloat16
LENGTHS = (64, 256, 512, 1024, 2048, 4096, 8192)
READ_AND_WRITTEN = {
    "MaskOp": lambda size: size + 1,
    "GradientOp<true>": lambda size: 2 * size,
    "GradientOp<false>": lambda size: 2 * size,
}


@dataclass(frozen=True)
class Device:
    """What is assumed of a device; per multiprocessor where nothing else is said."""

    name: str = "H200"
    multiprocessors: int = 132
    clock_hz: float = 1.75e9  # under load
    memory_bytes_per_s: float = 4.3e12  # of the whole device
    latency_s: float = 0.7e-6
    registers: int = 65536
    warps: int = 64
    blocks: int = 32
    shared_bytes: int = 228 << 10


# Warp instructions per cycle and multiprocessor, by the unit that executes them; all share 4 issue slots. The throughput
# table of the CUDA programming guide for compute capability 9.0.
UNITS = {
    "fma": (4.0, r"FADD|FMUL|FFMA|HADD|HFMA|HMUL|IMAD"),
    "integer": (2.0, r"IMAD"),
    "alu": (
        2.0,
        r"FMNMX|FSET|FSETP|FSEL|FCHK|IADD|ISETP|LOP|LEA|SHF|SEL|PRMT|VIADD|IABS|IMNMX|VIMNMX|P2R|R2P|PLOP3|MOV|CS2R|SGXT|I2FP",
    ),
    "convert": (2.0, r"F2F|F2I|I2F"),
    "transfer": (1.0, r"LDG|STG|LDS|STS|LDL|STL|SHFL|ATOM|RED|MATCH"),
    "special": (0.5, r"MUFU|FRND|POPC|FLO|BREV|S2R"),
    "double": (2.0, r"DADD|DMUL|DFMA|DSETP|DMNMX"),
}


@dataclass
class Kernel:
    """A kernel as it was compiled; sizes in bytes."""

    name: str
    registers: int
    stack: int
    shared: int
    spills: int  # instructions that access local memory
    wide_loads: int  # of 16 bytes
    instructions: int
    threads: int  # of a block at most
    warps: int = 0  # resident on a multiprocessor, of blocks that large


@dataclass
class Expectation:
    """What rows of one length can reach at most."""

    op: str
    dtype: str
    length: int
    kernel: str
    threads: int
    warps: int  # resident on a multiprocessor
    instructions: int  # of a warp for the items it holds
    cycles: float  # of the busiest unit for them
    flight: float
    issue: float
    share: float  # the lesser of both, at most 1


def cuobjdump() -> str | None:
    """The disassembler: on PATH, or in Triton's package."""
    if found := shutil.which("cuobjdump"):
        return found
    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None:
        return None
    carried = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return str(carried) if carried.exists() else None


def architectures(library: Path) -> str:
    """What `cuobjdump` lists: a line per architecture with machine code in the library."""
    tool = cuobjdump()
    return subprocess.run([tool, "-lelf", str(library)], check=True, capture_output=True, text=True).stdout if tool else ""


def dump(library: Path, arch: str, what: str) -> str:
    tool = cuobjdump()
    if tool is None:
        raise SystemExit("cuobjdump is needed: it is part of the CUDA toolkit and of the package triton.")
    command = [tool, what, "-arch", f"sm_{arch}", str(library)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def demangled(text: str) -> str:
    """With the names of C++ functions, without the project's namespace."""
    out = subprocess.run(["c++filt"], input=text, check=True, capture_output=True, text=True).stdout
    return out.replace("sslk::", "").replace("(anonymous namespace)::", "")


def short(name: str) -> str:
    """`register_rows_kernel<float, Lanes<32>, 4, MaskOp>` of a demangled signature."""
    depth, end = 0, len(name)
    for i, letter in enumerate(name):
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "(" and depth == 0:
            end = i
            break
    return name[:end].removeprefix("void ").replace(" >", ">").strip()


def machine_code(sass: str) -> dict[str, Code]:
    """By kernel, `(address, predicate, instruction)` of every instruction."""
    code: dict[str, Code] = {}
    current: Code = []
    for line in sass.splitlines():
        if "Function :" in line:
            current = code.setdefault(short(line.split("Function :")[1].strip()), [])
        elif found := re.match(r"\s+/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+\s+)?(.+?)\s*;", line):
            current.append((int(found[1], 16), (found[2] or "").strip(), found[3]))
    return code


def kernels(library: Path, arch: str) -> tuple[list[Kernel], dict[str, Code]]:
    """All kernels of a library, by name, and their machine code."""
    code = machine_code(demangled(dump(library, arch, "-sass")))
    threads: dict[str, int] = {}
    name, awaited = "", False
    # The mangled name is set apart: a word that begins with a dot is not demangled.
    for line in demangled(dump(library, arch, "-elf").replace(".nv.info._Z", ".nv.info. _Z")).splitlines():
        if line.startswith(".nv.info. "):
            name = short(line.partition(" ")[2])
        elif "EIATTR_MAX_THREADS" in line:
            awaited = True
        elif awaited and (found := re.search(r"Value:\s+0x([0-9a-f]+) 0x([0-9a-f]+) 0x([0-9a-f]+)", line)):
            threads[name], awaited = math.prod(int(size, 16) for size in found.groups()), False
    out, name = [], ""
    for line in demangled(dump(library, arch, "-res-usage")).splitlines():
        if found := re.match(r"\s*Function (.+):$", line):
            name = short(found[1])
        elif found := re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", line):
            registers, stack, shared, local = map(int, found.groups())
            opcodes = [text.split()[0] for _, _, text in code[name]]
            spills = sum(o.startswith(("LDL", "STL")) for o in opcodes)
            wide = sum(o.startswith("LDG") and ".128" in o for o in opcodes)
            out.append(Kernel(name, registers, stack + local, shared, spills, wide, len(opcodes), threads.get(name, 1024)))
    for kernel in out:
        kernel.warps = resident_blocks(kernel, kernel.threads, Device()) * math.ceil(kernel.threads / 32)
    return sorted(out, key=lambda k: k.name), code


def changed(code: dict[str, Code], before: dict[str, Code]) -> list[str]:
    """Kernels whose instructions are not, one for one, those of a kernel of `before`, whatever its name."""
    known = set(map(tuple, before.values()))
    return sorted(name for name, instructions in code.items() if tuple(instructions) not in known)


def cycles_of(opcodes: list[str]) -> float:
    """Cycles that a multiprocessor needs for these instructions of one warp, at the best."""
    busy = [sum(bool(re.match(pattern, o)) for o in opcodes) / rate for rate, pattern in UNITS.values()]
    return max(len(opcodes) / 4, *busy)


def row_loop(code: Code, slots: int) -> list[str]:
    """Opcodes of the cheapest way round the loop over rows that makes `slots` 16-byte loads and, where items are
    selected, selects them.

    Arithmetic in double belongs to rows that float32 cannot decide: it is dear, so that the way avoids it where it can.
    """
    place = {address: i for i, (address, _, _) in enumerate(code)}
    after: list[list[int]] = []
    for i, (_, predicate, text) in enumerate(code):
        opcode, following = text.split()[0], [i + 1] if i + 1 < len(code) else []
        if opcode == "BRA" and (found := re.search(r"0x([0-9a-f]+)", text)):
            conditional = bool(predicate) or re.match(r"BRA\s+!?U?P", text)
            after.append([place[int(found[1], 16)], *(following if conditional else [])])
        elif (opcode in ("EXIT", "BRX", "BRA") and not predicate) or opcode.startswith("RET"):  # BRA.DIV: lanes that parted
            after.append([])
        else:
            after.append(following)
    cost = [100 if text.startswith(("DADD", "DMUL", "DFMA", "DSETP", "CALL")) else 1 for _, _, text in code]

    def at(start: str, part: str) -> list[int]:
        return [i for i, (_, _, text) in enumerate(code) if text.startswith(start) and part in text]

    before: list[list[int]] = [[] for _ in after]
    for i, following in enumerate(after):
        for j in following:
            before[j].append(i)
    rounds = []
    for load in at("LDG", ".128"):
        onward, back = ways(after, load, lambda i, j: cost[i]), ways(before, load, lambda i, j: cost[j])
        stops = [i for i in at("FMNMX", "") or before[load] if i in onward and i in back]
        if stops:
            stop = min(stops, key=lambda i: onward[i][0] + back[i][0])
            indices = [*path(onward, stop)[::-1], stop, *path(back, stop)]
            if sum(code[i][2].startswith("LDG") and ".128" in code[i][2] for i in indices) > slots:
                rounds.append(indices[:-1])  # the load itself stands at both ends
    best = min(rounds, key=lambda indices: sum(cost[i] for i in indices), default=[])
    return [code[i][2].split()[0] for i in best]


Ways = dict[int, tuple[int, int]]  # cost of the cheapest way to a node, and the node before


def ways(after: list[list[int]], start: int, price: Callable[[int, int], int]) -> Ways:
    """The cheapest ways from a node to all that can be reached."""
    queue, found = [(0, start, -1)], Ways()
    while queue:
        spent, node, previous = heapq.heappop(queue)
        if node not in found:
            found[node] = spent, previous
            for following in after[node]:
                if following not in found:
                    heapq.heappush(queue, (spent + price(node, following), following, node))
    return found


def path(found: Ways, node: int) -> list[int]:
    """The nodes before this one, from the nearest to the start."""
    out = []
    while (node := found[node][1]) >= 0:
        out.append(node)
    return out


def variant(size: int, length: int, halved: bool) -> tuple[str, int, int]:
    """Team, 16-byte slots of a thread and threads of a block for aligned rows: `with_row_kernel` of rows/row_kernel.cuh.

    `halved`: long rows are shared by half the threads with twice the items.
    """
    eight, slots = size // 2, math.ceil(length * size / 16)
    middle, wide = (("Lanes<16>", 4 * eight), "BlockOf<256>") if size == 2 else (("Lanes<32>", 2 * eight), "BlockOf<512>")
    for team, held in (("Lanes<8>", eight), ("Lanes<8>", 4 * eight), middle, ("Lanes<32>", 4 * eight)):
        if slots <= int(team[6:-1]) * held:
            return team, held, 256
    if halved and slots > 256 * eight:
        wide, middle = "BlockOf<256>", ("", 4 * eight)
    threads = math.ceil(slots / middle[1])
    return wide, middle[1], math.ceil(threads / 32) * 32


def resident_blocks(kernel: Kernel, threads: int, device: Device) -> int:
    """Blocks that fit on a multiprocessor."""
    warps = math.ceil(threads / 32)
    per_warp = math.ceil(kernel.registers * 32 / 256) * 256
    by_shared = device.shared_bytes // (kernel.shared + 1024)
    return min(device.registers // per_warp // warps, device.warps // warps, device.blocks, by_shared)


def expectations(found: list[Kernel], code: dict[str, Code], device: Device) -> Iterator[Expectation]:
    by_name = {kernel.name: kernel for kernel in found}
    ops = sorted({match[1] for k in found if (match := re.match(r"register_rows_kernel<.*, \d+, (.+)>$", k.name))})
    loops: dict[str, list[str]] = {}
    for op in ops:
        for dtype, size in DTYPES.items():
            for length in LENGTHS:
                halved = f"register_rows_kernel<{dtype}, BlockOf<256>, {2 * size}, {op}>" in by_name
                team, slots, threads = variant(size, length, halved and size == 4)
                name = f"register_rows_kernel<{dtype}, {team}, {slots}, {op}>"
                kernel = by_name[name]
                if name not in loops:
                    loops[name] = row_loop(code[name], slots)
                loop = loops[name]
                if not loop:  # spills or another shape of code: nothing to derive a bound from
                    continue
                blocks = resident_blocks(kernel, threads, device)
                lanes = threads if team.startswith("Block") else int(team[6:-1])
                used = length * size / (lanes * slots * 16)  # of what a thread can hold
                moved = READ_AND_WRITTEN.get(op, lambda size: size)(size) / size
                flight = blocks * threads * slots * 16 * used
                needed = device.memory_bytes_per_s / device.multiprocessors * device.latency_s
                cycles = cycles_of(loop)
                memory = 32 * slots * 16 * used * moved / (device.memory_bytes_per_s / device.multiprocessors / device.clock_hz)
                # What is written needs no place to wait in.
                reach = flight * moved / needed, memory / cycles
                yield Expectation(
                    op,
                    dtype,
                    length,
                    name,
                    threads,
                    blocks * threads // 32,
                    len(loop),
                    round(cycles, 1),
                    *(round(x, 2) for x in reach),
                    round(min(1.0, *reach), 2),
                )


def nvcc_release() -> str:
    """Of the nvcc on PATH, such as 13.0; empty without one."""
    nvcc = shutil.which("nvcc")
    found = re.search(r"release ([\d.]+)", subprocess.check_output([nvcc, "--version"], text=True)) if nvcc else None
    return found[1] if found else ""


def default_library() -> Path:
    import ssl_kernels

    return Path(ssl_kernels.__file__).parent / "libsslk_cuda.so"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, help="by default the one that is installed")
    parser.add_argument("--arch", default="90")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--against", type=Path, metavar="LIBRARY", help="only name the kernels with other machine code than its")
    arguments = parser.parse_args()
    library, device = arguments.library or default_library(), Device()
    if arguments.against:
        code, before = (machine_code(demangled(dump(file, arguments.arch, "-sass"))) for file in (library, arguments.against))
        names = changed(code, before)
        for name in names:
            print(f"{len(before.get(name, [])):6d} -> {len(code[name]):6d} instructions: {name}")
        print(f"{len(code) - len(names)} of {len(code)} kernels have the machine code of one in {arguments.against}")
        return
    found, code = kernels(library, arguments.arch)
    expected = list(expectations(found, code, device))
    for kernel in found:
        spilled = f", {kernel.spills} accesses to local memory" if kernel.spills else ""
        print(
            f"{kernel.registers:4d} registers, {kernel.shared:6d} bytes shared, {kernel.warps:2d} warps{spilled}: {kernel.name}"
        )
    for e in expected:
        print(
            f"{e.op:18s} {e.dtype:14s} {e.length:5d}: {e.warps:2d} warps, {e.instructions:4d} instructions, "
            f"flight {e.flight:5.2f}, issue {e.issue:5.2f}, share {e.share:4.2f}"
        )
    if arguments.out:
        about = {"arch": f"sm_{arguments.arch}", "nvcc": nvcc_release(), "device": asdict(device)}
        parts = {"kernels": found, "expected": expected}
        lines = [f' "{key}": {json.dumps(value)},' for key, value in about.items()]
        for key, rows in parts.items():
            lines += [f' "{key}": [', ",\n".join(f"  {json.dumps(asdict(row))}" for row in rows), " ],"]
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text("{\n" + "\n".join(lines).removesuffix(",") + "\n}\n")


if __name__ == "__main__":
    main()
