"""Lesson 14 in a live notebook: the form for temperature and noise."""
import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

from flowlib import Glow


def test_the_form_of_a_live_notebook(monkeypatch):
    widgets = pytest.importorskip("ipywidgets")
    lesson = json.loads((Path(__file__).parents[1] / "lessons" / "14_glow.ipynb").read_text(encoding="utf-8"))
    (cell,) = [cell for cell in lesson["cells"] if "".join(cell["source"]).startswith("LIVE = False")]
    assert not cell["outputs"]  # the page shows nothing of it
    made, drawn = [], []
    monkeypatch.setattr(widgets, "interact", lambda show, **sliders: made.append(widgets.interactive(show, **sliders)))
    names = {"torch": torch, "plt": plt, "glow": Glow((1, 8, 8), scales=1, steps=1, hidden=4),
             "sheet": lambda ax, images, title: drawn.append((images, title))}
    exec("".join(cell["source"]).replace("LIVE = False", "LIVE = True"), names)
    temperature, seed = made[0].children[:2]
    assert (temperature.value, temperature.min, temperature.max, temperature.step) == (0.7, 0.0, 1.5, 0.05)
    assert (seed.value, seed.min, seed.max) == (0, 0, 20)
    drawn.clear()  # of what the form shows at its start
    for choice in ((0.0, 1), (0.9, 1), (0.9, 1), (0.9, 2)):
        names["show"](*choice)
    (centre, title), (a, _), (again, _), (other, _) = drawn
    assert centre.shape == (1, 10, 1, 8, 8) and title == "T = 0.00"
    assert (centre == centre[:, :1]).all() and torch.equal(a, again) and not torch.equal(a, other)
    plt.close("all")
