"""The state of a run in one file: safetensors, with facts as JSON in its header. No pickle: a file can run no code.

The file is written all or nothing and carries a digest of itself: a reader gets a whole state or an error that names
it. Random numbers, data order and learning rate are functions of the seed and the step, so they need no state.
"""
from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..atomic import locked, sweep, write_atomic
from .config import History

FORMAT = 2
NAME, LOCK = "training.safetensors", ".lock"


def find(folder: Path | None, resume: bool) -> Path | None:
    """The checkpoint to go on from; None for a new run, in a folder that has to be empty.

    A run that was killed before its first checkpoint has left its lock: going on with it is beginning anew.

    Raises:
        FileExistsError: The folder holds something, and `resume` is false or there is no training state in it.
    """
    if folder is None or not folder.exists() or not _content(folder):
        return None
    if not resume:
        raise FileExistsError(f"{folder} is not empty: choose another folder, or go on with the run in it (resume)")
    if (folder / NAME).exists():
        return folder / NAME
    if (folder / LOCK).exists():
        return None
    raise FileExistsError(f"{folder} is not empty and holds no {NAME} to go on from: choose another folder")


def _content(folder: Path) -> list[Path]:
    """What is in a folder but for the lock and the unfinished files of a killed run."""
    return [path for path in folder.iterdir() if path.name != LOCK and not path.match(".*.part")]


@contextmanager
def claimed(folder: Path | None, checkpoint: Path | None) -> Iterator[None]:
    """Hold a run's folder while the block runs, so that no two runs write there. What a killed run has not finished is
    removed; a run that ends without a checkpoint leaves nothing, not even a folder that it has made.

    Args:
        folder: The folder, made if need be; None holds nothing.
        checkpoint: What `find` has found there.

    Raises:
        BlockingIOError: Another run is at work there.
        FileExistsError: Another run has begun there since `find` looked.
    """
    with ExitStack() as stack:
        if folder is not None:
            made = [path for path in (folder, *folder.parents) if not path.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            stack.callback(_remove_empty, made)  # the last that is done: the lock is in there
            try:
                stack.enter_context(locked(folder / LOCK))
            except BlockingIOError:
                raise BlockingIOError(f"another run is at work in {folder}") from None
            if (folder / NAME).exists() != (checkpoint is not None):
                raise FileExistsError(f"another run has begun in {folder} in the meantime")
            sweep(folder)
            stack.callback(_leave, folder)
        yield


def _leave(folder: Path) -> None:
    if not (folder / NAME).exists():
        for name in ("model.json", "model.safetensors"):
            (folder / name).unlink(missing_ok=True)


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):  # that one is not empty, then, or not ours to remove
        for folder in folders:
            folder.rmdir()


@contextmanager
def writing(folder: Path, step: int) -> Iterator[None]:
    """Says in a failed write what failed and what is left."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"the checkpoint of step {step} could not be written ({error.strerror}); the one "
                                   "before it is kept", str(folder)) from error


def save_run(folder: Path, facts: dict, objective: nn.Module, optimizer: Optimizer, average: list[Tensor],
             best: dict[str, Tensor], history: History) -> None:
    """Write everything that the rest of the run depends on.

    Raises:
        OSError: The file cannot be written, as on a full disk; the old one stays as it was.
    """
    record = asdict(history)
    loss = record.pop("loss")
    moments = {f"{i}.{name}": t for i, of_one in optimizer.state_dict()["state"].items() for name, t in of_one.items()}
    groups = {
        "model": objective.state_dict(), "best": best, "average": dict(enumerate(average)),
        "optimizer": {name: t for name, t in moments.items() if isinstance(t, Tensor)},
        "history": {"loss": torch.tensor(loss, dtype=torch.float64, device="cpu")},
    }
    tensors = {f"{group}/{name}": t for group, members in groups.items() for name, t in members.items()}
    counts = {name: value for name, value in moments.items() if not isinstance(value, Tensor)}
    write(folder / NAME, tensors, {**facts, "history": record, "counts": counts})


def load_run(path: Path, facts: dict, objective: nn.Module, optimizer: Optimizer,
             average: list[Tensor]) -> tuple[dict, History]:
    """Put the state back into objective, optimizer and average; the best weights and the history so far are returned.

    Raises:
        ValueError: A damaged file, or one of a run with other settings, data or another model.
    """
    tensors, saved = read(path)
    for kind in facts:
        before, now = saved.get(kind), json.loads(json.dumps(facts[kind]))
        if before != now:
            change = f"was {before}, is {now}"
            if isinstance(before, dict) and isinstance(now, dict):
                other = [k for k in now if before.get(k) != now[k]]
                change = ", ".join(f"{k} was {before.get(k)}, is {now[k]}" for k in other) or change
            change = f": {change}" if len(change) < 500 else ""  # the structure of a model is long
            raise ValueError(f"{path} belongs to a run with another {kind}{change}; a resumed run keeps them")
    groups: dict[str, dict] = {}
    for name, tensor in tensors.items():
        group, _, member = name.partition("/")
        groups.setdefault(group, {})[member] = tensor
    try:
        objective.load_state_dict(groups["model"])
    except RuntimeError as error:
        raise ValueError(f"{path} belongs to a run with another model: {error}") from error
    state: dict[int, dict] = {}
    for name, value in {**groups.get("optimizer", {}), **saved["counts"]}.items():  # empty before the first step
        index, _, moment = name.partition(".")
        state.setdefault(int(index), {})[moment] = value
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    for index, moments in state.items():  # laid out in memory like the weights, as the fused optimizer expects
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == weights[index].shape:
                moments[name] = torch.empty_like(weights[index], device=value.device).copy_(value)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for index, tensor in enumerate(average):
        tensor.copy_(groups["average"][str(index)])
    best = {name: tensor.to(average[0].device) for name, tensor in groups["best"].items()}
    return best, History(loss=groups["history"]["loss"].tolist(), **saved["history"])


def write(path: Path, tensors: dict[str, Tensor], facts: dict) -> None:
    """Replace the file at `path` by these tensors and facts (anything that JSON holds)."""
    from safetensors.torch import save as to_bytes

    tensors = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    text = json.dumps({"format": FORMAT, **facts})
    write_atomic(path, to_bytes(tensors, {"facts": text, "sha256": _digest(tensors, text)}))


def read(path: Path) -> tuple[dict[str, Tensor], dict]:
    """The tensors and facts that `write` wrote; ValueError, with the file's name, where it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            # copies: a view would keep the file mapped, and Windows refuses to replace a mapped file
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"the checkpoint {path} is damaged: {error}") from error
    text = header.get("facts", "")
    if header.get("sha256") != _digest(tensors, text):
        raise ValueError(f"the checkpoint {path} is damaged: its digest does not match its content")
    facts = json.loads(text)
    if facts.pop("format") != FORMAT:
        raise ValueError(f"the checkpoint {path} has another format than {FORMAT}, which this version reads")
    return tensors, facts


def _digest(tensors: dict[str, Tensor], facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
