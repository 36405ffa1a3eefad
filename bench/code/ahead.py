"""Compiles kernels for any GPU on a machine that has none, as Triton and CuPy would compile them on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from gpuopt.kernels.variant import Variant

CUPY_THREADS = 128
"""Of a block of an ``ElementwiseKernel``, unless its call says otherwise."""


@dataclass(frozen=True)
class Compiled:
    """One kernel for one architecture, and how it is launched.

    Attributes:
        ptx: As PTX.
        cubin: As the binary that a GPU runs.
        warps: Of a block.
        shared: Bytes of shared memory that each block is launched with.
    """

    ptx: str
    cubin: bytes
    warps: int
    shared: int = 0


def unavailable(driver: str) -> str | None:
    """Why the kernels of a driver cannot be compiled and read here; None when they can."""
    try:
        import triton
    except ImportError:
        return "Triton, which brings the tools that read binaries, is not installed (pip install 'gpuopt[torch]')"
    try:
        if driver == "triton":
            import torch  # noqa: F401 (the driver needs it)

            if triton.knobs.runtime.interpret:
                return "Triton interprets its kernels in this process (TRITON_INTERPRET=1)"
        else:
            from cupy_backends.cuda.libs import nvrtc

            nvrtc.getVersion()
    except ModuleNotFoundError as error:
        extra = "gpuopt[torch]" if driver == "triton" else "gpuopt[cuda13]"
        return f"{error.name} is not installed (pip install '{extra}')"
    except RuntimeError as error:
        return f"NVRTC cannot be loaded: {str(error).splitlines()[0]}"
    return None


def toolchain(driver: str) -> dict[str, str]:
    """Versions of what compiles the kernels of a driver that is available, by name."""
    if driver == "triton":
        import triton

        tools = {"ptxas": triton.knobs.nvidia.ptxas, "ptxas-blackwell": triton.knobs.nvidia.ptxas_blackwell}
        return {"triton": triton.__version__} | {name: tool.version for name, tool in tools.items()}
    import cupy
    from cupy_backends.cuda.libs import nvrtc

    return {"cupy": cupy.__version__, "nvrtc": ".".join(map(str, nvrtc.getVersion()))}


def compile_triton(variant: Variant, arch: str) -> Compiled:
    """The Triton driver's kernel of a step, with the arguments that the driver passes."""
    from gpuopt.kernels.drivers.triton import OPTIONS, constants, step_kernel

    types = {"rows": "*i64", "tile_tensor": "*i32", "hyper": _pointer(variant), "signals": "*i64"}
    return _compile(step_kernel, types, constants(variant), OPTIONS, arch)


def compile_square(variant: Variant, arch: str) -> Compiled:
    """The kernel that adds the squares of a variant's gradients."""
    from gpuopt.kernels.drivers.triton import TILE
    from gpuopt.kernels.drivers.triton_norm import OPTIONS, constants, square_kernel

    types = {"rows": "*i64", "tile_tensor": "*i32", "sums": "*fp64", "tiles": "i32", "each": "i32", "part": "i32"}
    return _compile(square_kernel, types, constants(variant, TILE), OPTIONS, arch)


def compile_clip(arch: str) -> Compiled:
    """The kernel that ends the norm."""
    from gpuopt.kernels.drivers.triton_norm import CLIP_CONSTANTS, OPTIONS, clip_kernel

    types = {"sums": "*fp64", "count": "i32", "max_norm": "*fp64", "loss_scale": "*fp32", "wide": "*fp64"}
    types["narrow"] = "*fp32"
    return _compile(clip_kernel, types, CLIP_CONSTANTS, OPTIONS, arch)


def compile_advance(variant: Variant, arch: str) -> Compiled:
    """The kernel that follows a schedule."""
    from gpuopt.kernels.drivers.triton_schedule import OPTIONS, advance_kernel, constants

    types = dict.fromkeys(("counts", "groups", "sources", "signals"), "*i64")
    types |= {"settings": "*fp64", "hyper": _pointer(variant), "tensors": "i32"}
    return _compile(advance_kernel, types, constants(variant.rule), OPTIONS, arch)


def _pointer(variant: Variant) -> str:
    return {"float32": "*fp32", "float64": "*fp64"}[variant.compute.name]


def _compile(
    kernel: Any, types: dict[str, str], constexprs: dict[str, Any], options: dict[str, Any], arch: str
) -> Compiled:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = types | dict.fromkeys(constexprs, "constexpr")
    source = ASTSource(
        fn=kernel,
        signature={name: signature[name] for name in kernel.arg_names},
        constexprs={(kernel.arg_names.index(name),): value for name, value in constexprs.items()},
    )
    target = GPUTarget("cuda", int(arch.removeprefix("sm_")), 32)
    compiled = triton.compile(source, target=target, options=options)
    metadata = compiled.metadata
    return Compiled(compiled.asm["ptx"], compiled.asm["cubin"], metadata.num_warps, metadata.shared)


def compile_cupy(kernel: Any, variant: Variant, arch: str) -> Compiled:
    """An ``ElementwiseKernel`` of the CuPy driver, called with arrays of one dimension."""
    from cupy._core import core
    from cupy.cuda import compiler
    from cupy_backends.cuda.libs import nvrtc

    # CuPy adds its headers and their folders here, before it first asks for a device.
    with patch.object(compiler, "_compile_module_with_cache", return_value=None) as compile_module:
        core.compile_with_cache(_elementwise_source(kernel, variant), kernel.kwargs["options"])
    source, options = compile_module.call_args.args
    # What it appends afterwards, in compiler._compile_with_cache_cuda and _compile_using_nvrtc_no_warning. The last
    # of two options that contradict each other wins.
    options += ("-ftz=true", f"-arch={arch}", "--device-as-default-execution-space")
    program = nvrtc.createProgram(source, f"{kernel.name}.cu", (), ())
    try:
        nvrtc.compileProgram(program, options)
        dropped = b"\0"  # CuPy's binding leaves out the last byte, as if a cubin were a string
        return Compiled(nvrtc.getPTX(program).decode(), nvrtc.getCUBIN(program) + dropped, CUPY_THREADS // 32)
    except nvrtc.NVRTCError as error:
        raise RuntimeError(nvrtc.getProgramLog(program)) from error
    finally:
        nvrtc.destroyProgram(program)


def _elementwise_source(kernel: Any, variant: Variant) -> str:
    """The CUDA source that CuPy writes. Its generator is private: this is the only place that knows it."""
    import cupy
    from cupy._core import _kernel

    array, indexer, scalar = 1, 2, 3  # kinds of argument
    arguments = []
    for parameter in kernel.params:
        if parameter.name == "_ind":
            kind, type_, dtype, ndim = indexer, object, None, 1
        elif parameter.name in variant.hyper_fields:
            kind, type_, dtype, ndim = scalar, parameter.dtype.type, parameter.dtype.type, 0
        else:
            kind, type_, dtype, ndim = array, cupy.ndarray, parameter.dtype.type, 1
        contiguous = short_index = True
        arguments.append(_kernel._ArgInfo(kind, type_, dtype, ndim, contiguous, short_index))
    source: str = _kernel._get_elementwise_kernel_code(
        tuple(arguments), _kernel._TypeMap(()), kernel.params, kernel.operation, kernel.name, kernel.preamble
    )
    return source
