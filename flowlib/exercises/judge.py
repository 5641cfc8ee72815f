"""What is graded, and how: a problem set is a list of questions, each a reference function and fresh random inputs.

The submitted function is called elsewhere (sandbox.py); here its values are compared with those of the reference, shape
by shape and number by number. Gradients are values, too: those of a random weighted sum of what the function returns.
"""
from __future__ import annotations

import importlib
import os
import pkgutil
import secrets
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .submission import values

ABSOLUTE, RELATIVE = 1e-6, 1e-5

# What a student reads where a property of a layer is violated
LOG_DET = "the log-det does not agree with the Jacobian, row by row"
GRADIENT = "the gradient with respect to the parameters is missing or wrong"
FORWARD = {"x": "x is not the image of z", "log_det": LOG_DET, "gradient": GRADIENT}
INVERSE = {"z": "z is not the point that x came from", "log_det": LOG_DET, "gradient": GRADIENT}


@dataclass(frozen=True)
class Question:
    """One function of an exercise. It is called in a child process of its own: forward and inverse are two questions.

    Attributes:
        function: Its name in the notebook.
        cases: Maps a numpy generator to a list of argument lists, of random sizes.
        reference: The right function, in torch.
        properties: For each value in its order, and last "gradient" if asked: the sentence shown when violated.
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

    def ask(self, generator: np.random.Generator) -> tuple[list[tuple], dict[str, np.ndarray]]:
        """[(arguments, wrt, weights)], and the expected values of all cases in one dictionary."""
        asked, expected = [], {}
        for i, case in enumerate(self.cases(generator)):
            arguments = [np.asarray(a) if isinstance(a, np.generic) else a for a in case]  # Python's numbers stay
            outputs = values(self.reference, arguments, (), []).values()
            weights = [generator.normal(size=value.shape) for value in outputs] if self.wrt else []
            asked.append((arguments, self.wrt, weights))
            right = values(self.reference, arguments, self.wrt, weights)
            expected |= {f"{i}_{key}": value for key, value in right.items()}
        return asked, expected

    def verdict(self, expected: dict[str, np.ndarray], given: dict[str, np.ndarray] | str) -> dict[str, str]:
        """{grade_id: what is violated}, "" where nothing is. `given` may be the reason why there are no values."""
        if isinstance(given, str):
            return dict.fromkeys(self.parts, given)
        holds = dict.fromkeys(self.properties, True)
        names = list(self.properties)  # values in their order
        for key, value in expected.items():  # "<case>_r<value>" or "<case>_g<argument>"
            case, kind = key.split("_")
            if kind[0] == "g":  # an entry that is exactly 0 may come out as the rounding of the large ones
                name, scale = "gradient", max(np.abs(other).max(initial=0) for other_key, other in expected.items()
                                              if other_key.startswith(f"{case}_g"))
            else:
                name, scale = names[int(kind[1:])], 0.0
            holds[name] = holds[name] and close(given.get(key), value, scale)
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
    def parts(self) -> dict[str, int]:
        """grade_id -> points of all that is graded by machine."""
        return {part: points for question in self.questions for part, (points, _) in question.parts.items()}


def close(given: np.ndarray | None, expected: np.ndarray, scale: float = 0.0) -> bool:
    """Same shape, same infinities, and numbers equal up to 1e-6 + 1e-5 |expected| + 1e-4 scale."""
    if given is None or given.shape != expected.shape or given.dtype.kind not in "biuf":
        return False
    with np.errstate(all="ignore"):
        near = np.abs(given - expected) <= ABSOLUTE + RELATIVE * np.abs(expected) + 10 * RELATIVE * scale
        return bool(np.all(near & np.isfinite(expected) | (given == expected)))


def names() -> list[str]:
    """The problem sets there are: each folder beside this file."""
    return sorted(module.name for module in pkgutil.iter_modules([os.path.dirname(__file__)]) if module.ispkg)


def load(name: str) -> ProblemSet:
    """The problem set of that name."""
    if name not in names():
        raise ValueError(f"no problem set {name!r}; there are: {', '.join(names())}")
    return importlib.import_module(f"{__package__}.{name}.reference").SET


def hidden_test(name: str, part: str, namespace: dict) -> None:
    """The same verdict inside the notebook's own kernel, for the hidden tests of the source notebook.

    With plain nbgrader these run in the student's kernel, where a submission can change anything, this one included.

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
