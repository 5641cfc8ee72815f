"""Whether two modules are alike in all but their weights: the same classes, parts, attributes, shapes and ties."""
from __future__ import annotations

import inspect
import types
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from .arguments import distribution_arguments

__all__ = ["difference", "misfit"]

# attributes that decide no density: torch's own (hooks, the mode, ...), what compiling leaves, the recorded call
APART = {*vars(nn.Module()), "_compiled_call_impl", "_call"}


def _code(code: types.CodeType) -> tuple:
    """What a function does, wherever it was defined."""
    return code.co_code, code.co_names, [_code(c) if isinstance(c, types.CodeType) else c for c in code.co_consts]


def _source(cls: type) -> dict[str, Any]:
    """The code of a class's own methods, and its plain attributes."""
    found = {}
    for name, value in vars(cls).items():
        value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if isinstance(value, types.FunctionType):
            found[name] = _code(inspect.unwrap(value).__code__)
        elif isinstance(value, (bool, int, float, str)) and not name.startswith("__"):
            found[name] = value
    return found


def _parts(value) -> dict | None:
    """What a value consists of, by name; None for one that is compared by ==."""
    if isinstance(value, nn.Module):
        own = {k: v for k, v in vars(value).items() if k not in APART}
        buffers = {k: value._buffers[k] for k in value._non_persistent_buffers_set}
        return own | buffers | value._modules
    if isinstance(value, Distribution):
        return distribution_arguments(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return {"code": _code(value.__code__), "closure": cells, "defaults": [value.__defaults__, value.__kwdefaults__]}
    if isinstance(value, types.MethodType):
        return {"function": value.__func__, "object": value.__self__}
    if isinstance(value, partial):
        return {"function": value.func, "arguments": [value.args, value.keywords]}
    if hasattr(value, "__dict__") and type(value).__eq__ is object.__eq__:
        return {k: v for k, v in vars(value).items() if k != "_call"}
    return None


def _difference(here, built, name: str, seen: dict[tuple[int, int], Any]) -> str | None:
    """As `difference`, for one part of a flow. `seen` holds the pairs that were compared, or are being compared."""
    if here is built or (id(here), id(built)) in seen:
        return None
    seen[id(here), id(built)] = here, built  # kept, or another object could get the same id
    a, b = type(here), type(built)
    if a is not b:
        if (a.__module__, a.__qualname__) != (b.__module__, b.__qualname__):
            return f"{name} is of type {a.__name__}, the call builds one of type {b.__name__}"
        if any(c is not d and _source(c) != _source(d) for c, d in zip(a.__mro__, b.__mro__)):
            return f"{name} is of a class {a.__name__} that has been defined anew since; build the flow again"
    if isinstance(here, Tensor):
        if here.shape != built.shape or here.dtype != built.dtype:
            return (f"{name} is {here.dtype} of shape {tuple(here.shape)}, "
                    f"the call builds {built.dtype} of shape {tuple(built.shape)}")
        if here.numel() and built.is_meta:
            raise NotImplementedError("meta: tensors without values cannot be compared")
        return None if torch.equal(here.cpu(), built.cpu()) else f"{name} holds other numbers than the call gives it"
    parts, others = _parts(here), _parts(built)
    if parts is None or others is None:
        same = np.array_equal(here, built) if isinstance(here, np.ndarray) else here == built or here != here
        return None if same else f"{name} is {here!r}, the call makes it {built!r}"
    for key in (*parts, *others):
        if key not in others or key not in parts:
            return f"{name}.{key} is {'not made' if key in parts else 'missing, but made'} by the call"
    if isinstance(here, nn.Module) and list(here._modules) != list(built._modules):
        return f"the parts of {name} are in another order"
    differences = (_difference(parts[key], others[key], f"{name}.{key}", seen) for key in parts)
    return next(filter(None, differences), None)


def _ties(module: nn.Module) -> dict[str, str]:
    """For each module, parameter and buffer the first name under which it is found."""
    first: dict[int, str] = {}
    kinds = module.named_modules, module.named_parameters, module.named_buffers
    return {name: first.setdefault(id(part), name) for named in kinds for name, part in named(remove_duplicate=False)}


def misfit(state: dict[str, Tensor], expected: dict[str, Tensor]) -> str | None:
    """The first way in which tensors are not those of a state dictionary, in words, or None. Values do not count.

    Example:
        >>> misfit({"a": torch.zeros(2)}, {"a": torch.zeros(3)})
        'a is torch.float32 of shape (2,) instead of torch.float32 of shape (3,)'
    """
    for key in (*state, *expected):
        if key not in expected or key not in state:
            return f"{key} is {'unexpected' if key in state else 'missing'}"
        a, b = state[key], expected[key]
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"{key} is {a.dtype} of shape {tuple(a.shape)} instead of {b.dtype} of shape {tuple(b.shape)}"
    return None


def difference(flow: nn.Module, twin: nn.Module) -> str | None:
    """The first thing in which a flow is not what its call builds, in words, or None. The values of the tensors in a
    state dictionary do not count, since they are saved; nor do hooks, the mode, and which parameters are frozen.

    Raises:
        NotImplementedError: The twin is on the meta device, and a tensor outside the state dictionary would have to be
            compared by its values.

    Example:
        >>> difference(nn.Sequential(nn.Linear(1, 1), nn.ReLU()), nn.Sequential(nn.Linear(1, 1), nn.Tanh()))
        'flow.1 is of type ReLU, the call builds one of type Tanh'
    """
    found = _difference(flow, twin, "flow", {}) or misfit(flow.state_dict(), twin.state_dict())
    if found:
        return found
    ties, others = _ties(flow), _ties(twin)
    return next((f"{name} and {ties[name]} are one, the call makes them {name} and {others[name]}"
                 for name in ties if ties[name] != others[name]), None)
