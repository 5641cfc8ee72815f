"""The planar map to play with of Lesson 6: the determinant that it measures is the Jacobian's, the tip of u can be
dragged, folds are named."""
import math

import pytest
import torch
import torch.nn.functional as F
from demos import said

from flowlib import viz
from flowlib.checks import jacobian

CONTROLS = {"u₁": (-1.6, 1.6, 0.05, 0.9), "u₂": (-1.6, 1.6, 0.05, -0.4), "b": (-3, 3, 0.1, 0),
            "direction of w, degrees": (-180, 180, 5, 60), "length of w": (0.5, 4, 0.1, 2),
            "push along": ["u as it is", "û, corrected"]}
AREA = r"multiplied by (−?\d+\.\d+), far from it by 1\.00\."


def at_the_line(u1, u2, b, degrees, length, corrected):
    """w.u and the determinant of the Jacobian at a point of the line."""
    angle = math.radians(degrees)
    w = length * torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    u = torch.tensor([u1, u2], dtype=torch.float64)
    given = w @ u
    if corrected:
        u = u + (F.softplus(given) - 1 - given) * w / (w @ w)
    J = jacobian(lambda z: z + u * torch.tanh(z @ w + b), -b * w / (w @ w))
    return given.item(), torch.linalg.det(J).item()


def figure():
    return viz.demo("planar_map", alt="A grid.", controls=CONTROLS, data={"points": [[0.5, 0.5]]}, size=(400, 400))


@pytest.mark.parametrize("values, says", [
    ((0.9, -0.4, 0.0, 60, 2.0), "Nothing folds"),
    ((-0.5, -1.2, 1.5, 30, 1.4), "three originals"), ((-0.5, 0.0, -2.0, 0, 2.0), "crushed"),
])
def test_the_area_on_the_line_is_the_determinant(opened, values, says):  # noqa: F811
    page = opened(figure())
    for name, value in zip(CONTROLS, values):
        page.get_by_role("slider", name=name, exact=True).fill(str(value))
    for corrected in (False, True):
        page.get_by_label("push along").select_option(index=int(corrected))
        given, det = at_the_line(*values, corrected)
        assert said(page, r"w·u = (−?\d+\.\d+)") == [pytest.approx(given, abs=6e-3)]
        assert said(page, AREA) == [pytest.approx(det, abs=6e-3)]
        assert ("Nothing folds" if corrected else says) in page.locator("p").text_content()


def test_drag_and_keyboard(opened):  # noqa: F811
    page = opened(figure())
    box = page.locator("svg").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()  # b = 0, so the foot of u is the centre
    page.mouse.move(box["x"] + box["width"] * (200 + 195 * -1.0 / 3.3) / 400,
                    box["y"] + box["height"] * (200 + 195 * 0.8 / 3.3) / 400, steps=3)
    page.mouse.up()
    assert [page.get_by_label(name).input_value() for name in ("u₁", "u₂")] == ["-1", "-0.8"]
    assert "three originals" in page.locator("p").text_content()
    page.get_by_label("length of w").focus()
    page.keyboard.press("ArrowRight")
    assert said(page, AREA) == [pytest.approx(at_the_line(-1.0, -0.8, 0.0, 60, 2.1, False)[1], abs=6e-3)]
