"""The interactive figure of Lesson 9, in a browser, from disk: reflections and rotations held to matrices computed
here."""
import math

import pytest
import torch
from demos import said

from flowlib import Householder, viz

CONTROLS = {"mirrors": (1, 2, 1, 1), "v₁": (-2, 2, 0.1, -1.2), "v₂": (-2, 2, 0.1, 0.8),
            "angle, degrees": (0, 180, 5, 30)}
CORNER = torch.tensor([0.7, 0.5], dtype=torch.float64)
MOVED = r"goes to x = \((−?[\d.]+), (−?[\d.]+)\); its length is ([\d.]+) before and ([\d.]+) after"
AREA = r"Signed area of the letter: (−?[\d.]+) before, (−?[\d.]+) after"


def mirrors():
    return viz.demo("mirrors", alt="A letter and its mirror image.", controls=CONTROLS, data={"points": [[-1.5, 1.0]]},
                    size=(400, 400))


def reflected(*vectors):
    layer = Householder(2, len(vectors)).double()
    layer.vectors.data = torch.tensor(vectors, dtype=torch.float64)
    return [pytest.approx(value, abs=0.0051) for value in layer(CORNER)[0].tolist()]


def test_one_mirror_reflects(opened):  # noqa: F811
    page = opened(mirrors())
    length = pytest.approx(CORNER.norm().item(), abs=0.0051)
    for v in ((-1.2, 0.8), (0.5, 0.5), (2.0, -1.3)):
        for name, value in zip(("v₁", "v₂"), v):
            page.get_by_label(name, exact=True).fill(str(value))
        assert said(page, MOVED) == [*reflected(v), length, length]
        before, after = said(page, AREA)
        assert before == -after and abs(before) > 0.5  # a mirror keeps the size of an area and turns its sign over
    for name in ("v₁", "v₂"):
        page.get_by_label(name, exact=True).fill("0")
    assert "nothing is reflected" in page.locator("p").inner_text()
    assert said(page, MOVED)[:2] == CORNER.tolist()


def test_two_mirrors_rotate_by_twice_their_angle(opened):  # noqa: F811
    page = opened(mirrors())
    page.get_by_label("mirrors", exact=True).focus()
    page.keyboard.press("ArrowRight")
    for turn in (30, 65, 90):
        page.get_by_label("angle, degrees").fill(str(turn))
        s = math.radians(turn)
        second = (-1.2 * math.cos(s) - 0.8 * math.sin(s), -1.2 * math.sin(s) + 0.8 * math.cos(s))
        moved = said(page, MOVED)[:2]
        assert moved == reflected((-1.2, 0.8), second)
        rotated = torch.tensor([[math.cos(2 * s), -math.sin(2 * s)],
                                [math.sin(2 * s), math.cos(2 * s)]]).double() @ CORNER
        assert moved == [pytest.approx(value, abs=0.0051) for value in rotated.tolist()]
        assert len(set(said(page, AREA))) == 1  # the letter can be read again


def test_v_is_dragged(opened):  # noqa: F811
    page = opened(mirrors())
    box = page.locator("svg").bounding_box()

    def at(x, y):  # the pixel of a point of the plane
        return (box["x"] + box["width"] * (200 + 195 * x / 3.3) / 400,
                box["y"] + box["height"] * (200 - 195 * y / 3.3) / 400)

    page.mouse.move(*at(-1.2, 0.8))
    page.mouse.down()
    page.mouse.move(*at(1.0, 1.0), steps=4)
    page.mouse.up()
    assert [page.get_by_label(name, exact=True).input_value() for name in ("v₁", "v₂")] == ["1", "1"]
    assert said(page, MOVED)[:2] == [-0.5, -0.7]  # the mirror is the line x2 = -x1: coordinates swap and change sign
