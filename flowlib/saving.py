"""Save a flow as two files that anyone can read, and build it again: weights as safetensors, structure as JSON.

Every class of the package remembers the arguments it was called with, so the structure of a model is the nested call that
made it. Loading looks class names up among the classes that Python already knows: a file can run no code.
"""
from __future__ import annotations

import inspect
import json
import os
from pathlib import Path

import torch
from torch import Tensor

from .atomic import write_atomic

CLASSES: dict[str, type] = {}  # every recorded class, by name
FORMAT = 1


class Recorded(type):
    """Metaclass that keeps a class by its name and an object's constructor call as `_call`: (args, kwargs)."""

    def __init__(cls, name, bases, namespace):
        super().__init__(name, bases, namespace)
        CLASSES[name if cls.__module__.split(".")[0] == "flowlib" else f"{cls.__module__}.{name}"] = cls

    def __call__(cls, *args, **kwargs):
        made = super().__call__(*args, **kwargs)
        # object.__setattr__: nn.Module would register modules among the arguments a second time
        object.__setattr__(made, "_call", (args, kwargs))
        return made


def _name(cls: type) -> str:
    return next(name for name, known in CLASSES.items() if known is cls)


def distribution_arguments(distribution) -> dict[str, Tensor]:
    """The arguments that a `torch.distributions` object was made with, out of several parametrisations it may know."""
    names = inspect.signature(type(distribution).__init__).parameters
    return {name: getattr(distribution, name) for name in names if name in distribution.arg_constraints}


def _encode(value, tensors: dict[str, Tensor]):
    """A constructor argument as JSON; tensors go into `tensors` under a number."""
    if isinstance(value, Tensor):
        key = f"argument.{len(tensors)}"
        tensors[key] = value.detach().contiguous().cpu()
        return {"tensor": key}
    if isinstance(type(value), Recorded):
        args, kwargs = value._call
        return {"class": _name(type(value)), "args": [_encode(a, tensors) for a in args],
                "kwargs": {k: _encode(v, tensors) for k, v in kwargs.items()}}
    if isinstance(value, torch.distributions.Distribution):
        arguments = distribution_arguments(value)
        return {"distribution": type(value).__name__, "kwargs": {k: _encode(v, tensors) for k, v in arguments.items()}}
    if isinstance(value, (list, tuple)):
        return {"tuple": [_encode(v, tensors) for v in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a flow with a constructor argument of type {type(value).__name__} cannot be saved")


def _decode(value, tensors):
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "tuple" in value:
        return tuple(_decode(v, tensors) for v in value["tuple"])
    kwargs = {k: _decode(v, tensors) for k, v in value["kwargs"].items()}
    if "distribution" in value:
        known = {d.__name__: d for d in vars(torch.distributions).values()
                 if inspect.isclass(d) and issubclass(d, torch.distributions.Distribution)}
        return known[value["distribution"]](**kwargs, validate_args=False)
    if value["class"] not in CLASSES:
        raise ValueError(f"the model uses the class {value['class']}, which is not known here; import its module first")
    return _call(CLASSES[value["class"]], [_decode(v, tensors) for v in value["args"]], kwargs)


def _call(cls: type, args: list, kwargs: dict):
    """Make an object by a call of any age: arguments that once were positional may take keywords only by now."""
    _, *parameters = inspect.signature(cls.__init__).parameters.values()
    if not any(p.kind is p.KEYWORD_ONLY for p in parameters) or len(args) > len(parameters):
        return cls(*args, **kwargs)
    return cls(**dict(zip((p.name for p in parameters), args)), **kwargs)


def structure(flow, tensors: dict[str, Tensor] | None = None) -> dict:
    """The content of `model.json`: the dtype, and the nested call that builds the flow; tensors among the arguments go into
    `tensors`. Two flows with the same structure differ in their weights alone.

    Raises:
        TypeError: As for `save`.

    Example:
        >>> from flowlib import Exp
        >>> structure(Exp())["flow"]["class"]
        'Exp'
    """
    call = _encode(flow, {} if tensors is None else tensors)
    dtypes = {v.dtype for v in (*flow.parameters(), *flow.buffers()) if v.is_floating_point()}
    if len(dtypes) > 1:
        raise TypeError(f"a flow of one dtype can be saved, this one mixes {sorted(map(str, dtypes))}")
    dtype = str(dtypes.pop() if dtypes else torch.get_default_dtype()).removeprefix("torch.")
    return {"format": FORMAT, "dtype": dtype, "flow": call}


def save(flow, folder: str | os.PathLike) -> None:
    """Write `model.safetensors` (weights, buffers) and `model.json` (the call that builds the flow) into a folder.

    Raises:
        TypeError: A constructor argument that JSON cannot hold, such as a function.

    Example:
        >>> import tempfile, torch, flowlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     flow = flowlib.RealNVP(2); flowlib.save(flow, folder); again = flowlib.load(folder)
        >>> bool((flow.log_prob(torch.ones(2)) == again.log_prob(torch.ones(2))).all())
        True
    """
    from safetensors.torch import save as to_bytes

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    call = structure(flow, tensors)
    state = {f"state.{k}": v.detach().contiguous().cpu().clone() for k, v in flow.state_dict().items()}
    write_atomic(folder / "model.safetensors", to_bytes({**state, **tensors}))
    write_atomic(folder / "model.json", json.dumps(call, indent=1).encode())


def load(folder: str | os.PathLike):
    """The flow that `save` wrote, on the CPU, with the same density to the last bit.

    Raises:
        FileNotFoundError: No model in the folder.
        ValueError: A file that is damaged, or a model that uses an unknown class.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    folder = Path(folder)
    try:
        structure = json.loads((folder / "model.json").read_text())
        tensors = from_bytes((folder / "model.safetensors").read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError, SafetensorError) as error:
        raise ValueError(f"the model in {folder} is damaged: {error}") from error
    if structure.get("format") != FORMAT:
        raise ValueError(f"the model in {folder} has format {structure.get('format')}, this version reads {FORMAT}")
    flow = _decode(structure["flow"], tensors).to(getattr(torch, structure["dtype"]))
    state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
    try:
        flow.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"the weights in {folder} do not fit its model.json: {error}") from error
    return flow
