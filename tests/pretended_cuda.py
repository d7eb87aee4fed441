"""A CUDA device that is not there: torch's fake tensors say where a GPU would fail, the CPU computes the values.

Every operation runs on the CPU, so that whole trainings run as they are; one whose operands are on two devices runs first on
fake tensors of torch's own (FakeTensorMode), which fails where a GPU would. Not seen: autocast, pinned memory, streams, a
GPU's generators, what threads of their own compute (`prefetch`), and the kernels.
"""

from contextlib import contextmanager
from itertools import repeat

import pytest
import torch
from torch import Generator, Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
BY_VALUE = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)
FAKES = FakeTensorMode()
INDEXING = ("index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_")


class OnCuda(Tensor):
    """A tensor that says that it is on the GPU; torch's C++ believes it on the CPU, so that gradients need no driver."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device, is_cuda, is_cpu = CUDA, True, False

    @staticmethod
    def __new__(cls, values):
        return Tensor._make_wrapper_subclass(
            cls, values.shape, strides=values.stride(), storage_offset=values.storage_offset(), dtype=values.dtype,
            requires_grad=values.requires_grad, device=CPU,
        )  # fmt: skip

    def __init__(self, values):
        self.values_on_cpu = values

    def __deepcopy__(self, memo):
        made = OnCuda(self.values_on_cpu.detach().clone()).requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            made._is_param = True
        return memo.setdefault(id(self), made)

    def __tensor_flatten__(self):
        return ["values_on_cpu"], None

    @staticmethod
    def __tensor_unflatten__(inner, *_):
        return OnCuda(inner["values_on_cpu"])

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return run(operation, args, kwargs or {})


class _Pretend(TorchDispatchMode):
    """Sees operations of CPU tensors too, and those that make a tensor out of nothing."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return run(operation, args, kwargs or {})


def run(operation, args, kwargs):
    """An operation on the CPU's values, its results on the devices where the fake tensors are."""
    devices = devices_of(operation, args, kwargs)
    with unset_fake_temporarily():
        found = operation(*tree_map(on_cpu, args), **tree_map(on_cpu, kwargs))
        found = tree_map(lambda x: OnCuda(x) if isinstance(x, Tensor) and next(devices) == CUDA else x, found)
        return return_and_correct_aliasing(operation, args, kwargs, found)


def on_cpu(given):
    """A pretended tensor's values, the CPU instead of the device; anything else as it is."""
    if isinstance(given, torch.device):
        return CPU
    return given.values_on_cpu if isinstance(given, OnCuda) else given


def devices_of(operation, args, kwargs):
    """The devices of an operation's results; RuntimeError where a GPU would refuse its operands."""
    leaves = tree_leaves((args, kwargs))
    given = {x.device for x in leaves if isinstance(x, Tensor)} | {x for x in leaves if isinstance(x, torch.device)}
    name = operation.name().partition("::")[2].partition(".")[0]
    if len(given) < 2:  # nothing to differ from
        device = CUDA if CUDA in given or torch.device("cuda") in given else CPU
        if any(x.device.type != device.type for x in leaves if isinstance(x, Generator)):
            raise RuntimeError(f"{operation}: a generator of another device than {device}")
        return repeat(device)
    if name in INDEXING:  # fake tensors let these pass: a GPU takes the CPU's indices, but the CPU none of a GPU's
        others = [x for x in args[1] if x is not None] if args[0].device == CPU else []
        others += [x for x in args[2:3] if isinstance(x, Tensor) and x.ndim]  # what is put there
        if any(x.device != args[0].device for x in others):
            raise RuntimeError(f"{operation}: indices or values on another device than {args[0].device}")
        return repeat(args[0].device)
    try:
        with torch.no_grad(), FAKES:
            found = operation(*tree_map(_fake, args), **tree_map(_fake, kwargs))
    except BY_VALUE:  # shapes that only the data tell
        raise RuntimeError(f"{operation}: expected all tensors to be on the same device, found {given}") from None
    return iter([x.device for x in tree_leaves(found) if isinstance(x, Tensor)])


def _fake(given):
    if not isinstance(given, Tensor):
        return given
    return torch.empty_strided(given.shape, given.stride(), dtype=given.dtype, device=given.device)


_to = Tensor.to


def moved(tensor, *args, **kwargs):
    """Tensor.to, by the device that a tensor says it is on."""
    if args and isinstance(args[0], Tensor):
        args = args[0].device, args[0].dtype, *args[1:]
    device, dtype, _, memory_format = torch._C._nn._parse_to(*args, **{k: v for k, v in kwargs.items() if k != "copy"})
    device, dtype = device or tensor.device, dtype or tensor.dtype
    if device.type == tensor.device.type and device.type == "cpu":
        return _to(tensor, *args, **kwargs)
    if device.type == tensor.device.type and dtype == tensor.dtype and memory_format is None and not kwargs.get("copy"):
        return tensor
    device = CUDA if device.type == "cuda" else device
    return torch.ops.aten._to_copy(tensor, device=device, dtype=dtype, memory_format=memory_format)


def outside(function):
    """The function without the pretence: files are read into tensors that torch makes behind its own back."""

    def call(*args, **kwargs):
        with _disable_current_modes():
            return function(*args, **kwargs)

    return call


@contextmanager
def pretended_cuda():
    """Inside, "cuda" is a device; torch.cuda.is_available() stays false, and with it autocast off."""
    to_list, swaps = Tensor.tolist, torch.__future__.get_swap_module_params_on_conversion()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "to", moved)
        patch.setattr(Tensor, "cpu", lambda x: moved(x, CPU))
        patch.setattr(Tensor, "cuda", lambda x: moved(x, CUDA))
        patch.setattr(Tensor, "tolist", lambda x: to_list(x.cpu()))  # torch refuses it to subclasses
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            # fake tensors around all keep torch from looking for a driver
            with FAKES, _Pretend():
                yield
        finally:
            torch.__future__.set_swap_module_params_on_conversion(swaps)
