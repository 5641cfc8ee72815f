"""The layer to play with of Lesson 8: the range of determinants that it says is that of the Jacobians computed here."""
import pytest
import torch
from demos import said

from flowlib import viz
from flowlib.checks import jacobian

CONTROLS = {"angle of Q": (0, 90, 5, 30), "product 1": (-2, 4, 0.25, 2), "product 2": (-2, 4, 0.25, -0.75),
            "above the diagonals": (-2, 2, 0.25, 0.5)}
D = torch.float64


def dets(degrees, p1, p2, above):
    """Of x = z + Q R tanh(R~ Q'z), at 25 x 25 points z on a grid along the columns of Q."""
    angle = torch.deg2rad(torch.tensor(degrees, dtype=D))
    q = torch.stack([torch.stack([angle.cos(), angle.sin()]), torch.stack([-angle.sin(), angle.cos()])]).mT
    r = torch.tensor([[p1, above], [0.0, p2]], dtype=D)
    r2 = torch.tensor([[1.0, above], [0.0, 1.0]], dtype=D)
    side = torch.linspace(-3, 3, 25, dtype=D)
    z = torch.cartesian_prod(side, side) @ q.mT
    return torch.linalg.det(jacobian(lambda z: z + torch.tanh(z @ q @ r2.mT) @ r.mT @ q.mT, z))


@pytest.mark.parametrize("values, says", [
    ((30, 2, -0.75, 0.5), "exactly one latent"), ((75, 4, 3, -2), "exactly one latent"),
    ((0, -0.75, -0.75, 1), "exactly one latent"),
    ((45, -1, 2, 0), "its determinant reaches 0"), ((10, 1, -2, 0.25), "several latents"),
    ((10, -2, -2, 0), "several latents"),
])
def test_the_determinants_are_those_of_the_jacobian(opened, values, says):  # noqa: F811
    page = opened(viz.demo("sylvester", alt="A layer.", controls=CONTROLS, size=(400, 400)))
    for name, value in zip(CONTROLS, values):
        page.get_by_label(name).fill(str(value))
    exact = dets(*values)
    low, high = said(page, r"between (−?[\d.]+) and (−?[\d.]+)\.")
    assert low == pytest.approx(exact.min().item(), abs=6e-3) and high == pytest.approx(exact.max().item(), abs=6e-3)
    assert says in page.locator("p").text_content()


def test_by_keyboard(opened):  # noqa: F811
    page = opened(viz.demo("sylvester", alt="A layer.", controls=CONTROLS, size=(400, 400)))
    page.get_by_label("product 2").focus()
    page.keyboard.press("ArrowLeft")
    assert "its determinant reaches 0" in page.locator("p").text_content()
    page.keyboard.press("ArrowLeft")
    assert "several latents" in page.locator("p").text_content()
