"""A GPU that is not there: tensors that say they are on "cuda", are computed by the CPU, and may not meet the others.

Which tensor lives where is a property of the program, not of the hardware.  Within ``StandInDevice()`` every tensor
that is moved to, or made on, "cuda" is marked, the marks follow the data through every operation of torch, backward
passes and optimisers among them, and an operation on tensors of both places raises :class:`MixedDevicesError`, by the
rules of a real GPU: a CPU tensor without dimensions may join in, CPU indices may choose rows, and ``copy_`` crosses.
What the kernels of a GPU compute is not tested by it.
"""

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")  # a real one
CUDA = torch.device("cuda", 0)
INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")


class MixedDevicesError(AssertionError):
    """An operation was asked for on tensors of both devices."""


class StandInDevice(TorchDispatchMode):
    """Within it "cuda" is a device like any other; see the module."""

    def __init__(self):
        super().__init__()
        # Storages on the stand-in.  A weak reference keeps the address of a freed one from being given again.
        self.known: dict[int, StorageWeakRef] = {}
        self.changes = pytest.MonkeyPatch()

    def __contains__(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` is on the stand-in."""
        return tensor.untyped_storage()._cdata in self.known

    def mark(self, tensor: Tensor, far: bool) -> None:
        """Put the memory of ``tensor`` on the stand-in, or off it."""
        storage = tensor.untyped_storage()
        if far:
            self.known[storage._cdata] = StorageWeakRef(storage)
        else:
            self.known.pop(storage._cdata, None)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Every operation, below autograd: checked, carried out on the CPU, and its new tensors marked."""
        kwargs = dict(kwargs or {})
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        far = [tensor for tensor in given if tensor in self]
        near = [tensor for tensor in given if tensor not in self and tensor.dim() > 0]
        name = func._schema.name
        if far and near and not (name == "aten::copy_" or (name in INDEXING and given[0] in self)):
            shapes = ", ".join(f"{tuple(t.shape)} on {'cuda' if t in self else 'cpu'}" for t in given)
            raise MixedDevicesError(f"{name} on tensors of two devices: {shapes}")
        here = bool(far)
        if kwargs.get("device") is not None:
            # Autograd's own zeros ask for the device that the CPU's kernels see; they belong to the gradient.
            here = kwargs["device"].type == "cuda" or torch._C._current_graph_task_id() != -1
            kwargs["device"] = torch.device("cpu")
        old = {tensor.untyped_storage()._cdata for tensor in given}
        result = func(*args, **kwargs)
        for made in tree_leaves(result):
            if here and isinstance(made, Tensor) and made.untyped_storage()._cdata not in old:
                self.mark(made, True)
        return result

    def __enter__(self):
        """Tensors tell the device that they are marked with, and what would ask the driver does not."""
        change = self.changes.setattr
        change(torch.cuda, "_lazy_init", lambda: None)
        device, to, numpy = torch._C.TensorBase.device.__get__, Tensor.to, Tensor.numpy
        change(Tensor, "device", property(lambda tensor: CUDA if tensor in self else device(tensor)), raising=False)
        change(Tensor, "is_cuda", property(self.__contains__), raising=False)
        change(Tensor, "cuda", lambda tensor: self._moved(tensor, tensor, True), raising=False)
        change(Tensor, "cpu", lambda tensor: self._moved(tensor, tensor, False), raising=False)

        def move(tensor: Tensor, *args, **kwargs) -> Tensor:
            if args and isinstance(args[0], Tensor):
                args = (args[0].device, args[0].dtype, *args[1:])
            wanted = kwargs.pop("device", None)
            if args and isinstance(args[0], str | torch.device):
                # By place: device, dtype or None, and flags that say how to copy.
                wanted, args = args[0], tuple(value for value in args[1:2] if value is not None)
            made = to(tensor, *args, **kwargs) if args or kwargs else tensor
            return self._moved(tensor, made, tensor in self if wanted is None else torch.device(wanted).type == "cuda")

        def like_itself(make):
            return lambda tensor, *args, **kwargs: self._moved(None, make(tensor, *args, **kwargs), tensor in self)

        def array(tensor: Tensor, *args, **kwargs):
            if tensor in self:
                raise TypeError("a tensor on cuda has no numpy array: use .cpu() first")
            return numpy(tensor, *args, **kwargs)

        def from_data(make):
            def made(data, *args, device=None, **kwargs) -> Tensor:
                far = (
                    isinstance(data, Tensor) and data in self if device is None else torch.device(device).type == "cuda"
                )
                return self._moved(data if isinstance(data, Tensor) else None, make(data, *args, **kwargs), far)

            return made

        for name in ("tensor", "as_tensor"):  # these set the current device themselves, before any operation
            change(torch, name, from_data(getattr(torch, name)))
        change(Tensor, "to", move, raising=False)
        change(Tensor, "numpy", array, raising=False)
        for name in ("__deepcopy__", "new_tensor"):  # no operation shows where these come from
            change(Tensor, name, like_itself(getattr(Tensor, name)), raising=False)
        return super().__enter__()

    def __exit__(self, *error):
        self.changes.undo()
        return super().__exit__(*error)

    def _moved(self, source: Tensor | None, made: Tensor, far: bool) -> Tensor:
        """``made`` on the device asked for, in memory of its own if ``source`` stays where it is."""
        if (made in self) == far:
            return made
        if source is not None and made.untyped_storage()._cdata == source.untyped_storage()._cdata:
            made = made.clone()
        self.mark(made, far)
        return made
