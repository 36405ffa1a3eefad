"""Where the elements of an array are, whichever library it belongs to."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from gpuopt.kernels.formats import BY_DTYPE, Plane

_PLANES = {dtype: format.planes[0] for dtype, format in BY_DTYPE.items()}
_DTYPES = ", ".join(BY_DTYPE)

_MOST_WORK = 10_000
"""Steps that NumPy may take to solve for an overlap, which can need exponentially many."""


class Memory(NamedTuple):
    """Where the elements of an array are.

    Attributes:
        library: ``"numpy"``, ``"cupy"`` or ``"torch"``.
        device: Index of the CUDA device; None for host memory.
        address: Of the first element, in bytes.
        shape: Number of elements along each axis.
        strides: Bytes from one element to the next along each axis.
        plane: What each entry is.
        writable: Whether the array may be written.
    """

    library: str
    device: int | None
    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    plane: Plane
    writable: bool

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of an entry."""
        return self.plane.storage.itemsize

    def lies_like(self, other: Memory) -> bool:
        """Whether a table serves for both once it has the address: all else is the same, and so is alignment."""
        return (
            (self.address - other.address) % self.itemsize == 0
            and self.shape == other.shape
            and self.strides == other.strides
            and self.plane is other.plane
            and self.device == other.device
            and self.library == other.library
        )

    @property
    def place(self) -> str:
        """Library and device, as an error message says them."""
        return self.library if self.device is None else f"{self.library} on CUDA device {self.device}"

    @property
    def extent(self) -> tuple[int, int]:
        """First byte, and the one after the last."""
        if not self.numel:
            return self.address, self.address
        spans = [stride * (size - 1) for size, stride in zip(self.shape, self.strides, strict=True)]
        low = self.address + sum(span for span in spans if span < 0)
        high = self.address + sum(span for span in spans if span > 0)
        return low, high + self.itemsize

    @property
    def dense(self) -> bool:
        """Whether the elements fill their extent without a gap, in whatever order of axes, and are aligned."""
        low, high = self.extent
        full = high - low == self.numel * self.itemsize
        return full and low == self.address and low % self.itemsize == 0 and not self.overlaps_itself

    @property
    def order(self) -> tuple[int, ...]:
        """Strides, in elements, of the axes that have several: dense arrays of one shape and order run in step."""
        size_of = self.itemsize
        return tuple(stride // size_of for size, stride in zip(self.shape, self.strides, strict=True) if size > 1)

    @property
    def packed_order(self) -> tuple[int, ...]:
        """The order of a new array made like this one: the same order of axes, without gaps."""
        axes = [axis for axis, size in enumerate(self.shape) if size > 1]
        strides = {}
        stride = 1
        for axis in sorted(axes, key=lambda axis: (abs(self.strides[axis]), -axis)):
            strides[axis] = stride
            stride *= self.shape[axis]
        return tuple(strides[axis] for axis in axes)

    @property
    def overlaps_itself(self) -> bool:
        """Whether two elements may share memory, as in a broadcast array."""
        reach = self.itemsize
        for stride, size in sorted(
            (abs(stride), size) for size, stride in zip(self.shape, self.strides, strict=True) if size > 1
        ):
            if stride < reach:
                return self.numel > 0
            reach += stride * (size - 1)
        return False


def memory_of(array: Any, name: str, wanted: Plane | None = None) -> Memory:
    """Where the elements of ``array`` are.

    Args:
        array: A NumPy or CuPy array or a dense PyTorch tensor.
        name: What an error message calls it.
        wanted: What each entry must be; None for any floating-point dtype that gpuopt has a format for.

    Raises:
        TypeError: It is no such array.
        ValueError: It is a tensor without memory.
    """
    library = library_of(array)
    if library == "torch":
        return _memory_of_tensor(array, name, wanted)
    if library is None:
        raise TypeError(f"{name} must be a NumPy or CuPy array, but is {type(array).__name__}")
    plane = _plane_of(array.dtype, wanted)
    if plane is None:
        raise TypeError(f"{name} must be of dtype {_said(wanted)} in native byte order, but is {array.dtype}")
    if library == "cupy":
        return Memory(library, array.device.id, array.data.ptr, array.shape, array.strides, plane, writable=True)
    address = array.__array_interface__["data"][0]
    return Memory(library, None, address, array.shape, array.strides, plane, array.flags.writeable)


def _memory_of_tensor(tensor: Any, name: str, wanted: Plane | None) -> Memory:
    import torch

    device = tensor.device
    if tensor.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense tensor, but its layout is {tensor.layout}")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"{name} must be in the memory of a CPU or CUDA device, but is on {device}")
    plane = _plane_called(str(tensor.dtype).removeprefix("torch."), wanted)
    if plane is None:
        raise TypeError(f"{name} must be of dtype {_said(wanted)}, but is {tensor.dtype}")
    if tensor.is_neg():
        raise ValueError(f"{name} must not be a view that negates, but is one: call resolve_neg()")
    stored = tensor.untyped_storage().nbytes()
    if stored == 0 and tensor.numel():
        raise ValueError(f"{name} must have memory, but its storage has been freed")
    if tensor.data_ptr() == 0 and tensor.numel():
        raise TypeError(f"{name} must have memory of its own, but {type(tensor).__name__} has none")
    size = plane.storage.itemsize
    memory = Memory(
        "torch",
        device.index,
        tensor.data_ptr(),
        tuple(tensor.shape),
        tuple(stride * size for stride in tensor.stride()),
        plane,
        writable=True,
    )
    needed = tensor.storage_offset() * size + memory.extent[1] - memory.address
    if tensor.numel() and needed > stored:
        raise ValueError(f"{name} must lie within its storage, but needs {needed} bytes of it, and it has {stored}")
    return memory


@cache
def _plane_of(dtype: np.dtype[Any], wanted: Plane | None) -> Plane | None:
    """As :func:`_plane_called`. It is remembered, since a dtype's name takes NumPy longer than all the rest."""
    return _plane_called(dtype.name, wanted) if dtype.isnative else None


def _plane_called(name: str, wanted: Plane | None) -> Plane | None:
    """The plane of a dtype; None where it is not the one that is wanted, or has no format of its own."""
    if wanted is None:
        return _PLANES.get(name)
    return wanted if name == wanted.dtype else None


def _said(wanted: Plane | None) -> str:
    """The dtypes that an array may have, as an error message says them."""
    return _DTYPES if wanted is None else wanted.dtype


def library_of(array: Any) -> str | None:
    """``"numpy"``, ``"cupy"``, ``"torch"``, or None for what is none of these."""
    if isinstance(array, np.ndarray) and not isinstance(array, np.ma.MaskedArray):
        return "numpy"
    # Not isinstance: importing CuPy for that would cost a NumPy user a second.
    if type(array).__module__.partition(".")[0] == "cupy" and type(array).__name__ == "ndarray":
        return "cupy"
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        return "torch"
    return None


def on_device_of(array: Any) -> AbstractContextManager[Any]:
    """In this context new arrays and operations are on the device of ``array``, whichever is current outside."""
    if library_of(array) == "cupy":
        context: AbstractContextManager[Any] = array.device
        return context
    return nullcontext()


def full_like(array: Any, value: float, dtype: Any) -> Any:
    """A new array full of ``value``, in the library, on the device and with the shape and axis order of ``array``."""
    with on_device_of(array):
        if library_of(array) == "cupy":
            import cupy

            return cupy.full_like(array, value, dtype=dtype)
        if library_of(array) == "torch":
            import torch

            memory = memory_of(array, "array")
            order = iter(memory.packed_order)
            strides = [next(order) if size > 1 else 1 for size in memory.shape]
            return torch.empty_strided(memory.shape, strides, dtype=dtype, device=array.device).fill_(value)
        return np.full_like(array, value, dtype=dtype, subok=False)


def copy_of(array: Any) -> Any:
    """A copy in the library, on the device and with the axis order of ``array``."""
    with on_device_of(array):
        return array.copy(order="K")


def to_host(array: Any) -> np.ndarray[Any, Any]:
    """``array`` as a NumPy array."""
    host: np.ndarray[Any, Any] = array if library_of(array) == "numpy" else array.get()
    return host


def axes_of(array: Any) -> tuple[int, ...]:
    """The axes of a NumPy or CuPy array in the order of its memory, the slowest first."""
    return tuple(sorted(range(array.ndim), key=lambda axis: (abs(array.strides[axis]), -axis), reverse=True))


def moved_to(array: Any, like: Any, wanted: Plane | None = None) -> Any:
    """``array`` itself if it is where ``like`` is and in its axis order, else a copy that is.

    ``wanted`` is what its entries are, as :func:`memory_of` takes it.
    """
    old, new = memory_of(array, "array", wanted), memory_of(like, "like")
    same_place = (old.library, old.device) == (new.library, new.device)
    if same_place and (old.shape != new.shape or old.order == new.packed_order):
        return array
    source = array if same_place else to_host(array)
    if old.shape != new.shape:
        return source  # for a check to refuse
    moved = full_like(like, 0, array.dtype)
    with on_device_of(like):
        if new.library == "cupy":
            import cupy

            source = cupy.asarray(source)
        moved[...] = source
    return moved


def current_stream(memory: Memory) -> int:
    """Handle of the stream that the library would run on now, for the device of ``memory``; 0 for host memory."""
    if memory.library == "cupy":
        import cupy

        return int(cupy.cuda.get_current_stream(memory.device).ptr)
    if memory.library == "torch" and memory.device is not None:
        import torch

        return int(torch.cuda.current_stream(memory.device).cuda_stream)
    return 0


def share_memory(a: Memory, b: Memory) -> bool:
    """Whether an element of ``a`` and one of ``b`` overlap, or their strides are too intricate to tell.

    It looks at addresses alone, so it serves GPUs too.
    """
    try:
        return bool(np.shares_memory(_Addresses(a).array, _Addresses(b).array, max_work=_MOST_WORK))  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


class _Addresses:
    """An array at the addresses of another, never read."""

    def __init__(self, memory: Memory) -> None:
        self.__array_interface__ = {
            "version": 3,
            "shape": memory.shape,
            "strides": memory.strides,
            "typestr": memory.plane.storage.str,
            "data": (memory.address, True),
        }
        self.array = np.asarray(self)
