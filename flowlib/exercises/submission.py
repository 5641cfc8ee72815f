"""Runs inside the child: define a submitted function and call it. Standard library, numpy and torch only."""
import ast
import io
import os
import re
import sys
import types
from collections.abc import Callable, Sequence

import numpy as np
import torch

from .extract import Refused, extract

NAME = "__main__"  # the module that the student's code believes to be in


class NotAllowed:
    """An import hook that refuses packages which hold the answer."""

    def __init__(self, packages: list[str]):
        self.packages = packages

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.split(".")[0] in self.packages:
            raise ImportError(name=name)


def place(error: BaseException) -> tuple[int, int]:
    """(cell, line) of the last line of the notebook that an exception passed through; (0, 0) if none."""
    spot, trace = (0, 0), error.__traceback__
    while trace:
        cell = re.fullmatch(r"cell (\d+)", trace.tb_frame.f_code.co_filename)
        spot = (int(cell[1]), trace.tb_lineno) if cell else spot
        trace = trace.tb_next
    return spot


def define(kept: list[tuple[int, ast.stmt]], name: str) -> tuple[Callable, Exception | None]:
    """Run the statements; the function, and the first exception on the way (the notebook went on after it, too)."""
    module, first = types.ModuleType(NAME), None
    sys.modules[NAME] = module
    for number, statement in kept:
        try:
            exec(compile(ast.Module([statement], []), f"cell {number}", "exec"), module.__dict__)
        except Exception as error:
            first = first or error
    if name not in module.__dict__:
        raise first or Refused("missing")
    return module.__dict__[name], first


def values(function: Callable, arguments: list, wrt: Sequence[int], weights: list[np.ndarray]) -> dict[str, np.ndarray]:
    """{name: array} of one call: its values r0, r1, ... and, where asked, g0, g1, ...: the gradient of
    sum_j <weights_j, value_j> with respect to the arguments numbered in `wrt`."""
    tensors = [torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in arguments]
    for k in wrt:
        tensors[k] = tensors[k].clone().requires_grad_()
    result = function(*tensors)
    if result is None or result is Ellipsis:
        raise NotImplementedError
    result = list(result) if isinstance(result, (tuple, list)) else [result]
    out = {}
    for k, value in enumerate(result):
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise Refused("type")
        out[f"r{k}"] = array
    terms = [(torch.from_numpy(w) * value).sum() for w, value in zip(weights, result)
             if isinstance(value, torch.Tensor) and value.requires_grad and value.shape == w.shape]
    if wrt and terms:
        leaves = [tensors[k] for k in wrt]
        gradients = torch.autograd.grad(sum(terms, torch.zeros(())), leaves, allow_unused=True, materialize_grads=True)
        out |= {f"g{k}": gradient.numpy() for k, gradient in enumerate(gradients)}
    return out


def answer(job: dict, data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the submitted function gives for the cases of a job, or why it gives nothing, as arrays."""
    sys.meta_path.insert(0, NotAllowed(job["forbidden"]))
    torch.set_default_dtype(getattr(torch, job["dtype"]))
    first = None
    try:
        function, first = define(extract(job["cells"], job["function"]), job["function"])
        out = {}
        for i, case in enumerate(job["cases"]):
            arguments = [data[a] if isinstance(a, str) else a for a in case["arguments"]]
            weights = [data[w] for w in case["weights"]]
            out |= {f"{i}_{key}": array for key, array in values(function, arguments, case["wrt"], weights).items()}
        return out
    except Refused as refused:
        return {"error": np.array([refused.args[0], "", "0", "0"])}
    except NotImplementedError:
        return {"error": np.array(["empty", "", "0", "0"])}
    except MemoryError:
        return {"error": np.array(["memory", "", "0", "0"])}
    except BaseException as error:
        error = first if isinstance(error, NameError) and first is not None else error
        blocked = isinstance(error, ImportError) and (error.name or "").split(".")[0] in job["forbidden"]
        return {"error": np.array(["import" if blocked else "raised", type(error).__name__, *map(str, place(error))])}


def run(job: dict, data: dict[str, np.ndarray], descriptor: int) -> None:
    """Answer a job into an open file and end the process, whatever threads or exit handlers were left behind."""
    buffer = io.BytesIO()
    np.savez(buffer, **answer(job, data))  # pyright: ignore[reportArgumentType]  # no name is allow_pickle
    view = memoryview(buffer.getvalue())
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.ftruncate(descriptor, 0)
    while view:
        view = view[os.write(descriptor, view):]
    os._exit(0)
