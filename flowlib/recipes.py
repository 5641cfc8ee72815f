"""What the training command knows of a model: its name, what it is a flow over, and how it is trained.

A recipe stands beside its model, in the tuple `RECIPES` of that file. A setting of the model is a keyword of its class,
one of the run a keyword of `train.Config`; what is not named keeps its default.
"""
from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["FLAT", "Recipe", "Settings", "recipes"]


class Settings(NamedTuple):
    """How large a model is, and how it is trained."""

    size: dict
    run: dict


# All pixels of small sets as one vector: held back, and stopped early
FLAT = dict(epochs=100, batch_size=64, lr=2e-3, weight_decay=1.0, patience=5)


@dataclass(frozen=True)
class Recipe:
    """One model of the command.

    Attributes:
        name: After `--model`.
        model: Its class: `model(shape, levels=..., preprocess=..., **size)` of integer images, `model(dim, **size)` of
            vectors.
        over: "images", or "vectors": all pixels of an image at once.
        small: For two CPU cores: minutes.
        paper: As the paper has it; optimizer, schedule and averaging are `train.fit`'s. None where it has no such
            model.
    """

    name: str
    model: Callable
    over: str
    small: Settings
    paper: Settings | None = None

    def settings(self, config: str) -> Settings:
        """The settings of one config, "small" or "paper"; copies, to be changed freely.

        Raises:
            ValueError: A model that has no such config.
        """
        found = {"small": self.small, "paper": self.paper}[config]
        if found is None:
            others = ", ".join(name for name, recipe in recipes().items() if recipe.paper)
            raise ValueError(f"{self.name} has no config {config!r}; it stands for {others}")
        return Settings(dict(found.size), dict(found.run))


def recipes() -> dict[str, Recipe]:
    """Every recipe by its name: those of all modules of the package that are imported, as the models are.

    Example:
        >>> import flowlib
        >>> recipes()["glow"].small.size["hidden"]
        64
    """
    modules = [module for name, module in list(sys.modules.items()) if name.startswith(f"{__package__}.")]
    found = {recipe.name: recipe for module in modules for recipe in getattr(module, "RECIPES", ())}
    return dict(sorted(found.items()))
