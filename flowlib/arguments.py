"""What callers may write: numbers as tensors, arrays, lists or plain numbers; and how many to draw. All by one rule."""
from __future__ import annotations

import inspect
import operator
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.utils import lazy_property

__all__ = ["batch_shape", "constants", "distribution_arguments", "holds", "number_of_draws"]


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
