"""CUDA C++ made from a rule's form: the bodies of the CuPy driver's kernels.

The same text compiles for the host, which is how its bits are checked where there is no GPU.
"""

from __future__ import annotations

from typing import NamedTuple

from gpuopt.kernels import blocks, epilogue, prologue
from gpuopt.kernels.cuda_math import ARITHMETIC
from gpuopt.kernels.formats import BLOCK, Plane
from gpuopt.kernels.random import CUDA_FORM as RANDOM
from gpuopt.kernels.random import Key
from gpuopt.kernels.signals import Signals
from gpuopt.kernels.table import ALIGNMENT, FAST_NUMEL, FIRST_TILE, HYPER_ROW, NUMEL, ORIGIN, PITCH, POINTERS, RUN
from gpuopt.kernels.variant import Variant

_ACCESS = """
#ifndef __CUDA_ARCH__
// GCC takes what it is told of an address on one branch to hold on the other too, so it is not told but asked.
static inline void demand_alignment(const void* address, int bytes) {
    if (reinterpret_cast<size_t>(address) % bytes) __builtin_trap();
}
#endif

// As many bytes of global memory, 8 or 16, of an address that is a multiple of them. In PTX, since compilers split such
// accesses or take them for generic ones.
template <int BYTES>
static __device__ inline void load_bytes(void* to, const void* from) {
#ifdef __CUDA_ARCH__
    unsigned int* const word = static_cast<unsigned int*>(to);
    if constexpr (BYTES == 16)
        asm volatile("ld.global.v4.b32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3]) : "l"(from));
    else
        asm volatile("ld.global.v2.b32 {%0, %1}, [%2];" : "=r"(word[0]), "=r"(word[1]) : "l"(from));
#else
    demand_alignment(from, BYTES);
    memcpy(to, from, BYTES);
#endif
}

template <int BYTES>
static __device__ inline void store_bytes(void* to, const void* from) {
#ifdef __CUDA_ARCH__
    const unsigned int* const word = static_cast<const unsigned int*>(from);
    if constexpr (BYTES == 16)
        asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"
                     :: "l"(to), "r"(word[0]), "r"(word[1]), "r"(word[2]), "r"(word[3]) : "memory");
    else
        asm volatile("st.global.v2.b32 [%0], {%1, %2};" :: "l"(to), "r"(word[0]), "r"(word[1]) : "memory");
#else
    demand_alignment(to, BYTES);
    memcpy(to, from, BYTES);
#endif
}

// N entries of a plane that follow each other.
template <class S, int N>
struct entries {
    static constexpr int bytes = N * sizeof(S) < 16 ? N * sizeof(S) : 16;
    alignas(16) S at[N];
};

template <int N, class S>
static __device__ inline entries<S, N> load_plane(const S* from, bool is_aligned = true) {
    entries<S, N> stored;
    constexpr int bytes = entries<S, N>::bytes;
    if (is_aligned) {
#pragma unroll
        for (int k = 0; k < N; k += bytes / sizeof(S)) load_bytes<bytes>(stored.at + k, from + k);
    } else {
#pragma unroll
        for (int k = 0; k < N; ++k) stored.at[k] = from[k];
    }
    return stored;
}

template <class S, int N>
static __device__ inline void store_plane(S* to, const entries<S, N>& stored, bool is_aligned = true) {
    constexpr int bytes = entries<S, N>::bytes;
    if (is_aligned) {
#pragma unroll
        for (int k = 0; k < N; k += bytes / sizeof(S)) store_bytes<bytes>(to + k, stored.at + k);
    } else {
#pragma unroll
        for (int k = 0; k < N; ++k) to[k] = stored.at[k];
    }
}

template <class F, class T, int N, class... E>
static __device__ inline void widen_whole(T (&values)[N], const E&... planes) {
#pragma unroll
    for (int k = 0; k < N; ++k) widen(values[k], F::load(planes.at[k]...));
}

template <class F, class T, int N, class... S>
static __device__ inline void load_whole(T (&values)[N], const S*... planes) {
    widen_whole<F>(values, load_plane<N>(planes)...);
}

// What formats that are not random are given of element k.
static __device__ inline unsigned int no_bits(int k) { return 0; }

template <class F, class T, int N, class R, class... S>
static __device__ inline void store_whole(const T (&values)[N], const R& bits, S*... planes) {
    const auto store = [&](entries<S, N>... stored) {
#pragma unroll
        for (int k = 0; k < N; ++k) F::store(values[k], bits(k), stored.at[k]...);
        (store_plane(planes, stored), ...);
    };
    store(entries<S, N>()...);
}

struct whereabouts {
    unsigned long long origin, run, pitch;
};

// Where N elements that follow each other in a tensor are in the whole model.
template <int N>
static __device__ inline void indices_in_model(
    unsigned long long (&index)[N], unsigned long long element, const whereabouts& where) {
    const unsigned long long origin = where.origin, run = where.run, pitch = where.pitch;
    if (run == pitch) {
#pragma unroll
        for (int k = 0; k < N; ++k) index[k] = origin + element + k;
    } else {
        const unsigned long long runs = element / run;
        unsigned long long place = origin + runs * (pitch - run) + element, left = (runs + 1) * run - element;
#pragma unroll
        for (int k = 0; k < N; ++k) {
            index[k] = place++;
            if (--left == 0) place += pitch - run, left = run;
        }
    }
}
"""

_BLOCKS = """
// As many of them as are left; the others are zeros, and are not stored.
template <int N, class S>
static __device__ inline entries<S, N> load_left(const S* from, long long left) {
    entries<S, N> stored;
#pragma unroll
    for (int k = 0; k < N; ++k) stored.at[k] = k < left ? from[k] : S(0);
    return stored;
}

template <class S, int N>
static __device__ inline void store_left(S* to, const entries<S, N>& stored, long long left) {
#pragma unroll
    for (int k = 0; k < N; ++k) if (k < left) to[k] = stored.at[k];
}

template <class F, class T, int N, class... S>
static __device__ inline void load_some(T (&values)[N], long long left, const S*... planes) {
    widen_whole<F>(values, load_left<N>(planes, left)...);
}

// Of codes, with the scale of their block.
template <class F, class T, int N>
static __device__ inline void widen_block(T (&values)[N], const entries<unsigned char, N>& codes, float scale) {
#pragma unroll
    for (int k = 0; k < N; ++k) widen(values[k], F::load(codes.at[k], scale));
}

template <class F, class T, int N, class R, class... S>
static __device__ inline void store_some(const T (&values)[N], const R& bits, long long left, S*... planes) {
    const auto store = [&](entries<S, N>... stored) {
#pragma unroll
        for (int k = 0; k < N; ++k) F::store(values[k], bits(k), stored.at[k]...);
        (store_left(planes, stored, left), ...);
    };
    store(entries<S, N>()...);
}

// The codes of N elements of a block, of which so many are left, by the largest magnitude in all THREADS that hold it,
// which follow each other in a warp; the first of them stores its scale.
template <class F, int THREADS, class T, int N, class R>
static __device__ inline entries<unsigned char, N> codes_of(
    const T (&values)[N], const R& bits, float top, float* scale_at, long long left) {
    unsigned int largest = 0;
#pragma unroll
    for (int k = 0; k < N; ++k) {
        const unsigned int magnitude = k < left ? magnitude_of(narrow(values[k])) : 0u;
        largest = magnitude > largest ? magnitude : largest;
    }
    bool is_first = true;
#ifdef __CUDA_ARCH__
    if constexpr (THREADS > 1) {
#pragma unroll
        for (int distance = THREADS / 2; distance > 0; distance /= 2) {
            const unsigned int other = __shfl_xor_sync(0xffffffffu, largest, distance);
            largest = other > largest ? other : largest;
        }
        is_first = threadIdx.x % THREADS == 0;
    }
#endif
    const float scale = scale_of(largest);
    const ieee_float factor = factor_of(scale, top);
    entries<unsigned char, N> stored;
#pragma unroll
    for (int k = 0; k < N; ++k) F::store(values[k], bits(k), factor, stored.at[k]);
    if (is_first && left > 0) *scale_at = scale;
    return stored;
}
"""
"""What a variant that stores something in blocks needs besides."""

_LOCALS = ("p", "g")
"""What the forms call the first two slots."""

WARP = 32
"""Threads that can exchange values."""

MOST_ELEMENTS = 8
"""That a thread takes: of 16, as make 16 bytes of int8, values take too many registers."""


def compute_type(variant: Variant) -> str:
    """The C++ type of the arithmetic."""
    return {"float32": "ieee_float", "float64": "double"}[variant.compute.name]


def narrowest(variant: Variant) -> int:
    """Bytes of an entry of the narrowest plane."""
    return min(plane.storage.itemsize for _, plane in variant.planes.values())


def elements_per_thread(variant: Variant) -> int:
    """As many elements as make 16 bytes of the narrowest plane, but of one of single bytes 8."""
    return min(ALIGNMENT // narrowest(variant), MOST_ELEMENTS)


def has_array_form(variant: Variant) -> bool:
    """Whether :func:`array_body` is for a variant: it knows one plane of each slot, no indices, no gradient to zero."""
    return not (variant.zero_grads or variant.is_random or len(variant.planes) > len(variant.present))


def preamble(variant: Variant) -> str:
    """Definitions that both bodies need."""
    formats = {format.name: format.cuda_form for format in variant.formats if format is not None}
    in_blocks = blocks.CUDA_FORM + _BLOCKS if variant.in_blocks else ""
    return ARITHMETIC + RANDOM + "".join(formats.values()) + _ACCESS + in_blocks


def table_body(variant: Variant, tile: int, count: int | None = None) -> str:
    """Statements for thread ``i`` of a launch over a table, of ``tiles * tile / count`` threads.

    A thread takes elements that follow each other, in accesses of 16 bytes where it can; those of a gradient that is
    not aligned one by one. Of a tensor with another slot that is not aligned it takes elements as far apart as there
    are threads for the tile, so that threads side by side access elements side by side; but none of other blocks than
    threads beside it, where something is stored in blocks, and these threads of one warp find its scale together.

    Expects ``rows``, ``tile_tensor`` and ``hyper`` as the arrays of :class:`~gpuopt.kernels.table.Table`, and
    ``signals`` as :class:`~gpuopt.kernels.signals.Signals`.

    Args:
        variant: The rule and its formats.
        tile: Elements of a tile, a multiple of ``count``, and of :data:`~gpuopt.kernels.formats.BLOCK`.
        count: Elements that a thread takes; None for :func:`elements_per_thread`. Where threads run one after the
            other, as on the host, blocks take one thread each: as many as a block has.
    """
    slots, count = _slots(variant), count or elements_per_thread(variant)
    lanes = tile // count
    step_by, apart = (
        ("1", str(count)) if variant.in_blocks else (f"fast_numel ? 1 : {lanes}", f"(fast_numel ? {count} : 1)")
    )
    width = POINTERS + variant.width
    lines = [
        f"typedef {compute_type(variant)} T;",
        f"const unsigned long long thread = i, lanes = {lanes};",
        "const long long tile = thread / lanes, lane = thread % lanes;",
        f"const long long row = tile_tensor[tile] * {width}LL;",
        f"const long long fast_numel = rows[row + {FAST_NUMEL}], step_by = {step_by};",
        f"const long long start = (tile - rows[row + {FIRST_TILE}]) * {tile} + lane * {apart};",
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
        f"{plane.cuda_type}* const {name} = "
        f"reinterpret_cast<{plane.cuda_type}*>(rows[row + {POINTERS + column}]) + start{_divided_by(plane.block)};"
        for slot in slots
        for name, (column, plane) in slot.planes.items()
    ]
    if variant.is_random:
        columns = ", ".join(f"static_cast<unsigned long long>(rows[row + {column}])" for column in (ORIGIN, RUN, PITCH))
        lines += [f"const whereabouts where = {{{columns}}};"]
    lines += [
        f"const unsigned int {slot.name}_key = slot_key({', '.join(Key._fields)}, {slot.number}u);"
        for slot in slots
        if slot.random
    ]
    lines += ["if (!(found_inf != T(0))) {"]
    taken = [slot for slot in slots if slot.name != epilogue.COPY]
    arguments = ", ".join(f"T {'' if slot.name == 'g' else '&'}{slot.name}" for slot in taken)
    lines += [f"const auto step = [&]({arguments}) {{", _arithmetic(variant), "};"]

    lines += ["const auto full = [&](bool is_aligned) {", *_pass(slots, count, is_full=True), "};"]
    # Threads of a warp take one way together, where some of them share a block.
    together = max(BLOCK, WARP * count if count < BLOCK else 0) if variant.in_blocks else 0
    end = f"start / {together} * {together} + {together}" if together else f"start + {count}"
    lines += [f"if ({end} <= fast_numel) {{"]
    # Twice, so that the way of an aligned gradient is free of what the other needs.
    lines += [f"if (rows[row + {POINTERS + 1}] % {ALIGNMENT} == 0) full(true); else full(false);"]

    each = ["#pragma unroll 1", f"for (long long at = 0; at < {count} * step_by && at < left; at += step_by) {{"]
    if variant.in_blocks:
        lines += ["} else {", *_pass(slots, count, is_full=False), "}"]
        return "\n".join((*lines, *_else_zero(variant, each)))
    lines += ["} else {", *each]
    lines += [f"T {slot.name}; widen({slot.name}, {slot.form}::load({slot.at('at')}));" for slot in taken]
    lines += [f"step({', '.join(slot.name for slot in taken)});"]
    lines += _random_bits(slots, 1, "start + at")
    lines += [
        "g_at[at] = 0;" if slot.name == "g" else f"{slot.form}::store({slot.value}, {slot.bits}(0), {slot.at('at')});"
        for slot in slots
        if slot.written
    ]
    lines += ["}", "}"]
    return "\n".join((*lines, *_else_zero(variant, each)))


def _pass(slots: list[_Slot], count: int, is_full: bool) -> list[str]:
    """Statements that load, step and store elements that follow each other: ``count``, or as many of them as are left.

    Of full ones, ``is_aligned`` says of the gradient whether it is.
    """
    taken = [slot for slot in slots if slot.name != epilogue.COPY]
    some = "" if is_full else ", left"
    lines = []
    for slot in taken:
        load = f"load_{'whole' if is_full else 'some'}<{slot.form}>({slot.name}{some}, {slot.pointers})"
        if slot.top is not None:
            codes = f"load_plane<{count}>({slot.name}_at)" if is_full else f"load_left<{count}>({slot.name}_at, left)"
            scale = f"*{slot.name}_at1" if is_full else f"left > 0 ? *{slot.name}_at1 : 0.0f"
            load = f"widen_block<{slot.form}>({slot.name}, {codes}, {scale})"
        elif slot.name == "g" and is_full:
            load = f"widen_whole<{slot.form}>(g, load_plane<{count}>(g_at, is_aligned))"
        lines += [f"T {slot.name}[{count}];", f"{load};"]
    elements = ", ".join(f"{slot.name}[k]" for slot in taken)
    lines += ["#pragma unroll", f"for (int k = 0; k < {count}; ++k) step({elements});"]
    lines += _random_bits(slots, count, "start")
    for slot in slots:
        if not slot.written:
            continue
        end = "is_aligned" if is_full else "left"
        store = f"store_{'plane' if is_full else 'left'}"
        if slot.name == "g":
            lines += [f"{store}(g_at, entries<{slot.stored}, {count}>(), {end});"]
        elif slot.top is not None:
            left = str(count) if is_full else "left"
            arguments = f"{slot.name}, {slot.bits}, {slot.top!r}f, {slot.name}_at1, {left}"
            codes = f"codes_of<{slot.form}, {BLOCK // count}>({arguments})"
            lines += [f"{store}({slot.name}_at, {codes}{some});"]
        else:
            name = f"store_{'whole' if is_full else 'some'}<{slot.form}>"
            lines += [f"{name}({slot.value}, {slot.bits}{some}, {slot.pointers});"]
    return lines


def _else_zero(variant: Variant, each: list[str]) -> list[str]:
    """What a skipped step still does, and the end of what any other does."""
    return ["} else {", *each, "g_at[at] = 0;", "}", "}"] if variant.zero_grads else ["}"]


def _divided_by(block: int) -> str:
    return "" if block == 1 else f" / {block}"


def array_body(variant: Variant) -> str:
    """Statements for one element of single arrays.

    Expects each slot's stored element as ``<name>_stored`` and each hyper field by name, as float32 or the compute
    type. Only for variants that :func:`has_array_form`.
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
        f"{slot.form}::store({slot.value}, 0, {slot.name}_stored);"
        for slot in slots
        if slot.written and slot.name != "g"
    ]
    return "\n".join(lines)


def slot_names(variant: Variant) -> list[str]:
    """The names of the slots that are present, as the bodies know them."""
    return [slot.name for slot in _slots(variant)]


class _Slot(NamedTuple):
    """A slot that is present.

    Attributes:
        number: Of the slot in the variant.
        name: What the forms call it.
        planes: By the name of the pointer to each of its planes, the column of its address, after those of a row that
            are not addresses, and what it is.
        form: The C++ struct of its format.
        value: The local that is stored in it.
        written: Whether anything is.
        random: Whether that depends on random bits.
        top: That of the format, where it is in blocks.
    """

    number: int
    name: str
    planes: dict[str, tuple[int, Plane]]
    form: str
    value: str
    written: bool
    random: bool
    top: float | None

    @property
    def stored(self) -> str:
        """C++ type of an entry of the first plane."""
        return self.planes[f"{self.name}_at"][1].cuda_type

    @property
    def pointers(self) -> str:
        """Those to all planes."""
        return ", ".join(self.planes)

    @property
    def bits(self) -> str:
        """The function that gives the random bits of an element, see :func:`_random_bits`."""
        return f"{self.name}_bits" if self.random else "no_bits"

    def at(self, index: str) -> str:
        """The entries of an element, by its index from the pointers on."""
        return ", ".join(f"{pointer}[{index}]" for pointer in self.planes)


def _slots(variant: Variant) -> list[_Slot]:
    names = dict(zip(variant.slots, (*_LOCALS, *variant.slots[2:]), strict=True))
    return [
        _Slot(
            index,
            names[slot],
            {
                f"{names[slot]}_at{number or ''}": (column, plane)
                for number, (column, plane) in enumerate(zip(columns, format.planes, strict=True))
            },
            format.name,
            "p" if slot == epilogue.COPY else names[slot],
            slot in variant.written,
            format.is_random,
            format.top,
        )
        for index, (slot, format, columns) in enumerate(
            zip(variant.slots, variant.formats, variant.columns, strict=True)
        )
        if format is not None
    ]


def _random_bits(slots: list[_Slot], count: int, element: str) -> list[str]:
    """Definitions of what gives the random bits of element ``k`` of ``count`` from ``element`` on, for each slot."""
    random = [slot for slot in slots if slot.random]
    if not random:
        return []
    return [f"unsigned long long index[{count}]; indices_in_model(index, {element}, where);"] + [
        f"const auto {slot.bits} = [&](int k) {{ return random_bits(index[k], {slot.name}_key, {slot.number}u); }};"
        for slot in random
    ]


def _arithmetic(variant: Variant) -> str:
    """Prologue and rule, with a constant and a stand-in for each optional slot."""
    lines = []
    for slot in (*variant.rule.optional, epilogue.AVERAGE):
        lines.append(f"constexpr bool has_{slot} = {'true' if slot in variant.present else 'false'};")
        if slot not in variant.present:
            lines.append(f"T {slot} = T(0); (void){slot};")
    restore, reduce = "", ""
    if variant.relation is not None:
        restore, reduce = f"{{{variant.relation.cuda_restore}}}", f"{{{variant.relation.cuda_reduce}}}"
    forms = prologue.CUDA_FORM, restore, variant.rule.cuda_form, reduce, epilogue.CUDA_FORM
    return "\n".join(lines) + "".join(forms)
