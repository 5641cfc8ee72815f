"""Save a flow as two files that anyone can read, and build it again: weights as safetensors, structure as JSON.

Every class of the package remembers the arguments it was called with, so the structure of a model is the nested call that
made it. Loading looks class names up among the classes that Python already knows: a file can run no code.

An object can be changed after its call. So saving builds a twin from the call, on the `meta` device where tensors have shapes
and no memory, and compares: what is written is what is there, or nothing is.
"""
from __future__ import annotations

import inspect
import json
import os
import types
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.overrides import TorchFunctionMode

CLASSES: dict[str, type] = {}  # every recorded class, by name
FORMAT = 1
NOT_OURS = {*vars(nn.Module()), "_compiled_call_impl", "_call"}  # attributes that decide no density: hooks, the mode, ...


class Recorded(type):
    """Metaclass that keeps a class by its name and an object's constructor call as `_call`: (args, kwargs)."""

    def __init__(cls, name, bases, namespace):
        super().__init__(name, bases, namespace)
        CLASSES[_name(cls)] = cls

    def __call__(cls, *args, **kwargs):
        made = super().__call__(*args, **kwargs)
        # object.__setattr__: nn.Module would register modules among the arguments a second time
        object.__setattr__(made, "_call", (args, kwargs))
        return made


def _name(cls: type) -> str:
    """The name of a class in a file; a notebook cell that runs again defines the class of that name anew."""
    return cls.__name__ if cls.__module__.split(".")[0] == "flowlib" else f"{cls.__module__}.{cls.__name__}"


def distribution_arguments(distribution) -> dict[str, Tensor]:
    """The arguments that a `torch.distributions` object was made with, out of several parametrisations it may know."""
    names = inspect.signature(type(distribution).__init__).parameters
    return {name: getattr(distribution, name) for name in names if name in distribution.arg_constraints}


# --- from an object to its call, and back


def _encode(value, tensors: dict[str, Tensor], modules: dict[int, int]):
    """A constructor argument as JSON. Tensors go into `tensors` under a number; a module that comes a second time is the
    number of its first time: tied layers stay tied."""
    encode = partial(_encode, tensors=tensors, modules=modules)
    if isinstance(value, Tensor):
        key = f"argument.{len(tensors)}"
        tensors[key] = value.detach().cpu().contiguous().clone()
        return {"tensor": key}
    if isinstance(type(value), Recorded):
        if id(value) in modules:
            return {"again": modules[id(value)]}
        if isinstance(value, nn.Module):
            modules[id(value)] = len(modules)
        args, kwargs = value._call
        return {"class": _name(type(value)), "args": [encode(a) for a in args],
                "kwargs": {k: encode(v) for k, v in kwargs.items()}}
    if isinstance(value, Distribution):
        arguments = distribution_arguments(value)
        return {"distribution": type(value).__name__, "kwargs": {k: encode(v) for k, v in arguments.items()}}
    if isinstance(value, np.ndarray):
        return encode(torch.tensor(value))
    if isinstance(value, (list, tuple)):
        return {"list" if isinstance(value, list) else "tuple": [encode(v) for v in value]}
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a flow with a constructor argument of type {type(value).__name__} cannot be saved")


def _decode(value, tensors: dict[str, Tensor], modules: list[nn.Module | None]):
    decode = partial(_decode, tensors=tensors, modules=modules)
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "tuple" in value:
        return tuple(decode(v) for v in value["tuple"])
    if "list" in value:
        return [decode(v) for v in value["list"]]
    if "again" in value:
        return modules[value["again"]]
    if "distribution" in value:
        known = {d.__name__: d for d in vars(torch.distributions).values() if inspect.isclass(d) and issubclass(d, Distribution)}
        arguments = {k: decode(v) for k, v in value["kwargs"].items()}
        return known[value["distribution"]](**arguments, validate_args=False)
    if value["class"] not in CLASSES:
        raise ValueError(f"it uses the class {value['class']}, which is not known here; import its module first")
    cls, place = CLASSES[value["class"]], len(modules)
    if issubclass(cls, nn.Module):
        modules.append(None)  # its number is that of the place where its name stands, before its arguments'
    made = cls(*[decode(v) for v in value["args"]], **{k: decode(v) for k, v in value["kwargs"].items()})
    if isinstance(made, nn.Module):
        modules[place] = made
    return made


def _build(call, tensors: dict[str, Tensor], dtype: torch.dtype, device: str) -> nn.Module:
    """The object that a call makes, on a device whatever the default is; torch's random numbers are left as they were."""
    with torch.random.fork_rng(devices=[]), torch.device(device):
        made = _decode(call, tensors, [])
    if not isinstance(made, nn.Module):
        raise ValueError("it describes no flow")
    return made.to(dtype)


# --- is the object what its call builds?


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
        own = {k: v for k, v in vars(value).items() if k not in NOT_OURS}
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


def _difference(here, built, name: str, seen: set[tuple[int, int]]) -> str | None:
    """The first difference between a value and what its call builds, in words, or None. The numbers of tensors that a state
    dictionary holds are no difference: they are saved."""
    if here is built or (id(here), id(built)) in seen:
        return None
    seen.add((id(here), id(built)))
    a, b = type(here), type(built)
    if a is not b:
        if (a.__module__, a.__qualname__) != (b.__module__, b.__qualname__):
            return f"{name} is of type {a.__name__}, the call builds one of type {b.__name__}"
        if any(c is not d and _source(c) != _source(d) for c, d in zip(a.__mro__, b.__mro__)):
            return f"{name} is of a class {a.__name__} that has been defined anew since; build the flow again"
    if isinstance(here, Tensor):
        if here.shape != built.shape or here.dtype != built.dtype:
            return f"{name} is {here.dtype} of shape {tuple(here.shape)}, the call builds {built.dtype} of {tuple(built.shape)}"
        if here.numel() and built.is_meta:
            raise NotImplementedError("meta: tensors without values cannot be compared")
        return None if torch.equal(here.cpu(), built.cpu()) else f"{name} holds other numbers than the call gives it"
    parts, others = _parts(here), _parts(built)
    if parts is None or others is None:
        same = np.array_equal(here, built) if isinstance(here, np.ndarray) else here == built or here != here
        return None if same else f"{name} is {here!r}, the call makes it {built!r}"
    for key in (*parts, *others):
        if key not in others or key not in parts:
            return f"{name}.{key} {'is not made by' if key in parts else 'is missing from the flow, but made by'} the call"
    if isinstance(here, nn.Module) and list(here._modules) != list(built._modules):
        return f"the parts of {name} are in another order"
    return next((found for key in parts if (found := _difference(parts[key], others[key], f"{name}.{key}", seen))), None)


def _ties(module: nn.Module) -> dict[str, str]:
    """For each module, parameter and buffer the first name under which it is found."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(part), name) for named in (module.named_modules, module.named_parameters, module.named_buffers)
            for name, part in named(remove_duplicate=False)}


def _misfit(state: dict[str, Tensor], expected: dict[str, Tensor]) -> str | None:
    """The first way in which tensors are not those of a state dictionary, in words, or None."""
    for key in (*state, *expected):
        if key not in expected or key not in state:
            return f"{key} is {'unexpected' if key in state else 'missing'}"
        a, b = state[key], expected[key]
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"{key} is {a.dtype} of shape {tuple(a.shape)} instead of {b.dtype} of shape {tuple(b.shape)}"
    return None


def _changed(flow: nn.Module, twin: nn.Module) -> str | None:
    found = _difference(flow, twin, "flow", set()) or _misfit(flow.state_dict(), twin.state_dict())
    if found:
        return found
    ties, others = _ties(flow), _ties(twin)
    return next((f"{n} and {ties[n]} are one, the call makes them {n} and {others[n]}" for n in ties if ties[n] != others[n]), None)


def _needs_values(error: Exception) -> bool:
    """Whether a constructor asked a tensor of the meta device for its values."""
    return "meta" in str(error).lower()


def _call(flow: nn.Module) -> tuple[dict, dict[str, Tensor], torch.dtype]:
    """The call that builds a flow (as JSON), the tensors among its arguments, and its dtype; TypeError as in `check_saveable`."""
    if not isinstance(type(flow), Recorded):
        raise TypeError(f"save takes a Flow, got a {type(flow).__name__}")
    dtypes = {v.dtype for v in (*flow.parameters(), *flow.buffers()) if v.is_floating_point()}
    if len(dtypes) > 1:
        raise TypeError(f"a flow of one dtype can be saved, this one mixes {sorted(map(str, dtypes))}")
    dtype = dtypes.pop() if dtypes else torch.get_default_dtype()
    if any(t.is_meta for t in (*flow.parameters(), *flow.buffers())):
        raise TypeError("a flow on the meta device has no weights to save")
    tensors: dict[str, Tensor] = {}
    call = _encode(flow, tensors, {})
    for device in ("meta", "cpu"):  # the CPU for constructors that read values
        try:
            found = _changed(flow, _build(call, tensors, dtype, device))
            break
        except Exception as error:
            if device == "cpu" or not _needs_values(error):
                raise TypeError(f"this flow cannot be saved: its call, made again, fails with: {error}") from error
    if found:
        raise TypeError(f"this flow cannot be saved, since a file holds the call that built it, which builds another: {found}")
    return call, tensors, dtype


def check_saveable(flow: nn.Module) -> None:
    """Return where `save` will write this flow, raise where it will not: before a long training, say. Cost: one construction
    without memory for the weights.

    Args:
        flow: The flow.

    Raises:
        TypeError: The flow is not what its constructor's call builds (a module, attribute or weight was replaced, added or
            tied afterwards), an argument that JSON cannot hold, such as a function, or a mixture of dtypes.

    Example:
        >>> import torch, flowlib
        >>> flow = flowlib.RealNVP(2); flowlib.check_saveable(flow)
        >>> flow.base = flowlib.StandardLogistic(2)
        >>> try: flowlib.check_saveable(flow)
        ... except TypeError as error: print(str(error).split(": ")[1])
        flow.base is of type StandardLogistic, the call builds one of type StandardNormal
    """
    _call(flow)


# --- files


def write_atomic(path: Path, data: bytes) -> None:
    """All or nothing: a reader sees the old file or the new one, whole, whatever stops this process."""
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def save(flow: nn.Module, folder: str | os.PathLike) -> None:
    """Write `model.safetensors` (weights, buffers) and `model.json` (the call that builds the flow) into a folder.

    The mode is not saved, nor are hooks, nor which parameters are frozen: none of them belongs to the density.

    Args:
        flow: The flow, on any device.
        folder: Where to; made if it is not there.

    Raises:
        TypeError: As `check_saveable`.
        ValueError: A weight that is NaN.

    Example:
        >>> import tempfile, torch, flowlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     flow = flowlib.RealNVP(2); flowlib.save(flow, folder); again = flowlib.load(folder)
        >>> bool((flow.log_prob(torch.ones(2)) == again.log_prob(torch.ones(2))).all())
        True
    """
    from safetensors.torch import save as to_bytes

    call, tensors, dtype = _call(flow)
    state = {k: v.detach().cpu().contiguous().clone() for k, v in flow.state_dict().items()}
    if (spoilt := _spoilt(state)) is not None:
        raise ValueError(f"this flow cannot be saved: {spoilt} holds NaN")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    structure = {"format": FORMAT, "dtype": str(dtype).removeprefix("torch."), "flow": call}
    write_atomic(folder / "model.safetensors", to_bytes({**{f"state.{k}": v for k, v in state.items()}, **tensors}))
    write_atomic(folder / "model.json", json.dumps(structure, indent=1).encode())


def _spoilt(state: dict[str, Tensor]) -> str | None:
    return next((k for k, v in state.items() if v.is_floating_point() and bool(v.isnan().any())), None)


class _Budget(TorchFunctionMode):
    """Stops a construction that makes far more of tensors than the weights beside it could fill: `layers=10**9`."""

    def __init__(self, tensors: int):
        super().__init__()
        self.left = 1000 + 200 * tensors  # calls of torch's functions; the package's own layers make at most 40 a tensor

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.left -= 1
        if self.left < 0:
            raise ValueError("it describes a model far larger than its weights")
        return func(*args, **(kwargs or {}))


def load(folder: str | os.PathLike) -> Any:
    """The flow that `save` wrote, on the CPU and in eval mode, with the same density to the last bit.

    Args:
        folder: Where `save` wrote it.

    Returns:
        The flow, of the class that was saved.

    Raises:
        FileNotFoundError: No model in the folder.
        ValueError: Files that are damaged in whatever way, do not fit each other, or name an unknown class.
    """
    from safetensors.torch import load as from_bytes

    folder = Path(folder)
    files = folder / "model.json", folder / "model.safetensors"
    for file in files:
        if not file.is_file():  # nor a pipe, which would be read for ever
            raise FileNotFoundError(f"there is no file {file}")
    structure, weights = (file.read_bytes() for file in files)
    try:
        structure, tensors = json.loads(structure), from_bytes(weights)
        if structure["format"] != FORMAT:
            raise ValueError(f"it has format {structure['format']}, this version reads {FORMAT}")
        dtype = getattr(torch, structure["dtype"])
        state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
        if (spoilt := _spoilt(state)) is not None:
            raise ValueError(f"{spoilt} holds NaN")
        for device in ("meta", "cpu"):  # on the meta device first, where a false size costs nothing
            try:
                with _Budget(len(tensors)):
                    flow = _build(structure["flow"], tensors, dtype, device)
            except Exception as error:
                if device == "cpu" or not _needs_values(error):
                    raise
                continue
            if (misfit := _misfit(state, flow.state_dict())) is not None:
                raise ValueError(f"its weights do not fit its structure: {misfit}")
        flow.load_state_dict(state)
    except Exception as error:  # a hand that edits a file can make any error of any constructor
        reason = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise ValueError(f"the model in {folder} is damaged: {reason}") from error
    return flow.eval()
