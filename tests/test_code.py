"""What the benchmark says of compiled code is right, and no worse than it was.

- Occupancy is that of NVIDIA's own calculator (``cuda_occupancy.h``, from Triton's wheel) for any registers, shared
  memory and warps; the limits of an architecture, and the bytes that must be in flight, are those of NVIDIA's headers.
- Of a listing, the way of a full tile is counted alone: not the masked loop, not the slow calls, and no loop twice.
- Where threads share scales, these are waited for but not counted as moved, and a warp goes on as one that has not
  parted. All else must be moved as ever.
- A slot's load is told from those of tables and scalars. What is in flight is what is asked for before the first
  answer is needed; a load that waits for another counts as a wait.
- The section has the keys of ``bench/SCHEMA.md``, is JSON, and names what it had to leave out and why.
- Every figure of every kernel that is compiled here is no worse than in the committed baseline, which has each kernel
  once. Where the compilers are not the baseline's, the figures cannot be compared, and the test is skipped. Triton's
  kernels are all compared, CuPy's in fp32 and bf16 on sm_90, to save time; ``python -m gpuopt.bench.code --full``
  compares all, and ``--write-baseline`` accepts what it finds.
"""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cupy
import pytest
import triton
from typer.testing import CliRunner

from gpuopt.bench.code import __main__ as command
from gpuopt.bench.code import ahead, baseline, disassembly, figures
from gpuopt.bench.code.full_tile import full_tile
from gpuopt.bench.code.gpus import ARCHS, GPUS, REGISTERS, SHARED_RESERVED
from gpuopt.bench.code.listing import instructions
from gpuopt.bench.code.waits import Traffic, traffic
from gpuopt.kernels.drivers import triton as driver
from gpuopt.verify.variants import variants

VARIANTS = variants()
SIMPLEST = figures.quick(VARIANTS)[0]

HEADERS = Path(triton.__file__).parent / "backends" / "nvidia" / "include"
CCCL = Path(cupy.__file__).parent / "_core" / "include" / "cupy" / "_cccl"


CALCULATOR = """
#include <cuda_occupancy.h>
extern "C" int resident_blocks(int major, size_t shared_of_sm, int registers, size_t shared, int threads) {
    cudaOccDeviceProp gpu;
    gpu.computeMajor = major;
    gpu.maxThreadsPerBlock = 1024;
    gpu.maxThreadsPerMultiprocessor = 2048;
    gpu.regsPerBlock = gpu.regsPerMultiprocessor = 65536;
    gpu.warpSize = 32;
    gpu.sharedMemPerBlock = 48 << 10;
    gpu.sharedMemPerMultiprocessor = shared_of_sm;
    gpu.reservedSharedMemPerBlock = 1024;
    gpu.sharedMemPerBlockOptin = shared_of_sm - 1024;
    gpu.numSms = 1;
    cudaOccFuncAttributes kernel;
    kernel.maxThreadsPerBlock = 1024;
    kernel.numRegs = registers;
    kernel.sharedSizeBytes = 0;
    kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    kernel.maxDynamicSharedSizeBytes = gpu.sharedMemPerBlockOptin;
    cudaOccDeviceState state;
    state.carveoutConfig = SHAREDMEM_CARVEOUT_MAX_SHARED;
    cudaOccResult result;
    if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &gpu, &kernel, &state, threads, shared)) return -1;
    return result.activeBlocksPerMultiprocessor;
}
"""


@pytest.fixture(scope="module")
def calculator(tmp_path_factory):
    """NVIDIA's occupancy calculator, compiled for the host."""
    folder = tmp_path_factory.mktemp("occupancy")
    (folder / "occupancy.cpp").write_text(CALCULATOR)
    library = folder / "occupancy.so"
    command = ["g++", "-shared", "-fPIC", "-w", f"-I{HEADERS}", str(folder / "occupancy.cpp"), "-o", str(library)]
    subprocess.run(command, check=True)
    resident_blocks = ctypes.CDLL(str(library)).resident_blocks
    resident_blocks.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_int, ctypes.c_size_t, ctypes.c_int]
    return resident_blocks


@pytest.mark.parametrize("arch", ARCHS)
def test_occupancy_is_that_of_nvidias_calculator(arch, calculator):
    gpu = GPUS[arch]
    major = int(arch.removeprefix("sm_")) // 10
    fits = [gpu.shared // blocks - SHARED_RESERVED for blocks in range(2, 33)]
    for warps in (1, 2, 3, 4, 5, 8, 16):
        for registers in range(8, 256):
            for shared in (0, 4096, *fits, *(most + 1 for most in fits)):
                blocks = calculator(major, gpu.shared, registers, shared, 32 * warps)
                if blocks > 0:  # else such a block cannot be launched
                    assert gpu.occupancy(registers, shared, warps) * gpu.warps == blocks * warps


def test_registers_of_a_thread_are_limited():
    with pytest.raises(ValueError, match=r"registers must be in \[1, 255\], but is 256"):
        GPUS["sm_90"].occupancy(256, 0, 4)


@pytest.mark.parametrize("arch", ARCHS)
def test_limits_are_those_of_nvidias_headers(arch):
    header = (CCCL / "libcudacxx" / "cuda" / "__device" / "arch_traits.h").read_text()
    body = re.search(rf"arch_traits<arch_id::{arch}>\(\) noexcept\n{{(.*?)\n}}", header, re.DOTALL)[1]
    gpu = GPUS[arch]
    assert f"max_shared_memory_per_multiprocessor = {gpu.shared >> 10} * 1024;" in body
    assert re.search(rf"max_blocks_per_multiprocessor\s*= {gpu.blocks};", body)
    assert re.search(rf"max_threads_per_multiprocessor\s*= {32 * gpu.warps};", body)
    assert re.search(rf"max_registers_per_multiprocessor\s*= {REGISTERS >> 10} \* 1024;", header)
    assert f"reserved_shared_memory_per_block = (__cc >= compute_capability{{80}}) ? {SHARED_RESERVED} : 0;" in header


def test_bytes_in_flight_are_those_of_nvidias_library():
    header = (CCCL / "cub" / "cub" / "device" / "dispatch" / "tuning" / "tuning_transform.cuh").read_text()
    body = re.search(r"arch_to_min_bytes_in_flight\(int sm_arch\)\n{(.*?)\n}", header, re.DOTALL)[1]
    a100, h100, b200 = (
        int(re.search(pattern, body)[1]) << 10
        for pattern in (r"return (\d+) \* 1024; // A100", r"// (\d+) for H100", r"return (\d+) \* 1024; // B200")
    )
    assert [GPUS[arch].loads_in_flight for arch in ARCHS] == [a100, h100, b200]


def test_time_and_slots():
    gpu = GPUS["sm_90"]
    # 28 bytes of Adam at 3.35e12 / 132 bytes per second, 4 times 32 instructions at each of 1.98e9 cycles
    assert gpu.issue_slots(28) == pytest.approx(28 / 3.35e12 * 132 * 1.98e9 * 128, rel=1e-3)
    assert gpu.latency * gpu.bandwidth_per_sm == pytest.approx(gpu.loads_in_flight)


def listing(text: str) -> str:
    """A listing as the disassembler prints it, of lines without addresses; ``<name>:`` and ``<name>`` are labels."""
    lines = [line.strip() for line in text.strip().splitlines()]
    labels: dict[str, int] = {}
    code = []
    for line in lines:
        if line.endswith(":"):
            labels[line[:-1]] = 16 * len(code)
        else:
            code.append(line)
    for name, address in labels.items():
        code = [re.sub(rf"\b{name}\b", hex(address), line) for line in code]
    return "\n".join(f"        /*{16 * k:04x}*/                   {line} ;" for k, line in enumerate(code))


STEP = """
    S2R R0, SR_TID.X
    LDC.64 R2, c[0x0][0x210]
    LDG.E R4, desc[UR4][R2.64]
    IMAD.WIDE R6, R4, 0x58, R2
    LDG.E.64 R8, desc[UR4][R6.64]
    LDG.E.64 R10, desc[UR4][R6.64+0x8]
    LDG.E R12, desc[UR4][R6.64+0x18]
    ISETP.GT.U32.AND P0, PT, R8, R12, PT
    @!P0 BRA full
masked:
    IMAD.WIDE.U32 R16, R0, 0x4, R8
    LDG.E R20, desc[UR4][R16.64]
    FADD R20, R20, 1
    STG.E desc[UR4][R16.64], R20
    @P1 BRA masked
    EXIT
full:
    IMAD.WIDE.U32 R16, R0, 0x10, R8
    IMAD.WIDE.U32 R18, R0, 0x10, R10
    LDG.E.128 R20, desc[UR4][R16.64]
    LDG.E.128 R24, desc[UR4][R18.64]
    FMUL R28, R12, R12
    FADD R20, R20, R24
    FCHK P2, R20, R12
    @!P2 BRA fast
    CALL.REL.NOINC slow
    BRA done
fast:
    FMUL R21, R21, R20
    FMUL R21, R21, R20
    FMUL R21, R21, R20
done:
    STG.E.128 desc[UR4][R16.64], R20
    EXIT
slow:
    FADD R20, R20, R20
    RET.REL.NODEC R30 0x0
"""
"""A step of ``p = f(p, g)``: a row of a table is found, then its two addresses and a scalar, then both slots."""


def test_the_way_of_a_full_tile_is_followed_alone():
    way = full_tile(instructions(listing(STEP)))
    assert len(way) == 9 + 8 + 3 + 2
    opcodes = [each.opcode for each in way]
    assert opcodes.count("STG.E.128") == 1
    assert "STG.E" not in opcodes
    assert "CALL.REL.NOINC" not in opcodes
    assert opcodes.count("FMUL") == 1 + 3


def test_zeros_of_a_skipped_step_are_no_part_of_a_full_tile():
    zeroing = STEP.replace(
        """    EXIT
slow:""",
        """    @P3 EXIT
    STG.E.U16 desc[UR4][R18.64], RZ
    EXIT
slow:""",
    )
    assert full_tile(instructions(listing(zeroing)))[-1].opcode == "EXIT"
    assert [each.opcode for each in full_tile(instructions(listing(zeroing)))].count("STG.E.U16") == 0


def test_a_gradient_that_is_not_aligned_is_no_part_of_a_full_tile():
    narrow = STEP.replace(
        "full:",
        """    IMAD.WIDE.U32 R16, R0, 0x10, R8
    LDG.E R20, desc[UR4][R16.64]
    STG.E.128 desc[UR4][R16.64], R20
    EXIT
full:""",
    ).replace("    @P1 BRA masked\n    EXIT", "    @P1 BRA masked\n    @P4 EXIT")
    assert full_tile(instructions(listing(narrow)))[9].opcode == "IMAD.WIDE.U32"
    assert [each.opcode for each in full_tile(instructions(listing(narrow)))].count("LDG.E.128") == 2


def test_loads_of_slots_are_told_from_others_and_waits_are_counted():
    way = full_tile(instructions(listing(STEP)))
    # The row, then addresses and scalar at once, then both slots at once.
    assert traffic(way, table=True) == Traffic(loads=(16, 16), stores=(16,), in_flight=32, waits=3)


def test_a_slot_that_is_needed_before_the_next_is_asked_for_is_alone_in_flight():
    late = STEP.replace("LDG.E.128 R24, desc[UR4][R18.64]\n", "FADD R22, R22, R12\nLDG.E.128 R24, desc[UR4][R18.64]\n")
    way = full_tile(instructions(listing(late)))
    assert traffic(way, table=True) == Traffic(loads=(16, 16), stores=(16,), in_flight=16, waits=4)


def test_without_a_table_every_load_at_an_index_is_of_a_slot():
    way = full_tile(
        instructions(
            listing("""
    S2R R0, SR_TID.X
    LDC.64 R2, c[0x0][0x160]
loop:
    IMAD.WIDE R4, R0, 0x2, R2
    LDG.E.U16 R6, desc[UR4][R4.64]
    IMAD.WIDE R8, R0, 0x8, R2
    LDG.E.64 R10, desc[UR4][R8.64]
    DADD R10, R10, R10
    STG.E.64 desc[UR4][R8.64], R10
    IADD3 R0, P0, R0, 0x80, RZ
    @!P1 BRA loop
    EXIT
""")
        )
    )
    assert len(way) == 11
    assert traffic(way, table=False) == Traffic(loads=(2, 8), stores=(8,), in_flight=10, waits=1)


SHARED = STEP.replace(
    """    STG.E.128 desc[UR4][R16.64], R20
    EXIT
slow:""",
    """    STG.E.128 desc[UR4][R16.64], R20
    BRA.DIV UR8, parted
    SHFL.BFLY PT, R30, R20, 0x8, 0x1f
joined:
    FMUL R30, R30, R32
    @!P3 ST.E desc[UR4][R18.64], R30
    EXIT
parted:
    WARPSYNC.COLLECTIVE R53, joined
    SHFL.BFLY P5, R30, R20, R5, R4
    BRA joined
slow:""",
).replace("    FMUL R28, R12, R12\n", "    LD.E R32, desc[UR4][R18.64]\n    FMUL R28, R12, R12\n")
"""Beside that, threads exchange what one of them stores for all; what was so stored before is loaded at the start."""


def test_a_warp_that_has_not_parted_goes_on():
    opcodes = [each.opcode for each in full_tile(instructions(listing(SHARED)))]
    assert (opcodes.count("BRA.DIV"), opcodes.count("SHFL.BFLY"), opcodes[-2:]) == (1, 1, ["ST.E", "EXIT"])
    assert "WARPSYNC.COLLECTIVE" not in opcodes


def test_what_threads_share_is_waited_for_and_not_moved():
    way = full_tile(instructions(listing(SHARED)))
    assert traffic(way, table=True, scale=4) == Traffic(loads=(16, 16), stores=(16,), in_flight=32, waits=3)
    late = SHARED.replace("[UR4][R18.64]\n    FMUL R28", "[UR4][R20.64]\n    FMUL R28")  # where is loaded
    assert traffic(full_tile(instructions(listing(late))), table=True, scale=4).waits == 4
    plain = SHARED.replace("LD.E R32", "LDG.E R32")
    assert traffic(full_tile(instructions(listing(plain))), table=True).loads == (16, 16, 4)


def test_a_kernel_that_stores_nothing_is_refused():
    with pytest.raises(ValueError, match="must store to global memory, but this one does not"):
        full_tile(instructions(listing("EXIT")))


@pytest.mark.parametrize(
    ("line", "written", "read"),
    [
        ("LDG.E.128 R4, desc[UR4][R2.64+0x10]", {"R4", "R5", "R6", "R7"}, {"UR4", "R2"}),
        ("@!P0 LDG.E R9, desc[UR6][R4.64]", {"R9"}, {"UR6", "R4"}),
        ("STG.E.64 desc[UR4][R2.64], R8", set(), {"UR4", "R2", "R8"}),
        ("IADD3 R12, P0, R8.reuse, -R12, RZ", {"R12"}, {"R8", "R12"}),
        ("ISETP.NE.U32.AND P0, PT, R2, RZ, PT", set(), {"R2"}),
        ("FCHK P0, R50, R9", set(), {"R50", "R9"}),
        ("LOP3.LUT P0, RZ, R0, 0x7fffffff, RZ, 0xc0, !PT", set(), {"R0"}),
        ("IMAD.WIDE.U32 R54, R6, 0x24, R54", {"R54", "R55"}, {"R6", "R54"}),
        ("DFMA R2, R4, -R6, 1", {"R2", "R3"}, {"R4", "R6"}),
        ("FMUL2 R2, R4.F32x2, R6.F32", {"R2", "R3"}, {"R4", "R6"}),
        ("S2R R0, SR_TID.X", {"R0"}, set()),
        ("R2UR UR12, R8", {"UR12"}, {"R8"}),
        ("FSETP.NEU.FTZ.AND P1, PT, |R36|, +INF , PT", set(), {"R36"}),
    ],
)
def test_what_an_instruction_writes_and_reads(line, written, read):
    (instruction,) = instructions(listing(line))
    assert instruction.written == written
    assert {register for register in instruction.read if "P" not in register} == read


def test_many_binaries_are_read_at_once():
    of_one = [ahead.compile_triton(variant, "sm_90").cubin for variant in figures.quick(VARIANTS)[:2]]
    first, second = disassembly.disassemble(of_one, "sm_90")
    assert [each.opcode for each in disassembly.disassemble(of_one[1:], "sm_90")[0]] == [each.opcode for each in second]
    assert len(first) != len(second)
    with pytest.raises(ValueError, match="a binary must have one kernel, but has 0"):
        disassembly.kernel_code(of_one[0].replace(b".text.", b".data."))


@pytest.fixture(scope="module")
def small():
    """The section of the simplest variant."""
    return figures.section([SIMPLEST], ("sm_90",))


def documented(heading: str) -> set[str]:
    """The keys of the table that follows ``heading`` in the schema."""
    text = (Path(baseline.PATH).parents[1] / "SCHEMA.md").read_text().partition(heading)[2]
    rows = re.search(r"\|---\|---\|\n((?:\|.*\n)+)", text)[1]
    return {key for row in rows.splitlines() for key in re.findall(r"`(\w+)`", row.split("|")[1])}


def test_the_section_is_as_documented(small):
    assert json.loads(json.dumps(small)) == small
    assert set(small) == documented("## `code`")
    assert [set(kernel) for kernel in small["kernels"]] == [documented("A kernel is")] * 3
    assert "not measured" in small["note"]
    assert [(kernel["driver"], kernel["form"]) for kernel in small["kernels"]] == [
        ("triton", "step"),
        ("cupy", "table"),
        ("cupy", "array"),
    ]
    assert small["skipped"] == []


def test_the_figures_of_a_kernel(small):
    triton_step, cupy_table, cupy_array = small["kernels"]
    elements = driver.TILE // (32 * driver.OPTIONS["num_warps"])
    assert [kernel["elements"] for kernel in small["kernels"]] == [elements, 4, 1]
    assert [kernel["vector_bytes"] for kernel in small["kernels"]] == [16, 16, 4]
    assert [kernel["stack"] for kernel in small["kernels"]] == [0, 0, 0]
    for kernel in small["kernels"]:
        warps = kernel["occupancy"] * GPUS["sm_90"].warps
        assert kernel["bytes_in_flight"] <= warps * 32 * kernel["elements"] * 16  # Adam in fp32 reads 16 bytes
        assert kernel["budget"] == round(GPUS["sm_90"].issue_slots(28), 1)
    assert triton_step["bytes_in_flight"] > cupy_table["bytes_in_flight"] > cupy_array["bytes_in_flight"]


@pytest.mark.parametrize(
    ("waits", "length", "limit"), [(0, 10, "memory"), (1, 10, "latency"), (0, 2000, "issue")], ids=str
)
def test_the_limit_is_what_takes_longest(monkeypatch, waits, length, limit):
    kernel = figures.Kernel("triton", "step", SIMPLEST, "sm_90")
    moved = Traffic((16,) * 4, (16,) * 3, in_flight=4 if waits else 64, waits=waits)
    monkeypatch.setattr(figures, "full_tile", lambda code: [SimpleNamespace(kind="FADD", guard="")] * length)
    monkeypatch.setattr(figures, "traffic", lambda way, table, scale: moved)
    monkeypatch.setattr(figures.sass, "resources", lambda cubin: {"REG": 64, "STACK": 0})
    found = figures.figures(kernel, ahead.Compiled("", b"", warps=4), [])
    assert (found["limit"], found["instructions"], found["occupancy"]) == (limit, length / 4, 0.5)
    assert found["bytes_in_flight"] == 32 * 32 * moved.in_flight


IN_BLOCKS = [variant for variant in VARIANTS if variant.in_blocks]


@pytest.mark.parametrize("variant", IN_BLOCKS[:2], ids=str)
def test_the_figures_of_a_kernel_in_blocks(variant):
    for kernel in figures.section([variant], ("sm_90",))["kernels"]:
        elements = driver.TILE // (32 * driver.OPTIONS["num_warps"])
        assert (kernel["elements"], kernel["vector_bytes"], kernel["stack"]) == (elements, elements, 0)
        loaded = sum(
            plane.storage.itemsize for _, plane in variant.planes.values() if plane.block == 1
        )  # of an element, without scales
        warps = kernel["occupancy"] * GPUS["sm_90"].warps
        assert kernel["bytes_in_flight"] <= warps * 32 * elements * loaded
        assert kernel["budget"] == round(GPUS["sm_90"].issue_slots(variant.bytes_per_element), 1)


def test_codes_of_which_some_are_not_moved_are_named(monkeypatch):
    some = Traffic((16, 16, 16, 16, 8), (16, 16, 8, 8), 72, 1)
    monkeypatch.setattr(figures, "traffic", lambda way, table, scale: some)
    found = figures.section(IN_BLOCKS[:1], ("sm_90",), ("triton",))
    (skipped,) = found["skipped"]
    assert "must load 10 bytes for each element that it stores, but loads 72 and stores 48" in skipped["why"]


def test_what_cannot_be_read_is_named(monkeypatch):
    monkeypatch.setattr(figures, "traffic", lambda way, table, scale: Traffic((16,), (16,) * 3, 16, 1))
    found = figures.section([SIMPLEST], ("sm_90",), ("triton",))
    assert found["kernels"] == []
    (skipped,) = found["skipped"]
    assert skipped["what"] == f"triton step sm_90 {SIMPLEST}"
    assert "must load 16 bytes for each element that it stores, but loads 16 and stores 48" in skipped["why"]


def test_a_driver_that_is_not_there_is_named_and_progress_goes_on(monkeypatch):
    monkeypatch.setattr(ahead, "unavailable", lambda driver: f"no {driver}" if driver == "cupy" else None)
    done = []
    found = figures.section([SIMPLEST], ("sm_90",), advance=lambda: done.append(None))
    assert found["skipped"] == [{"what": "cupy", "why": "no cupy"}]
    assert {kernel["driver"] for kernel in found["kernels"]} == set(found["toolchain"]) == {"triton"}
    assert len(done) == len(figures.kernels([SIMPLEST], ("sm_90",))) == 3


@pytest.mark.parametrize(
    ("driver", "module", "why"),
    [("triton", "triton", "Triton, which brings"), ("cupy", "triton", "Triton"), ("triton", "torch", "torch is not")],
)
def test_what_is_not_installed_is_named_with_the_extra(monkeypatch, driver, module, why):
    monkeypatch.setitem(sys.modules, module, None)
    assert re.match(why + r".*\(pip install 'gpuopt\[\w+\]'\)", ahead.unavailable(driver))


def test_unknown_names_list_what_there_is():
    with pytest.raises(ValueError, match="arch must be one of sm_80, sm_90, sm_100, but is 'sm_70'"):
        figures.kernels(VARIANTS, ("sm_70",))
    with pytest.raises(ValueError, match="driver must be one of triton, cupy, but is 'numpy'"):
        figures.kernels(VARIANTS, drivers=("numpy",))


WORSE = {
    "vector_bytes": 8,
    "stack": 8,
    "occupancy": 0.25,
    "bytes_in_flight": 1,
    "waits": 99,
    "instructions": 999.0,
}


def test_a_baseline_is_read_as_written_and_what_is_worse_is_named(small, tmp_path):
    path = tmp_path / "baseline.json"
    baseline.write(small, path)
    assert len(path.read_text().splitlines()) == len(small["kernels"]) + 6
    kept = baseline.read(path)
    assert kept["toolchain"] == small["toolchain"]
    assert baseline.worse(small["kernels"], kept) == []

    kernel = small["kernels"][0]
    assert set(WORSE) == set(baseline.HIGHER_IS_WORSE)
    for figure, value in WORSE.items():
        name = baseline.name(kernel)
        assert baseline.worse([kernel | {figure: value}], kept) == [
            f"{name}: {figure} is {value}, was {kernel[figure]}"
        ]
        kept["kernels"][name][figure] = value
        assert baseline.worse([kernel], kept) == []  # it became better
        kept = baseline.read(path)
    assert baseline.worse([kernel | {"registers": kernel["registers"] + 1}], kept) == []  # occupancy is the same
    assert baseline.worse([kernel | {"form": "new"}], kept) == [f"triton new sm_90 {SIMPLEST} is not in the baseline"]


def test_a_baseline_with_gaps_or_other_figures_is_refused(small, tmp_path):
    with pytest.raises(ValueError, match=r"must have every kernel, but some were skipped \(cupy: gone\)"):
        baseline.write(small | {"skipped": [{"what": "cupy", "why": "gone"}]}, tmp_path / "baseline.json")
    baseline.write(small, tmp_path / "baseline.json")
    text = (tmp_path / "baseline.json").read_text()
    (tmp_path / "baseline.json").write_text(text.replace('"waits"', '"delays"'))
    with pytest.raises(ValueError, match=r"must have the figures .*'waits'.* but has .*'delays'"):
        baseline.read(tmp_path / "baseline.json")


def test_other_compilers_are_named():
    kept = {"toolchain": {"cupy": {"cupy": "14.2.0", "nvrtc": "13.5"}}}
    assert baseline.other_toolchain("cupy", {"cupy": "14.2.0", "nvrtc": "13.5"}, kept) is None
    assert baseline.other_toolchain("cupy", {"cupy": "14.2.0", "nvrtc": "12.9"}, kept) == (
        "the baseline of cupy was compiled by cupy 14.2.0, nvrtc 13.5; here is cupy 14.2.0, nvrtc 12.9"
    )


def test_the_baseline_has_every_kernel_once():
    names = [kernel.name for kernel in figures.kernels(VARIANTS)]
    assert sorted(names) == list(baseline.read()["kernels"])


def compared(driver: str) -> tuple[tuple[str, ...], list]:
    """Architectures and variants for which the kernels of a driver are compared here."""
    if driver == "triton":
        return ARCHS, VARIANTS
    stored = [{format.name for format in variant.formats if format is not None} for variant in VARIANTS]
    return ("sm_90",), [
        variant for variant, names in zip(VARIANTS, stored, strict=True) if names in ({"fp32"}, {"bf16"})
    ]


@pytest.mark.parametrize("driver", figures.FORMS)
def test_no_kernel_is_worse_than_in_the_baseline(driver):
    kept = baseline.read()
    why = baseline.other_toolchain(driver, ahead.toolchain(driver), kept)
    if why:
        pytest.skip(why)
    archs, chosen = compared(driver)
    found = figures.section(chosen, archs, (driver,))
    assert found["skipped"] == []
    assert baseline.worse(found["kernels"], kept) == []


@pytest.mark.parametrize(
    ("tile", "warps", "figure"), [(256, 4, "vector_bytes"), (4096, 4, "occupancy"), (1024, 32, "instructions")]
)
def test_a_kernel_that_is_made_worse_is_found(monkeypatch, tile, warps, figure):
    kept = baseline.read()
    why = baseline.other_toolchain("triton", ahead.toolchain("triton"), kept)
    if why:
        pytest.skip(why)
    constants = driver.constants
    monkeypatch.setattr(driver, "constants", lambda variant: constants(variant, tile))
    monkeypatch.setattr(driver, "OPTIONS", driver.OPTIONS | {"num_warps": warps})
    found = figures.section([SIMPLEST], ("sm_90",), ("triton",))
    assert any(f": {figure} is " in sentence for sentence in baseline.worse(found["kernels"], kept))


def invoke(monkeypatch, found: dict, *arguments: str):
    monkeypatch.setattr(command, "section", lambda *arguments, advance: found)
    return CliRunner().invoke(command.app, arguments)


@pytest.fixture
def elsewhere(monkeypatch, tmp_path) -> Path:
    """Where the baseline is instead of in the repository: a file that is not there yet."""
    path = tmp_path / "baseline.json"
    monkeypatch.setattr(baseline, "PATH", path)
    for function in (baseline.read, baseline.write):
        monkeypatch.setattr(function, "__defaults__", (path,))
    return path


def test_the_command_shows_compares_and_fails_where_worse(monkeypatch, small, elsewhere):
    result = invoke(monkeypatch, small)
    assert (result.exit_code, "Not compared: baseline.json is in a checkout alone" in result.output) == (0, True)
    result = invoke(monkeypatch, small, "--write-baseline")
    assert (result.exit_code, "Wrote 3 kernels" in result.output) == (0, True)
    result = invoke(monkeypatch, small)
    assert result.exit_code == 0
    assert "triton adam fp32" in result.output
    assert "computed from code" in result.output
    assert "3 kernels are no worse than in the baseline" in result.output

    worse = small | {"kernels": [small["kernels"][0] | {"stack": 8}, *small["kernels"][1:]]}
    result = invoke(monkeypatch, worse)
    assert (result.exit_code, "stack is 8, was 0" in result.output) == (command.WORSE, True)
    assert f"{small['kernels'][0]['registers']}+8 " in result.output


def test_the_command_says_what_cannot_be_compared_or_written(monkeypatch, small, elsewhere):
    baseline.write(small)
    older = small | {"toolchain": {"triton": {"triton": "3.6.0"}}, "skipped": [{"what": "cupy", "why": "gone"}]}
    result = invoke(monkeypatch, older)
    assert result.exit_code == 0
    assert "Not compared: the baseline of triton was compiled by triton" in result.output
    assert "cupy was skipped: gone" in result.output
    assert "no worse" not in result.output

    result = invoke(monkeypatch, older, "--write-baseline")
    assert (result.exit_code, "Not written: a baseline must have every kernel" in result.output) == (2, True)
    elsewhere.unlink()
    elsewhere.mkdir()
    result = invoke(monkeypatch, small, "--write-baseline")
    assert (result.exit_code, "Not written:" in result.output) == (command.UNUSABLE, True)
