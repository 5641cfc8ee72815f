"""Runs inside the child: cut one function out of a notebook's cells and call it. Standard library, numpy and torch
only.

Only the text of code cells is read, so lost ids, lost metadata and stored outputs do no harm. Each cell is parsed by
itself: a broken cell costs only what it defines. With the function come the definitions, imports and assignments that
it uses, in their order, so that the last definition wins as in the notebook; calls, loops and prints are left out, so a
training run is not repeated.
"""
import ast
import io
import os
import re
import sys
import types

import numpy as np
import torch

NAME = "submission"  # the module that the student's code believes to be in


class Refused(Exception):
    """A reason, one of the few that the grader knows, why there are no values."""


class NotAllowed:
    """An import hook that refuses packages which hold the answer."""

    def __init__(self, packages):
        self.packages = packages

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.packages:
            raise ImportError(name=name)


def parse(text):
    """The statements of a cell; lines of IPython (%, !, ?) are left out only if it cannot be parsed with them."""
    plain = re.sub(r"^([ \t]*)(?:[%!?].*|.*\?[ \t]*)$", r"\1pass", text, flags=re.MULTILINE)
    for attempt in (text, plain):
        try:
            return ast.parse(attempt).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return None


def targets(node):
    """Names that an assignment's left side binds or changes: `a`, `a, b`, `a[0]`, `a.x`."""
    if isinstance(node, ast.Name):
        return {node.id}
    if isinstance(node, (ast.Attribute, ast.Subscript, ast.Starred)):
        return targets(node.value)
    return set().union(*map(targets, node.elts)) if isinstance(node, (ast.Tuple, ast.List)) else set()


def bound(statement):
    """Names that a statement at the top level of a notebook binds."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
    if isinstance(statement, ast.Assign):
        return set().union(*map(targets, statement.targets))
    if isinstance(statement, (ast.AnnAssign, ast.AugAssign)):
        return targets(statement.target)
    if isinstance(statement, (ast.If, ast.Try, ast.With)):
        inner = [*statement.body, *getattr(statement, "orelse", []), *getattr(statement, "finalbody", [])]
        inner += [line for handler in getattr(statement, "handlers", []) for line in handler.body]
        return set().union(*map(bound, inner))
    return set()


def extract(cells, name):
    """[(cell number, statement)] that define `name` and what it uses."""
    found, broken = [], False
    for number, text in cells:
        statements = parse(text)
        broken = broken or statements is None
        found += [(number, statement) for statement in statements or []]
    if not any(name in bound(statement) for _, statement in found):
        raise Refused("broken" if broken else "missing")
    needed, size = {name, "*"}, 0
    while len(needed) != size:
        size = len(needed)
        kept = [(number, statement) for number, statement in found if bound(statement) & needed]
        needed |= {node.id for _, statement in kept for node in ast.walk(statement) if isinstance(node, ast.Name)}
    return kept


def place(error):
    """(cell, line) of the last line of the notebook that an exception passed through; (0, 0) if none."""
    spot, trace = (0, 0), error.__traceback__
    while trace:
        cell = re.fullmatch(r"cell (\d+)", trace.tb_frame.f_code.co_filename)
        spot = (int(cell[1]), trace.tb_lineno) if cell else spot
        trace = trace.tb_next
    return spot


def define(kept, name):
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


def values(function, arguments, wrt, weights):
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
        gradients = torch.autograd.grad(sum(terms), leaves, allow_unused=True, materialize_grads=True)
        out |= {f"g{k}": gradient.numpy() for k, gradient in enumerate(gradients)}
    return out


def answer(job, data):
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


def run(job, data, descriptor):
    """Answer a job into an open file and end the process, whatever threads or exit handlers were left behind."""
    buffer = io.BytesIO()
    np.savez(buffer, **answer(job, data))
    view = memoryview(buffer.getvalue())
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.ftruncate(descriptor, 0)
    while view:
        view = view[os.write(descriptor, view):]
    os._exit(0)
