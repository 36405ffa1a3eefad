"""CUDA C++ made from a rule's form: the bodies of the CuPy driver's kernels.

The same text compiles for the host, which is how its bits are checked where there is no GPU.
"""

from __future__ import annotations

from gpuopt.kernels import prologue
from gpuopt.kernels.cuda_math import ARITHMETIC
from gpuopt.kernels.table import ALIGNMENT, FAST_NUMEL, FIRST_TILE, HYPER_ROW, NUMEL, POINTERS
from gpuopt.kernels.variant import Variant

_ACCESS = """
// 16 aligned bytes of global memory. In PTX, since compilers split such accesses or take them for generic ones.
static __device__ inline void load_16_bytes(void* to, const void* from) {
#ifdef __CUDA_ARCH__
    unsigned int* const word = static_cast<unsigned int*>(to);
    asm volatile("ld.global.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3]) : "l"(from));
#else
    memcpy(to, __builtin_assume_aligned(from, 16), 16);
#endif
}

static __device__ inline void store_16_bytes(void* to, const void* from) {
#ifdef __CUDA_ARCH__
    const unsigned int* const word = static_cast<const unsigned int*>(from);
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"
                 :: "l"(to), "r"(word[0]), "r"(word[1]), "r"(word[2]), "r"(word[3]) : "memory");
#else
    memcpy(__builtin_assume_aligned(to, 16), from, 16);
#endif
}

template <class F, class T, class S, int N>
static __device__ inline void load_whole(T (&values)[N], const S* from) {
    alignas(16) S stored[N];
#pragma unroll
    for (int k = 0; k < N; k += 16 / sizeof(S)) load_16_bytes(stored + k, from + k);
#pragma unroll
    for (int k = 0; k < N; ++k) widen(values[k], F::load(stored[k]));
}

template <class F, class T, class S, int N>
static __device__ inline void store_whole(const T (&values)[N], S* to) {
    alignas(16) S stored[N];
#pragma unroll
    for (int k = 0; k < N; ++k) stored[k] = F::store(values[k]);
#pragma unroll
    for (int k = 0; k < N; k += 16 / sizeof(S)) store_16_bytes(to + k, stored + k);
}
"""

_LOCALS = ("p", "g")
"""What the forms call the first two slots."""


def compute_type(variant: Variant) -> str:
    """The C++ type of the arithmetic."""
    return {"float32": "ieee_float", "float64": "double"}[variant.compute.name]


def elements_per_thread(variant: Variant) -> int:
    """As many elements as make 16 bytes of the narrowest slot."""
    return ALIGNMENT // min(format.itemsize for format in variant.formats if format is not None)


def preamble(variant: Variant) -> str:
    """Definitions that both bodies need."""
    formats = {format.name: format.cuda_form for format in variant.formats if format is not None}
    return ARITHMETIC + "".join(formats.values()) + _ACCESS


def table_body(variant: Variant, tile: int) -> str:
    """Statements for thread ``i`` of a launch over a table.

    Expects ``rows``, ``tile_tensor`` and ``hyper`` as the arrays of :class:`~gpuopt.kernels.table.Table`, and
    ``tiles * tile / elements_per_thread`` threads.
    """
    count = elements_per_thread(variant)
    present = _present(variant)
    width = POINTERS + len(variant.slots)
    lines = [
        f"typedef {compute_type(variant)} T;",
        f"const unsigned long long thread = i, lanes = {tile // count};",
        "const long long tile = thread / lanes;",
        f"const long long row = tile_tensor[tile] * {width}LL;",
        f"const long long start = (tile - rows[row + {FIRST_TILE}]) * {tile} + (thread % lanes) * {count};",
        f"const long long left = rows[row + {NUMEL}] - start;",
        f"const long long scalars = rows[row + {HYPER_ROW}] * {len(variant.hyper_fields)};",
    ]
    lines += [f"const T {field} = hyper[scalars + {k}];" for k, field in enumerate(variant.hyper_fields)]
    lines += [
        f"{stored}* const {name}_at = reinterpret_cast<{stored}*>(rows[row + {POINTERS + column}]) + start;"
        for name, column, stored, _ in present
    ]
    arguments = ", ".join(f"T {'' if name == 'g' else '&'}{name}" for name, *_ in present)
    lines += [f"const auto step = [&]({arguments}) {{", _arithmetic(variant), "};"]

    lines += [f"if (start + {count} <= rows[row + {FAST_NUMEL}]) {{"]
    for name, _, _, form in present:
        lines += [f"T {name}[{count}];", f"load_whole<{form}>({name}, {name}_at);"]
    elements = ", ".join(f"{name}[k]" for name, *_ in present)
    lines += ["#pragma unroll", f"for (int k = 0; k < {count}; ++k) step({elements});"]
    lines += [f"store_whole<{form}>({name}, {name}_at);" for name, _, _, form in present if name != "g"]

    lines += ["} else {", "#pragma unroll 1", f"for (int k = 0; k < {count} && k < left; ++k) {{"]
    lines += [f"T {name}; widen({name}, {form}::load({name}_at[k]));" for name, _, _, form in present]
    lines += [f"step({', '.join(name for name, *_ in present)});"]
    lines += [f"{name}_at[k] = {form}::store({name});" for name, _, _, form in present if name != "g"]
    lines += ["}", "}"]
    return "\n".join(lines)


def array_body(variant: Variant) -> str:
    """Statements for one element of single arrays.

    Expects each slot's stored element as ``<name>_stored`` and each hyper field by name.
    """
    present = _present(variant)
    lines = [f"typedef {compute_type(variant)} T;"]
    # The elements are references that may alias, so all loads come before the first store.
    lines += [f"T {name}; widen({name}, {form}::load({name}_stored));" for name, _, _, form in present]
    lines += [_arithmetic(variant)]
    lines += [f"{name}_stored = {form}::store({name});" for name, _, _, form in present if name != "g"]
    return "\n".join(lines)


def slot_names(variant: Variant) -> list[str]:
    """The names of the slots that are present, as the bodies know them."""
    return [name for name, *_ in _present(variant)]


def _present(variant: Variant) -> list[tuple[str, int, str, str]]:
    """Name, column, stored C++ type and format of each slot that is there."""
    names = (*_LOCALS, *variant.rule.slots)
    return [
        (name, column, format.cuda_type, format.name)
        for column, (name, format) in enumerate(zip(names, variant.formats, strict=True))
        if format is not None
    ]


def _arithmetic(variant: Variant) -> str:
    """Prologue and rule, with a constant and a stand-in for each optional slot."""
    lines = []
    for slot in variant.rule.optional:
        lines.append(f"constexpr bool has_{slot} = {'true' if slot in variant.state else 'false'};")
        if slot not in variant.state:
            lines.append(f"T {slot} = T(0); (void){slot};")
    return "\n".join(lines) + prologue.CUDA_FORM + variant.rule.cuda_form
