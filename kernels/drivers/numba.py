"""Runs the NumPy form compiled by Numba: one call and one pass over memory for the whole table.

Each thread walks a range of tiles of the pointer table. The inner loop is plain, so that LLVM vectorises it; the
error model of NumPy matters for that, since a check for division by zero would forbid it. What is stored in blocks is
kept until one is whole, and then goes through a loop of its own. Every loop is compiled twice, since a table that is
worth one thread is to wake no others, and the code that can costs six times as much to compile.
"""

from __future__ import annotations

import inspect
import marshal
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.core.cgutils import alloca_once
from numba.extending import intrinsic, overload, register_jitable
from numba.np.unsafe.ndarray import to_fixed_tuple

from gpuopt.kernels import epilogue, prologue
from gpuopt.kernels.blocks import factor_of, magnitude_of, scale_of
from gpuopt.kernels.drivers.numpy import place, zero_grads
from gpuopt.kernels.epilogue import Epilogue
from gpuopt.kernels.fork import is_forked
from gpuopt.kernels.formats import BLOCK, Format
from gpuopt.kernels.prologue import Prologue
from gpuopt.kernels.random import bits_of_even, bits_of_odd, hash_of, mix, random_bits, slot_key
from gpuopt.kernels.rules.rule import MOST_SLOTS
from gpuopt.kernels.select import select
from gpuopt.kernels.signals import NO_SIGNALS, Signals
from gpuopt.kernels.table import FIRST_TILE, HYPER_ROW, NUMEL, ORIGIN, PART, PITCH, POINTERS, RUN, Table
from gpuopt.kernels.variant import Variant
from gpuopt.kernels.warn import warn

TILE = 1 << 15
DEVICE = "cpu"
SCHEDULES = False

_NEUTRAL = list(Prologue())
"""A prologue that changes nothing."""

_ONE_AT_A_TIME = Lock()
"""Numba's workqueue threads, its last resort, abort the process when two threads call them at once."""

LANES = 64
"""Squares are added up in so many sums, which do not wait for each other: SIMD takes as many of them at once as it has
room for, in this order everywhere. In fewer, LLVM would unroll the loop over them before it sees that."""

NUMEL_PER_THREAD = 1 << 15
"""A thread is not woken for fewer elements than this: its start, and then its spinning, would cost more."""


def unavailable() -> str | None:
    """None, unless Numba has been told not to compile."""
    return "NUMBA_DISABLE_JIT is set" if numba.config.DISABLE_JIT else None


def sum_squares(
    table: Table, placed: Any, part: int = 0, stream: int = 0, threads: int | None = None
) -> np.ndarray[Any, Any]:
    """One sum per tile."""
    grad = table.variant.formats[1]
    assert grad is not None
    sums = np.empty(table.tiles, dtype=np.float64)
    wanted = threads_for(table, threads)
    with _threads(wanted):
        compiled_sum_squares(grad, wanted > 1)(table.rows, table.tile_tensor, sums, table.tile, part)
    return sums


def prepare(table: Table, hyper: np.ndarray[Any, Any], threads: int | None = None) -> None:
    """Compiles by a step over nothing, see :class:`~gpuopt.kernels.drivers.driver.Driver`."""
    wanted = threads_for(table, threads)
    with _threads(wanted):
        _step_for(table, hyper, wanted)(table.rows, table.tile_tensor[:0], hyper, table.tile)


def run(table: Table, hyper: np.ndarray[Any, Any], stream: int = 0, signals: Signals = NO_SIGNALS) -> None:
    """One step over ``table``, see :class:`~gpuopt.kernels.drivers.driver.Driver`."""
    step(table, place(table, hyper, stream, signals), stream)


def step(
    table: Table, placed: tuple[np.ndarray[Any, Any], Signals], stream: int = 0, threads: int | None = None
) -> None:
    """One step over ``table``, see :class:`~gpuopt.kernels.drivers.driver.Driver`."""
    hyper, signals = placed
    if signals.skip():
        zero_grads(table)
        return
    hyper = signals.scaled(hyper)
    wanted = threads_for(table, threads)
    compiled_step = _step_for(table, hyper, wanted)
    with _threads(wanted):
        compiled_step(table.rows, table.tile_tensor, hyper, table.tile)


def threads_for(table: Table, most: int | None = None) -> int:
    """Threads that ``table`` is worth, of at most ``most`` and of those that Numba may use."""
    wanted = min(table.numel // NUMEL_PER_THREAD, most or table.numel)
    if wanted <= 1:
        return 1
    if is_forked():
        _warn_of_fork()
        return 1
    return int(min(wanted, numba.get_num_threads()))


@contextmanager
def _threads(wanted: int) -> Iterator[None]:
    """In this context compiled code runs on so many threads; on several, it is the only one that does."""
    if wanted == 1:
        yield
        return
    most = numba.get_num_threads()
    numba.set_num_threads(wanted)
    try:
        with _ONE_AT_A_TIME:
            yield
    finally:
        numba.set_num_threads(most)


@cache
def _warn_of_fork() -> None:
    warn(
        "gpuopt steps on one thread in a process that was forked, since the threads of its parent did not come with "
        "it; start processes by 'spawn' or 'forkserver' for all cores"
    )


def _step_for(table: Table, hyper: np.ndarray[Any, Any], threads: int) -> Callable[..., None]:
    neutral = all(row == _NEUTRAL for row in hyper[:, : len(_NEUTRAL)].tolist())
    return compiled(table.variant, neutral, threads > 1)


@cache
def compiled(variant: Variant, neutral: bool, parallel: bool) -> Callable[..., None]:
    """``step(rows, tile_tensor, hyper, tile)`` for one variant, compiled at its first call or read from disk.

    ``neutral`` leaves out the prologue, for when it changes nothing: it takes a tenth of the time.
    """
    made_for = f"{variant} {neutral} {parallel}"
    return compile_cached(_step(variant, neutral), made_for, parallel=parallel, nogil=True)


@cache
def compiled_sum_squares(grad: Format, parallel: bool) -> Callable[..., None]:
    """``sum_squares(rows, tile_tensor, sums, tile, part)`` for gradients of one format, as :func:`compiled`."""
    return compile_cached(_sum_squares(grad), f"{grad.name} {parallel}", parallel=parallel, nogil=True)


def compile_cached(function: Callable[..., Any], made_for: str, **options: Any) -> Callable[..., Any]:
    """A function to be compiled, and kept on disk; ``made_for`` tells it from others of the same name."""
    # Numba numbers the binaries of one qualified name in one file without a lock: two processes that compile at once
    # would take the same number, and the next would run the one for the other.
    function.__qualname__ = f"{function.__name__}_{sha256(made_for.encode()).hexdigest()[:16]}"
    dispatcher: Callable[..., Any] = numba.njit(error_model="numpy", **options)(function)
    cache_on_disk(dispatcher)
    return dispatcher


def _sum_squares(grad: Format) -> Callable[..., None]:
    """The loop over tiles; what varies is a free variable as in :func:`_step`."""
    g_type = grad.planes[0].storage.type
    g_load = register_jitable(grad.compiled_load)
    fingerprint = source_fingerprint()

    def sum_squares(rows, tile_tensor, sums, tile, part):
        fingerprint  # noqa: B018 (part of the binary's name in the cache)
        for backwards in numba.prange(tile_tensor.size):
            # The step comes next, from the first tile on: what is read last is then still in the cache.
            index = tile_tensor.size - 1 - backwards
            row = rows[tile_tensor[index]]
            start = (index - row[FIRST_TILE]) * tile
            size = min(tile, row[NUMEL] - start)
            g_at = pointer_to(row[POINTERS + 1], start, g_type)
            weight = np.float64(row[PART] == part)
            lanes = _lanes()
            for lane in range(LANES):
                lanes[lane] = 0.0
            whole = size - size % LANES
            for first in range(0, whole, LANES):
                for lane in range(LANES):
                    lanes[lane] += _square(g_at, first + lane, g_load, weight)
            for lane in range(size - whole):
                lanes[lane] += _square(g_at, whole + lane, g_load, weight)
            width = LANES // 2
            while width > 0:
                for lane in range(width):
                    lanes[lane] += lanes[lane + width]
                width //= 2
            sums[index] = lanes[0]

    return sum_squares


@intrinsic
def _lanes(typing_context):
    """Room for ``LANES`` numbers of float64 on the stack of the function that asks for it."""

    def code(context, builder, signature, arguments):
        return alloca_once(builder, context.get_value_type(types.float64), size=LANES)

    return types.CPointer(types.float64)(), code


@register_jitable
def _square(slot, i, load, weight):
    value = weight * np.float64(load(slot[i]))
    return value * value


def _step(variant: Variant, neutral: bool) -> Callable[..., None]:
    """The loop over tiles of one variant.

    Everything that varies is a free variable that pickles by name, because Numba finds a cached binary by them:
    a compiled function among them would differ in each process, and a global one would go unnoticed.
    """
    absent = (None,) * (MOST_SLOTS - len(variant.rule.slots))
    formats = (*variant.formats[:-2], *absent, *variant.formats[-2:])
    columns = (*variant.columns[:-2], *absent, *variant.columns[-2:])
    p_columns, g_columns, a_columns, b_columns, c_columns, e_columns, k_columns = columns
    p_types, g_types, a_types, b_types, c_types, e_types, k_types = [
        format and tuple([plane.storage.type for plane in format.planes]) for format in formats
    ]
    p_load, g_load, a_load, b_load, c_load, e_load, _ = [
        format and register_jitable(format.compiled_load) for format in formats
    ]
    p_store, g_store, a_store, b_store, c_store, e_store, k_store = [
        format and register_jitable(format.compiled_store) for format in formats
    ]
    (
        (p_planes, p_get, p_set),
        (g_planes, g_get, g_set),
        (a_planes, a_get, a_set),
        (b_planes, b_get, b_set),
        (c_planes, c_get, c_set),
        (e_planes, e_get, e_set),
        (k_planes, _, k_set),
    ) = [_accesses(format) for format in formats]
    (a_room, a_begin, a_end), (b_room, b_begin, b_end), (c_room, c_begin, c_end) = [
        _BLOCKS if format and format.in_blocks else (_nothing, _as_it_is, _nothing) for format in formats[2:5]
    ]
    a_top, b_top, c_top = [format and format.top for format in formats[2:5]]
    next_end = _end_of_block if variant.in_blocks else _end_of_tile
    g_set = g_set if variant.zero_grads else _nothing
    # The indices of these slots, by which their random bits differ.
    indices = 0, 2, 3, 4, len(variant.slots) - 2, len(variant.slots) - 1
    p_slot, a_slot, b_slot, c_slot, e_slot, k_slot = indices
    p_bits, a_bits, b_bits, c_bits, e_bits, k_bits = [
        random_bits(slot) if format and format.is_random and not format.in_blocks else _no_bits
        for slot, format in zip(indices, (formats[0], *formats[2:]), strict=True)
    ]
    a_random, b_random, c_random = [random_bits(slot) for slot in indices[1:4]]
    next_run = _next_run if variant.is_random else _all_that_is_left
    prologue_form = _leave if neutral else register_jitable(prologue.numpy_form)
    rule = register_jitable(variant.rule.numpy_form)
    epilogue_form = register_jitable(epilogue.numpy_form) if formats[-2] else _nothing_to_average
    state = len(variant.rule.slots)
    call = _CALLS[state]
    relation = variant.relation
    restore_form = relation and register_jitable(relation.numpy_restore)
    reduce_form = relation and relation.numpy_reduce and register_jitable(relation.numpy_reduce)
    restore = _RELATES[state] if restore_form else _leave_state
    reduce = _RELATES[state] if reduce_form else _leave_state
    before, fields, after = len(Prologue._fields), len(variant.rule.hyper_fields), len(Epilogue._fields)
    key_at = before + fields + after
    compute = variant.compute.type
    zero = compute(0)
    fingerprint = source_fingerprint() + form_fingerprint(variant.rule.numpy_form)

    def step(rows, tile_tensor, hyper, tile):
        fingerprint  # noqa: B018 (part of the binary's name in the cache)
        for index in numba.prange(tile_tensor.size):
            row = rows[tile_tensor[index]]
            start = (index - row[FIRST_TILE]) * tile
            size = min(tile, row[NUMEL] - start)
            scalars = hyper[row[HYPER_ROW]]
            prologue_hyper = to_fixed_tuple(scalars[:before], before)
            rule_hyper = to_fixed_tuple(scalars[before : before + fields], fields)
            epilogue_hyper = to_fixed_tuple(scalars[before + fields : key_at], after)
            key_low, key_high = np.uint32(scalars[key_at]), np.uint32(scalars[key_at + 1])
            p_at = p_planes(row, p_columns, start, p_types)
            g_at = g_planes(row, g_columns, start, g_types)
            a_at = a_planes(row, a_columns, start, a_types)
            b_at = b_planes(row, b_columns, start, b_types)
            c_at = c_planes(row, c_columns, start, c_types)
            e_at = e_planes(row, e_columns, start, e_types)
            k_at = k_planes(row, k_columns, start, k_types)
            p_key = slot_key(key_low, key_high, p_slot)
            a_key = slot_key(key_low, key_high, a_slot)
            b_key = slot_key(key_low, key_high, b_slot)
            c_key = slot_key(key_low, key_high, c_slot)
            e_key = slot_key(key_low, key_high, e_slot)
            k_key = slot_key(key_low, key_high, k_slot)
            a_kept, b_kept, c_kept = a_room(), b_room(), c_room()
            begin = np.int64(0)
            while begin < size:
                end = next_end(begin, size)
                a_in = a_begin(a_at, begin, a_kept)
                b_in = b_begin(b_at, begin, b_kept)
                c_in = c_begin(c_at, begin, c_kept)
                at = begin
                while at < end:
                    run, first_low, high = next_run(row, start + at, end - at)
                    for i in range(at, at + run):
                        low = np.uint32(first_low + np.uint32(i - at))
                        p = p_get(p_at, i, p_load, compute)
                        g = g_get(g_at, i, g_load, compute)
                        a = a_get(a_in, i, a_load, compute)
                        b = b_get(b_in, i, b_load, compute)
                        c = c_get(c_in, i, c_load, compute)
                        e = e_get(e_at, i, e_load, compute)
                        p, g = prologue_form(p, g, prologue_hyper)
                        a, b, c = restore(restore_form, rule_hyper, a, b, c)
                        p, a, b, c = call(rule, p, g, rule_hyper, a, b, c)
                        a, b, c = reduce(reduce_form, rule_hyper, a, b, c)
                        e = epilogue_form(p, e, epilogue_hyper)
                        p_set(p_at, i, p_store, p, p_bits(low, high, p_key))
                        g_set(g_at, i, g_store, zero, np.uint32(0))
                        a_set(a_in, i, a_store, a, a_bits(low, high, a_key))
                        b_set(b_in, i, b_store, b, b_bits(low, high, b_key))
                        c_set(c_in, i, c_store, c, c_bits(low, high, c_key))
                        e_set(e_at, i, e_store, e, e_bits(low, high, e_key))
                        k_set(k_at, i, k_store, p, k_bits(low, high, k_key))
                    at += run
                a_end(a_at, begin, end, a_kept, a_store, a_top, a_random, a_key, row, start, next_run)
                b_end(b_at, begin, end, b_kept, b_store, b_top, b_random, b_key, row, start, next_run)
                c_end(c_at, begin, end, c_kept, c_store, c_top, c_random, c_key, row, start, next_run)
                begin = end

    return step


register_jitable(mix)
register_jitable(slot_key)
register_jitable(hash_of)
register_jitable(bits_of_even)
register_jitable(bits_of_odd)
register_jitable(magnitude_of)
register_jitable(scale_of)
register_jitable(factor_of)


@register_jitable
def _next_run(row, at, left):
    """How many of the ``left`` elements from ``at`` on follow each other in the whole model; the first one's index.

    No further than the upper half of an index stays the same, so that what goes by element is of 32 bits.
    """
    index = row[ORIGIN] + at // row[RUN] * row[PITCH] + at % row[RUN]
    if row[RUN] != row[PITCH]:
        left = min(left, row[RUN] - at % row[RUN])
    low = index & 0xFFFFFFFF
    return min(left, 0x100000000 - low), np.uint32(low), np.uint32(index >> 32)


@register_jitable
def _all_that_is_left(row, at, left):
    """In place of the above where nothing is random."""
    return left, np.uint32(0), np.uint32(0)


@register_jitable
def _no_bits(low, high, key):
    """In place of random bits where there are none."""
    return np.uint32(0)


@intrinsic
def pointer_to(typing_context, address, start, dtype):
    """``address`` as a pointer to elements of ``dtype``, moved on by ``start`` elements."""

    def code(context, builder, signature, arguments):
        base = builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))
        return builder.gep(base, [arguments[1]])

    return types.CPointer(dtype.dtype)(types.int64, types.int64, dtype), code


@register_jitable
def _plane(row, columns, start, dtypes):
    """The planes of a slot from element ``start`` on."""
    return (pointer_to(row[POINTERS + columns[0]], start, dtypes[0]),)


@register_jitable
def _planes(row, columns, start, dtypes):
    first = pointer_to(row[POINTERS + columns[0]], start, dtypes[0])
    return first, pointer_to(row[POINTERS + columns[1]], start, dtypes[1])


@register_jitable
def _get(planes, i, load, compute):
    """The value of one element."""
    return compute(load(planes[0][i]))


@register_jitable
def _get_of_two(planes, i, load, compute):
    return compute(load(planes[0][i], planes[1][i]))


@register_jitable
def _set(planes, i, store, value, bits):
    """Stores the value of one element."""
    (planes[0][i],) = store(value, bits)


@register_jitable
def _set_of_two(planes, i, store, value, bits):
    planes[0][i], planes[1][i] = store(value, bits)


@register_jitable
def _nothing(*_):
    """In place of all of these for a slot that is absent."""


_ACCESSES = [(_nothing, _nothing, _nothing), (_plane, _get, _set), (_planes, _get_of_two, _set_of_two)]
"""By number of planes."""


@register_jitable
def _codes_and_scales(row, columns, start, dtypes):
    """The planes of a slot in blocks, from the block on that begins with element ``start``."""
    codes = pointer_to(row[POINTERS + columns[0]], start, dtypes[0])
    return codes, pointer_to(row[POINTERS + columns[1]], start // BLOCK, dtypes[1])


@register_jitable
def _room():
    """Where the new values of a block are kept until all are there."""
    return np.empty(BLOCK, np.float32)


@register_jitable
def _begin(planes, begin, kept):
    """What is read and written of a slot from the block on that begins with element ``begin`` of the tile."""
    return planes[0], planes[1][begin // BLOCK], pointer_to(kept.ctypes.data, -begin, np.float32)


@register_jitable
def _get_in_block(block, i, load, compute):
    return compute(load(block[0][i], block[1]))


@register_jitable
def _keep(block, i, store, value, bits):
    """In place of a store."""
    block[2][i] = value


@register_jitable
def _end(planes, begin, end, kept, store, top, bits, key, row, start, next_run):
    """Stores the elements of a block, from ``begin`` to ``end`` of the tile, whose values are ``kept``."""
    values = pointer_to(kept.ctypes.data, -begin, np.float32)
    largest = np.uint32(0)
    for i in range(begin, end):
        largest = max(largest, magnitude_of(values[i]))
    scale = scale_of(largest)
    factor = factor_of(scale, top)
    at = begin
    while at < end:
        run, first_low, high = next_run(row, start + at, end - at)
        for i in range(at, at + run):
            low = np.uint32(first_low + np.uint32(i - at))
            (planes[0][i],) = store(values[i], bits(low, high, key), factor)
        at += run
    planes[1][begin // BLOCK] = scale


_BLOCKS = _room, _begin, _end


def _accesses(format: Format | None) -> tuple[Any, Any, Any]:
    """How a slot is reached, read and written."""
    if format is not None and format.in_blocks:
        return _codes_and_scales, _get_in_block, _keep
    return _ACCESSES[len(format.planes) if format else 0]


@register_jitable
def _as_it_is(planes, begin, kept):
    """In place of the beginning of a block where there are none."""
    return planes


@register_jitable
def _end_of_block(begin, size):
    return min(begin + BLOCK, size)


@register_jitable
def _end_of_tile(begin, size):
    return size


@register_jitable
def _leave(p, g, hyper):
    """In place of the prologue where it changes nothing."""
    return p, g


@register_jitable
def _nothing_to_average(p, average, epilogue):
    """In place of the epilogue where there is no average."""


@register_jitable
def _call_1(rule, p, g, hyper, a, b, c):
    p, a = rule(p, g, hyper, a)
    return p, a, b, c


@register_jitable
def _call_2(rule, p, g, hyper, a, b, c):
    p, a, b = rule(p, g, hyper, a, b)
    return p, a, b, c


@register_jitable
def _call_3(rule, p, g, hyper, a, b, c):
    return rule(p, g, hyper, a, b, c)


_CALLS = {1: _call_1, 2: _call_2, 3: _call_3}
"""By number of slots: how a rule is called."""


@register_jitable
def _relate_1(form, hyper, a, b, c):
    (a,) = form(hyper, a)
    return a, b, c


@register_jitable
def _relate_2(form, hyper, a, b, c):
    a, b = form(hyper, a, b)
    return a, b, c


@register_jitable
def _relate_3(form, hyper, a, b, c):
    return form(hyper, a, b, c)


_RELATES = {1: _relate_1, 2: _relate_2, 3: _relate_3}
"""By number of slots: how a form of their relation is called."""


@register_jitable
def _leave_state(form, hyper, a, b, c):
    """In place of it where slots have none, or are not stored in blocks."""
    return a, b, c


@overload(select)
def _select(condition, a, b):
    return lambda condition, a, b: a if condition else b


@cache
def source_fingerprint() -> str:
    """A hash of all source that a binary is compiled from; Numba itself only looks at this file."""
    digest = sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def form_fingerprint(form: Callable[..., Any]) -> str:
    """A hash of the file that a form is defined in, which may be another's; of its code where there is no file."""
    try:
        source = Path(inspect.getfile(form)).read_bytes()
    except OSError:
        source = marshal.dumps(form.__code__)
    return sha256(source).hexdigest()


def cache_on_disk(dispatcher: Any) -> None:
    """Caches where Numba can (``NUMBA_CACHE_DIR``, beside the source, the user's own), else in the temporary folder."""
    if _enable_caching(dispatcher):
        return
    chosen = numba.config.CACHE_DIR
    folder = Path(tempfile.gettempdir()) / f"gpuopt-{os.getuid()}"
    try:
        if _is_private(folder):
            numba.config.CACHE_DIR = str(folder)
            if _enable_caching(dispatcher):
                return
    finally:
        numba.config.CACHE_DIR = chosen
    warn(
        f"no folder for compiled code is writable, not even {folder}, so each process compiles anew; "
        "set NUMBA_CACHE_DIR to one that is"
    )


def _is_private(folder: Path) -> bool:
    """Whether ``folder``, made if need be, is this user's alone: Numba unpickles what it finds there."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077


def _enable_caching(dispatcher: Any) -> bool:
    try:
        dispatcher.enable_caching()
    except (RuntimeError, OSError):  # Numba found no folder that it may write
        return False
    return True
