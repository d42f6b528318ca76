"""What the compiler made of the CUDA kernels: nothing spills, and the committed table is of these sources."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench"))

import compiled  # noqa: E402

TABLE = ROOT / "bench" / "compiled" / "sm_90.json"


@pytest.fixture(scope="module")
def code():
    library = compiled.default_library()
    if not library.exists() or compiled.cuobjdump() is None:
        pytest.skip("the CUDA library was not built, or there is no cuobjdump")
    if "sm_90" not in compiled.architectures(library):
        pytest.skip("the CUDA library holds no code for sm_90")
    return compiled.kernels(library, "90")


def test_nothing_spills_and_every_block_fits(code):
    for kernel in code[0]:
        assert kernel.spills == kernel.stack == 0, kernel
        assert kernel.shared <= compiled.STATIC_SHARED_LIMIT, kernel
        assert compiled.resident_blocks(kernel, kernel.threads, compiled.Device()) >= 1, kernel
        if kernel.name.startswith("register_rows_kernel"):
            assert kernel.wide_loads > 0, kernel


def test_the_committed_table_is_of_these_sources(code):
    table = json.loads(TABLE.read_text())
    if table["nvcc"] != compiled.nvcc_release():
        pytest.skip(f"the table is of nvcc {table['nvcc']}, here is {compiled.nvcc_release() or 'none'}")
    hint = "run python bench/compiled.py --out bench/compiled/sm_90.json"
    assert [asdict(kernel) for kernel in code[0]] == table["kernels"], hint
    assert [asdict(e) for e in compiled.expectations(*code, compiled.Device())] == table["expected"], hint


# A loop over rows as cuobjdump prints it: the load of the next row, a slow way in double round which a branch leads, the
# selection, and the way back; a load before the loop, and a trap behind it.
LOOP = """
\t\tFunction : void register_rows_kernel<float, Lanes<8>, 1, QScoreOp<false> >(Rows)
        /*0000*/                   LDG.E.128 R4, desc[UR4][R2.64] ;   /* 0x0 */
        /*0010*/                   LDG.E.128 R4, desc[UR4][R2.64] ;   /* 0x0 */
        /*0020*/               @P0 BRA 0x50 ;                         /* 0x0 */
        /*0030*/                   DADD R8, R8, R10 ;                 /* 0x0 */
        /*0040*/                   BRA 0x70 ;                         /* 0x0 */
        /*0050*/                   FADD R8, R8, R10 ;                 /* 0x0 */
        /*0060*/                   FADD R8, R8, R11 ;                 /* 0x0 */
        /*0070*/              @!P1 FMNMX R8, R8, R9, PT ;             /* 0x0 */
        /*0080*/               @P2 BRA 0x10 ;                         /* 0x0 */
        /*0090*/                   EXIT ;                             /* 0x0 */
"""


def test_the_way_round_a_loop_avoids_double():
    (instructions,) = compiled.machine_code(LOOP).values()
    loop = compiled.row_loop(instructions, 1)
    assert sorted(loop) == ["BRA", "BRA", "FADD", "FADD", "FMNMX", "LDG.E.128"]
    assert compiled.cycles_of(loop) == 6 / 4


def test_a_kernel_with_other_instructions_is_named():
    before = compiled.machine_code(LOOP)
    (name,) = before
    assert compiled.changed({"renamed": before[name]}, before) == []
    assert compiled.changed(compiled.machine_code(LOOP.replace("FADD R8, R8, R11", "FADD R8, R8, R12")), before) == [name]
    assert compiled.changed(compiled.machine_code(LOOP.replace("@!P1", " @P1")), before) == [name]


def test_occupancy():
    def kernel(registers, shared=0):
        return compiled.Kernel("k", registers, 0, shared, 0, 0, 0, 1024)

    device = compiled.Device()  # 65,536 registers, 64 warps and 228 KB for a multiprocessor
    assert compiled.resident_blocks(kernel(32), 256, device) == 8
    assert compiled.resident_blocks(kernel(33), 256, device) == 6  # registers come in eights
    assert compiled.resident_blocks(kernel(128), 512, device) == 1
    assert compiled.resident_blocks(kernel(16, 48 << 10), 32, device) == 4
    assert compiled.resident_blocks(kernel(16), 32, device) == 32
