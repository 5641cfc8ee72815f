"""Save a flow as two files that anyone can read, and build it again: weights as safetensors, structure as JSON.

Every class of the package remembers the arguments it was called with, so the structure of a model is the nested call
that made it. Loading looks class names up among the classes that Python already knows: a file can run no code.

An object can be changed after its call. So saving builds a twin from the call, on the `meta` device where tensors have
shapes and no memory, and compares (likeness.py): what is written is what is there, or nothing is.
"""
from __future__ import annotations

import inspect
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.overrides import TorchFunctionMode

from .arguments import distribution_arguments
from .atomic import write_atomic
from .likeness import difference, misfit

CLASSES: dict[str, type] = {}  # every recorded class, by name
FORMAT = 1


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


def _encode(value, tensors: dict[str, Tensor], modules: dict[int, int]):
    """A constructor argument as JSON. Tensors go into `tensors` under a number; a module that comes a second time is
    the number of its first time: tied layers stay tied."""
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
        args, kwargs = vars(value)["_call"]
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
        known = {d.__name__: d for d in vars(torch.distributions).values()
                 if inspect.isclass(d) and issubclass(d, Distribution)}
        arguments = {k: decode(v) for k, v in value["kwargs"].items()}
        return known[value["distribution"]](**arguments, validate_args=False)
    if value["class"] not in CLASSES:
        raise ValueError(f"it uses the class {value['class']}, which is not known here; import its module first")
    cls, place = CLASSES[value["class"]], len(modules)
    if issubclass(cls, nn.Module):
        modules.append(None)  # its number is that of the place where its name stands, before its arguments'
    made = _made(cls, [decode(v) for v in value["args"]], {k: decode(v) for k, v in value["kwargs"].items()})
    if isinstance(made, nn.Module):
        modules[place] = made
    return made


def _made(cls: type, args: list, kwargs: dict):
    """Make an object by a call of any age: arguments that once were positional may take keywords only by now."""
    _, *parameters = inspect.signature(cls.__init__).parameters.values()
    if not any(p.kind is p.KEYWORD_ONLY for p in parameters) or len(args) > len(parameters):
        return cls(*args, **kwargs)
    return cls(**dict(zip((p.name for p in parameters), args)), **kwargs)


def _build(call, tensors: dict[str, Tensor], dtype: torch.dtype, device: str) -> nn.Module:
    """The object that a call makes, on a device whatever the default is; torch's random numbers stay as they were."""
    with torch.random.fork_rng(devices=[]), torch.device(device):
        made = _decode(call, tensors, [])
    if not isinstance(made, nn.Module):
        raise ValueError("it describes no flow")
    return made.to(dtype)


def _needs_values(error: Exception) -> bool:
    """Whether a constructor asked a tensor of the meta device for its values."""
    return "meta" in str(error).lower()


def structure(flow: nn.Module, tensors: dict[str, Tensor] | None = None) -> dict[str, Any]:
    """The content of `model.json`: the dtype, and the nested call that builds the flow; tensors among the arguments go
    into `tensors`. Two flows with the same structure differ in their weights alone.

    Raises:
        TypeError: As `check_saveable`.

    Example:
        >>> from flowlib import Exp
        >>> structure(Exp())["flow"]["class"]
        'Exp'
    """
    if not isinstance(type(flow), Recorded):
        raise TypeError(f"a Flow can be saved, this is a {type(flow).__name__}")
    own = [*flow.parameters(), *flow.buffers()]
    if any(t.is_meta for t in own):
        raise TypeError("a flow on the meta device has no weights to save")
    dtypes = {t.dtype for t in own if t.is_floating_point()}
    if len(dtypes) > 1:
        raise TypeError(f"a flow of one dtype can be saved, this one mixes {sorted(map(str, dtypes))}")
    dtype = dtypes.pop() if dtypes else torch.get_default_dtype()
    tensors = {} if tensors is None else tensors
    call = _encode(flow, tensors, {})
    found = None
    for device in ("meta", "cpu"):  # the CPU for constructors that read values
        try:
            found = difference(flow, _build(call, tensors, dtype, device))
            break
        except Exception as error:
            if device == "cpu" or not _needs_values(error):
                raise TypeError(f"this flow cannot be saved: its call, made again, fails with: {error}") from error
    if found:
        raise TypeError("this flow cannot be saved, since a file holds the call that built it, "
                        f"which builds another: {found}")
    return {"format": FORMAT, "dtype": str(dtype).removeprefix("torch."), "flow": call}


def check_saveable(flow: nn.Module) -> None:
    """Return where `save` will write this flow, raise where it will not: before a long training, say. Cost: one
    construction without memory for the weights.

    Args:
        flow: The flow.

    Raises:
        TypeError: The flow is not what its constructor's call builds (a module, attribute or weight was replaced, added
            or tied afterwards), an argument that JSON cannot hold, such as a function, or a mixture of dtypes.

    Example:
        >>> import flowlib
        >>> flow = flowlib.RealNVP(2); flowlib.check_saveable(flow)
        >>> flow.base = flowlib.StandardLogistic(2)
        >>> try: flowlib.check_saveable(flow)
        ... except TypeError as error: print(str(error).split(": ")[1])
        flow.base is of type StandardLogistic, the call builds one of type StandardNormal
    """
    structure(flow)


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

    tensors: dict[str, Tensor] = {}
    call = structure(flow, tensors)
    state = {k: v.detach().cpu().contiguous().clone() for k, v in flow.state_dict().items()}
    if (spoilt := _spoilt(state)) is not None:
        raise ValueError(f"this flow cannot be saved: {spoilt} holds NaN")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {f"state.{k}": v for k, v in state.items()}
    write_atomic(folder / "model.safetensors", to_bytes({**state, **tensors}))
    write_atomic(folder / "model.json", json.dumps(call, indent=1).encode())


def _spoilt(state: dict[str, Tensor]) -> str | None:
    return next((k for k, v in state.items() if v.is_floating_point() and bool(v.isnan().any())), None)


class _Budget(TorchFunctionMode):
    """Stops a construction that makes far more of tensors than the weights beside it could fill: `layers=10**9`."""

    def __init__(self, tensors: int):
        super().__init__()
        self.left = 1000 + 200 * tensors  # calls of torch's functions; the package's layers make at most 40 a tensor

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
        OSError: Files that cannot be read.
    """
    from safetensors.torch import load as from_bytes

    folder = Path(folder)
    files = folder / "model.json", folder / "model.safetensors"
    for file in files:
        if not file.is_file():  # nor a pipe, which would be read for ever
            raise FileNotFoundError(f"there is no file {file}")
    text, weights = (file.read_bytes() for file in files)
    try:
        call, tensors = json.loads(text), from_bytes(weights)
        if call["format"] != FORMAT:
            raise ValueError(f"it has format {call['format']}, this version reads {FORMAT}")
        dtype = getattr(torch, call["dtype"])
        state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
        if (spoilt := _spoilt(state)) is not None:
            raise ValueError(f"{spoilt} holds NaN")
        for device in ("meta", "cpu"):  # on the meta device first, where a false size costs nothing
            try:
                with _Budget(len(tensors)):
                    flow = _build(call["flow"], tensors, dtype, device)
            except Exception as error:
                if device == "cpu" or not _needs_values(error):
                    raise
                continue
            if (found := misfit(state, flow.state_dict())) is not None:
                raise ValueError(f"its weights do not fit its structure: {found}")
        flow.load_state_dict(state)
    except Exception as error:  # a hand that edits a file can make any error of any constructor
        reason = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise ValueError(f"the model in {folder} is damaged: {reason}") from error
    return flow.eval()
