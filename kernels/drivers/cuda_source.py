"""CUDA C++ made from a rule's form: the bodies of the CuPy driver's kernels.

The same text compiles for the host, which is how its bits are checked where there is no GPU.
"""

from __future__ import annotations

from typing import NamedTuple

from gpuopt.kernels import epilogue, prologue
from gpuopt.kernels.cuda_math import ARITHMETIC
from gpuopt.kernels.signals import Signals
from gpuopt.kernels.table import ALIGNMENT, FAST_NUMEL, FIRST_TILE, HYPER_ROW, NUMEL, POINTERS
from gpuopt.kernels.variant import Variant

_ACCESS = """
#ifndef __CUDA_ARCH__
// GCC takes what it is told of an address on one branch to hold on the other too, so it is not told but asked.
static inline void demand_alignment(const void* address) {
    if (reinterpret_cast<size_t>(address) % 16) __builtin_trap();
}
#endif

// 16 aligned bytes of global memory. In PTX, since compilers split such accesses or take them for generic ones.
static __device__ inline void load_16_bytes(void* to, const void* from) {
#ifdef __CUDA_ARCH__
    unsigned int* const word = static_cast<unsigned int*>(to);
    asm volatile("ld.global.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3]) : "l"(from));
#else
    demand_alignment(from);
    memcpy(to, from, 16);
#endif
}

static __device__ inline void store_16_bytes(void* to, const void* from) {
#ifdef __CUDA_ARCH__
    const unsigned int* const word = static_cast<const unsigned int*>(from);
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"
                 :: "l"(to), "r"(word[0]), "r"(word[1]), "r"(word[2]), "r"(word[3]) : "memory");
#else
    demand_alignment(to);
    memcpy(to, from, 16);
#endif
}

template <class F, class T, class S, int N>
static __device__ inline void load_whole(T (&values)[N], const S* from, bool is_aligned = true) {
    alignas(16) S stored[N];
    if (is_aligned) {
#pragma unroll
        for (int k = 0; k < N; k += 16 / sizeof(S)) load_16_bytes(stored + k, from + k);
    } else {
#pragma unroll
        for (int k = 0; k < N; ++k) stored[k] = from[k];
    }
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

template <int N, class S>
static __device__ inline void zero_whole(S* to, bool is_aligned) {
    alignas(16) const S stored[N] = {};
    if (is_aligned) {
#pragma unroll
        for (int k = 0; k < N; k += 16 / sizeof(S)) store_16_bytes(to + k, stored + k);
    } else {
#pragma unroll
        for (int k = 0; k < N; ++k) to[k] = 0;
    }
}
"""

_LOCALS = ("p", "g")
"""What the forms call the first two slots."""


def compute_type(variant: Variant) -> str:
    """The C++ type of the arithmetic."""
    return {"float32": "ieee_float", "float64": "double"}[variant.compute.name]


def narrowest(variant: Variant) -> int:
    """Bytes of an element of the narrowest slot."""
    return min(format.itemsize for format in variant.formats if format is not None)


def elements_per_thread(variant: Variant) -> int:
    """As many elements as make 16 bytes of the narrowest slot."""
    return ALIGNMENT // narrowest(variant)


def preamble(variant: Variant) -> str:
    """Definitions that both bodies need."""
    formats = {format.name: format.cuda_form for format in variant.formats if format is not None}
    return ARITHMETIC + "".join(formats.values()) + _ACCESS


def table_body(variant: Variant, tile: int) -> str:
    """Statements for thread ``i`` of a launch over a table, of ``tiles * tile / elements_per_thread`` threads.

    A thread takes elements that follow each other, in accesses of 16 bytes where it can; those of a gradient that is
    not aligned one by one. Of a tensor with another slot that is not aligned it takes elements as far apart as there
    are threads for the tile, so that threads side by side access elements side by side.

    Expects ``rows``, ``tile_tensor`` and ``hyper`` as the arrays of :class:`~gpuopt.kernels.table.Table`, and
    ``signals`` as :class:`~gpuopt.kernels.signals.Signals`.

    Args:
        variant: The rule and its formats.
        tile: Elements of a tile, a multiple of :func:`elements_per_thread`.
    """
    slots, count = _slots(variant), elements_per_thread(variant)
    width = POINTERS + len(variant.slots)
    lines = [
        f"typedef {compute_type(variant)} T;",
        f"const unsigned long long thread = i, lanes = {tile // count};",
        "const long long tile = thread / lanes, lane = thread % lanes;",
        f"const long long row = tile_tensor[tile] * {width}LL;",
        f"const long long fast_numel = rows[row + {FAST_NUMEL}], step_by = fast_numel ? 1 : {tile // count};",
        f"const long long start = (tile - rows[row + {FIRST_TILE}]) * {tile} + lane * (fast_numel ? {count} : 1);",
        f"const long long left = rows[row + {NUMEL}] - start;",
        f"const long long scalars = rows[row + {HYPER_ROW}] * {len(variant.hyper_fields)};",
    ]
    loss_scale, clip_factor, found_inf = (f"signals[{k}]" for k in range(len(Signals._fields)))
    lines += [
        f"const T {'stored_' * (k == 0)}{field} = hyper[scalars + {k}];" for k, field in enumerate(variant.hyper_fields)
    ]
    lines += [
        "T loss_scale = T(1);",
        f"if ({loss_scale}) widen(loss_scale, *reinterpret_cast<const float*>({loss_scale}));",
        f"const T clip_factor = {clip_factor} ? *reinterpret_cast<const T*>({clip_factor}) : T(1);",
        f"const T {variant.hyper_fields[0]} = stored_{variant.hyper_fields[0]} * clip_factor / loss_scale;",
        "T found_inf = T(0);",
        f"if ({found_inf}) widen(found_inf, *reinterpret_cast<const float*>({found_inf}));",
    ]
    lines += [
        f"{slot.stored}* const {slot.name}_at = "
        f"reinterpret_cast<{slot.stored}*>(rows[row + {POINTERS + slot.column}]) + start;"
        for slot in slots
    ]
    lines += ["if (!(found_inf != T(0))) {"]
    taken = [slot for slot in slots if slot.name != epilogue.COPY]
    arguments = ", ".join(f"T {'' if slot.name == 'g' else '&'}{slot.name}" for slot in taken)
    lines += [f"const auto step = [&]({arguments}) {{", _arithmetic(variant), "};"]

    lines += ["const auto full = [&](bool is_aligned) {"]
    for slot in taken:
        aligned = ", is_aligned" if slot.name == "g" else ""
        lines += [f"T {slot.name}[{count}];", f"load_whole<{slot.form}>({slot.name}, {slot.name}_at{aligned});"]
    elements = ", ".join(f"{slot.name}[k]" for slot in taken)
    lines += ["#pragma unroll", f"for (int k = 0; k < {count}; ++k) step({elements});"]
    lines += [
        f"zero_whole<{count}>(g_at, is_aligned);"
        if slot.name == "g"
        else f"store_whole<{slot.form}>({slot.value}, {slot.name}_at);"
        for slot in slots
        if slot.written
    ]
    lines += ["};"]
    lines += [f"if (start + {count} <= fast_numel) {{"]
    # Twice, so that the way of an aligned gradient is free of what the other needs.
    lines += [f"if (rows[row + {POINTERS + 1}] % {ALIGNMENT} == 0) full(true); else full(false);"]

    each = ["#pragma unroll 1", f"for (long long at = 0; at < {count} * step_by && at < left; at += step_by) {{"]
    lines += ["} else {", *each]
    lines += [f"T {slot.name}; widen({slot.name}, {slot.form}::load({slot.name}_at[at]));" for slot in taken]
    lines += [f"step({', '.join(slot.name for slot in taken)});"]
    lines += [
        f"{slot.name}_at[at] = {'0' if slot.name == 'g' else f'{slot.form}::store({slot.value})'};"
        for slot in slots
        if slot.written
    ]
    lines += ["}", "}"]
    if variant.zero_grads:
        lines += ["} else {", *each, "g_at[at] = 0;", "}"]
    lines += ["}"]
    return "\n".join(lines)


def array_body(variant: Variant) -> str:
    """Statements for one element of single arrays.

    Expects each slot's stored element as ``<name>_stored`` and each hyper field by name, as float32 or the compute
    type. It cannot write gradients.
    """
    slots = _slots(variant)
    lines = [f"typedef {compute_type(variant)} T;"]
    # The elements are references that may alias, so all loads come before the first store.
    lines += [
        f"T {slot.name}; widen({slot.name}, {slot.form}::load({slot.name}_stored));"
        for slot in slots
        if slot.name != epilogue.COPY
    ]
    # In the compute type: of plain float32 scalars a compiler may flush what a rule makes of them alone.
    scalars = ", ".join(f"const T {field}" for field in variant.hyper_fields)
    lines += [f"const auto step = [&]({scalars}) {{", _arithmetic(variant), "};"]
    lines += [f"step({', '.join(variant.hyper_fields)});"]
    lines += [
        f"{slot.name}_stored = {slot.form}::store({slot.value});" for slot in slots if slot.written and slot.name != "g"
    ]
    return "\n".join(lines)


def slot_names(variant: Variant) -> list[str]:
    """The names of the slots that are present, as the bodies know them."""
    return [slot.name for slot in _slots(variant)]


class _Slot(NamedTuple):
    """A slot that is present.

    Attributes:
        name: What the forms call it.
        column: Of its address, after those of a row that are not addresses.
        stored: C++ type of a stored element.
        form: The C++ struct of its format.
        value: The local that is stored in it.
        written: Whether anything is.
    """

    name: str
    column: int
    stored: str
    form: str
    value: str
    written: bool


def _slots(variant: Variant) -> list[_Slot]:
    names = dict(zip(variant.slots, (*_LOCALS, *variant.slots[2:]), strict=True))
    return [
        _Slot(
            names[slot],
            column,
            format.cuda_type,
            format.name,
            "p" if slot == epilogue.COPY else names[slot],
            slot in variant.written,
        )
        for column, (slot, format) in enumerate(zip(variant.slots, variant.formats, strict=True))
        if format is not None
    ]


def _arithmetic(variant: Variant) -> str:
    """Prologue and rule, with a constant and a stand-in for each optional slot."""
    lines = []
    for slot in (*variant.rule.optional, epilogue.AVERAGE):
        lines.append(f"constexpr bool has_{slot} = {'true' if slot in variant.present else 'false'};")
        if slot not in variant.present:
            lines.append(f"T {slot} = T(0); (void){slot};")
    return "\n".join(lines) + prologue.CUDA_FORM + variant.rule.cuda_form + epilogue.CUDA_FORM
