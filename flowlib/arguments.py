"""What callers may write: numbers as tensors, arrays, lists or plain numbers; how many to draw; tensors that fit a
layer; contexts. All by one rule."""
from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions.utils import lazy_property

__all__ = ["batch_shape", "check_tensor", "checked_call", "constants", "declared_context", "device_of",
           "distribution_arguments", "float_dtype", "holds", "number_of_draws", "shared_context"]


def constants(owner: str, **values: Any) -> list[Tensor]:
    """Copies of the arguments of a class `owner` as floating-point tensors of one dtype on one device.

    Floating-point tensors say which dtype; all else (arrays, lists, numbers, tensors of integers) becomes that, or
    torch's default. The copies are constants: a tensor that wants a gradient would not get one, so it is refused.

    Raises:
        ValueError: What holds no real numbers, or a tensor that requires a gradient.

    Example:
        >>> constants("Uniform", low=[0, 0], high=torch.tensor([1, 2]))
        [tensor([0., 0.]), tensor([1., 2.])]
    """
    tensors = {name: v for name, v in values.items() if isinstance(v, Tensor)}
    for name, tensor in tensors.items():
        if tensor.requires_grad:
            raise ValueError(f"{owner} copies its arguments, so {name} would not be trained: give {name}.detach()")
    floating = [t.dtype for t in tensors.values() if t.is_floating_point()]
    dtype = torch.get_default_dtype() if not floating else max(floating, key=lambda d: torch.finfo(d).bits)
    device = next((t.device for t in tensors.values()), None)
    made = []
    for name, value in values.items():
        try:
            tensor = torch.as_tensor(value, device=device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{owner} takes numbers or a tensor as {name}, got {value!r}") from error
        if tensor.is_complex():
            raise ValueError(f"{owner} takes real numbers as {name}, got {tensor.dtype}")
        if not isinstance(value, Tensor):
            # anew: 0.1 by way of float32 would be no 0.1 in float64
            tensor = torch.as_tensor(value, dtype=dtype, device=device)
        made.append(tensor.to(dtype).clone())
    return made


def distribution_arguments(distribution: Distribution) -> dict[str, Tensor]:
    """The arguments that a `torch.distributions` object was made with, of several parametrisations it may know.

    Example:
        >>> distribution_arguments(torch.distributions.Exponential(torch.tensor(2.0)))
        {'rate': tensor(2.)}
    """
    cls = type(distribution)
    names = [name for name in inspect.signature(cls.__init__).parameters if name in distribution.arg_constraints]
    return {name: getattr(distribution, name) for name in names
            if not isinstance(inspect.getattr_static(cls, name, None), lazy_property) or name in vars(distribution)}


def holds(condition: Tensor) -> bool:
    """Whether a condition holds in every entry. Tensors of the meta device have no values to say no with."""
    return condition.is_meta or bool(condition.all())


def number_of_draws(n: int) -> int:
    """n, which is ValueError for what is no integer or negative.

    Example:
        >>> number_of_draws(0)
        0
    """
    try:
        number = -1 if isinstance(n, bool) else operator.index(n)
    except TypeError:
        number = -1
    if number < 0:
        raise ValueError(f"the number of draws is an integer that is not negative, got {n!r}")
    return number


def batch_shape(batch: int | tuple[int, ...]) -> tuple[int, ...]:
    """The axes of a batch of draws: a tuple of numbers, or one number.

    Example:
        >>> batch_shape(5), batch_shape((0, 3))
        ((5,), (0, 3))
    """
    return tuple(map(number_of_draws, batch if isinstance(batch, (tuple, list)) else (batch,)))


def device_of(module: nn.Module) -> torch.device:
    """Where a module's weights (or buffers) are."""
    return next((t.device for t in (*module.parameters(), *module.buffers())), torch.device("cpu"))


def float_dtype(module: nn.Module) -> torch.dtype | None:
    """The dtype of a module's first floating-point parameter or buffer, None where it has none. Looked up anew at each
    call, not remembered: `.double()`, adapters, `functional_call` may have changed it, and it costs a microsecond."""
    for tensors in (module._parameters, module._buffers):
        for tensor in tensors.values():
            if tensor is not None and tensor.is_floating_point():
                return tensor.dtype
    for child in module._modules.values():
        if child is not None and (dtype := float_dtype(child)) is not None:
            return dtype
    return None


def check_tensor(value: Tensor, who: str, dtype: torch.dtype | None = None, what: str = "an input") -> None:
    """Raise ValueError where `value` is not a floating-point tensor, of this dtype if one is given."""
    if not isinstance(value, Tensor):
        like = f", dtype={dtype}" if dtype is not None else ""
        raise ValueError(f"{who} expected {what} that is a tensor, got {type(value).__name__}; "
                         f"give torch.as_tensor(...{like})")
    if value.dtype == dtype or (dtype is None and value.is_floating_point()):
        return
    if not value.is_floating_point():
        raise ValueError(f"{who} expected {what} of floating-point numbers, got {value.dtype}; "
                         f"convert it with .to({dtype or torch.get_default_dtype()})")
    raise ValueError(f"{who} has dtype {dtype}, got {what} of dtype {value.dtype}; "
                     f"convert one of them with .to({dtype}) or .to({value.dtype})")


def checked_call(method: Callable, name: str) -> Callable:
    """`forward`, `inverse` or `initialize` of a layer, with `Bijection.check` of its arguments before it."""
    _, first, *_ = inspect.signature(method).parameters  # the name of z or x, for a call by keywords

    @functools.wraps(method)
    def checked(self, *args, **kwargs):
        if args or first in kwargs:  # else Python says what is missing
            context = args[1] if len(args) > 1 else kwargs.get("context")
            inverse = name == "inverse"
            if name == "initialize":
                inverse = args[2] if len(args) > 2 else kwargs.get("inverse", True)
            self.check(args[0] if args else kwargs[first], context, inverse)
        return method(self, *args, **kwargs)

    return checked


def one_context(context_dim: int | None, shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The declared shape of a layer's context, of which `context_dim=C` is the short form for (C,)."""
    if context_dim is not None and shape is not None:
        raise ValueError(f"give context_dim or context_shape, not both; got {context_dim} and {shape}")
    shape = (context_dim,) if context_dim is not None else shape
    return None if shape is None else tuple(shape)


def declared_context(context_dim: int | None, shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The same of an image layer: (C,), the same at every pixel, or (C, H, W)."""
    shape = one_context(context_dim, shape)
    if shape is not None and len(shape) not in (1, 3):
        raise ValueError(f"the context of an image layer has shape (C,) or (C, H, W), got {shape}")
    return shape


def shared_context(parts: Iterable[nn.Module]) -> tuple[int, ...] | None:
    """The context shape of what reads one context together; ValueError where the parts ask for different ones."""
    shapes = sorted({shape for part in parts if (shape := getattr(part, "context_shape", None)) is not None})
    if len(shapes) > 1:
        raise ValueError(f"all parts share one context, but ask for shapes {', '.join(map(str, shapes))}")
    return shapes[0] if shapes else None
