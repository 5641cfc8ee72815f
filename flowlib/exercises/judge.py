"""What is graded, and how: a problem set is a list of questions, each a reference function and fresh random inputs.

The submitted function is called elsewhere (sandbox.py); here its values are compared with those of the reference, shape by
shape and number by number. Gradients are values, too: those of a random weighted sum of what the function returns.
"""
from __future__ import annotations

import importlib
import pkgutil
import secrets
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import sets
from .submission import values

ABSOLUTE, RELATIVE = 1e-6, 1e-5


@dataclass(frozen=True)
class Question:
    """One function of an exercise. It is called in a child process of its own: forward and inverse are two questions.

    Attributes:
        function: Its name in the notebook.
        cases: Maps a numpy generator to a list of argument lists, of random sizes.
        reference: The right function, in torch.
        properties: For each value in its order, and last "gradient" if that is asked: the sentence shown when it is violated.
        parts: grade_id -> (points, names of the properties that must hold).
        wrt: Which arguments are differentiated.
        seconds, memory: Limits for all cases together; memory in bytes.
    """

    function: str
    cases: Callable
    reference: Callable
    properties: dict[str, str]
    parts: dict[str, tuple[int, tuple[str, ...]]]
    wrt: tuple[int, ...] = ()
    seconds: int = 5
    memory: int = 1 << 30

    def ask(self, generator):
        """[(arguments, wrt, weights)], and the expected values of all cases in one dictionary."""
        asked, expected = [], {}
        for i, case in enumerate(self.cases(generator)):
            arguments = [np.asarray(a) if isinstance(a, np.generic) else a for a in case]  # tensors; Python's numbers stay
            shapes = [value.shape for key, value in values(self.reference, arguments, (), []).items()]
            weights = [generator.normal(size=shape) for shape in shapes] if self.wrt else []
            asked.append((arguments, self.wrt, weights))
            expected |= {f"{i}_{key}": value for key, value in values(self.reference, arguments, self.wrt, weights).items()}
        return asked, expected

    def verdict(self, expected, given):
        """{grade_id: ""} where all properties of a part hold, else what is violated. `given` may be the reason for no answer."""
        if isinstance(given, str):
            return dict.fromkeys(self.parts, given)
        right = {key: close(given.get(key), value) for key, value in expected.items()}
        outputs = [name for name in self.properties if name != "gradient"]
        holds = {name: all(ok for key, ok in right.items() if key.split("_")[1] == f"r{k}") for k, name in enumerate(outputs)}
        holds["gradient"] = all(ok for key, ok in right.items() if key.split("_")[1].startswith("g"))
        return {part: "; ".join(self.properties[name] for name in names if not holds[name])
                for part, (_, names) in self.parts.items()}


@dataclass(frozen=True)
class ProblemSet:
    """Questions, the parts that a person marks (grade_id -> points), and packages that a submission may not import."""

    name: str
    questions: tuple[Question, ...]
    manual: dict[str, int]
    forbidden: tuple[str, ...] = ("flowlib",)
    dtype: str = "float64"

    @property
    def parts(self):
        """grade_id -> points of all that is graded by machine."""
        return {part: points for question in self.questions for part, (points, _) in question.parts.items()}


def close(given, expected):
    """Same shape, same infinities, and numbers equal up to 1e-6 + 1e-5 |expected|."""
    if given is None or given.shape != expected.shape or given.dtype.kind not in "biuf":
        return False
    with np.errstate(all="ignore"):
        near = np.abs(given - expected) <= ABSOLUTE + RELATIVE * np.abs(expected)
        return bool(np.all(near & np.isfinite(expected) | (given == expected)))


def names():
    """The problem sets there are."""
    return sorted(module.name for module in pkgutil.iter_modules(sets.__path__))


def load(name):
    """The problem set of that name."""
    if name not in names():
        raise ValueError(f"no problem set {name!r}; there are: {', '.join(names())}")
    return importlib.import_module(f"{sets.__name__}.{name}").SET


def hidden_test(name, part, namespace):
    """The same verdict inside the notebook's own kernel, for the hidden tests of the source notebook.

    With plain nbgrader these run in the student's kernel, where a submission can change anything, this function included.

    Raises:
        AssertionError: The part is not right; the message names the violated property.
    """
    question = next(question for question in load(name).questions if part in question.parts)
    asked, expected = question.ask(np.random.default_rng(secrets.randbits(64)))
    given = {}
    for i, case in enumerate(asked):
        given |= {f"{i}_{key}": value for key, value in values(namespace[question.function], *case).items()}
    violated = question.verdict(expected, given)[part]
    assert not violated, violated
