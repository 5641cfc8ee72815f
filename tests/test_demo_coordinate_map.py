"""The coordinate map to play with of Lesson 16: its densities are those of flowlib's spline and mixture, and the knot
can be dragged."""
import math

import pytest
import torch
from demos import said

from flowlib import LogisticMixtureCDF, RationalQuadraticSpline, StandardLogistic, StandardNormal, viz

SPLINE = {"x of the knot": (-2.5, 2.5, 0.1, 0), "z of the knot": (-2.5, 2.5, 0.1, 0),
          "slope at the knot": (0.05, 3, 0.05, 1)}
MIXTURE = {"distance of the means": (0, 8, 0.2, 5), "scale of both": (0.4, 1.5, 0.05, 0.6),
           "weight of the left one": (0.05, 0.95, 0.05, 0.4), "base": ["logistic", "standard Gaussian"]}
PEAK = r"at most (\d+\.\d+), at x = (−?\d+\.\d+); its area is (\d\.\d+)"
x = torch.linspace(-12, 12, 9601, dtype=torch.float64)


def set_to(page, values):
    for name, value in values.items():
        page.get_by_role("slider", name=name, exact=True).fill(str(value))


def spline_density(u, v, slope):
    """With two bins: widths (u + 3, 3 - u), heights (v + 3, 3 - v) and the slope, as flowlib's parameters."""
    f = RationalQuadraticSpline(2, 3.0)
    shares = torch.tensor([[u + 3, 3 - u], [v + 3, 3 - v]], dtype=torch.float64) / 6
    raw = ((shares - f.min_share / 2) / (1 - f.min_share)).log().flatten()
    raw_slope = math.log(math.expm1(slope - f.min_slope)) - f._slope_offset
    params = torch.cat([raw, torch.tensor([raw_slope], dtype=torch.float64)]).expand(len(x), -1)
    z, log_slope = f.forward(x, params)
    return (StandardNormal(1).double().log_prob(z[:, None]) + log_slope).exp()


def mixture_density(distance, scale, weight, base):
    f = LogisticMixtureCDF(2)
    raw = torch.tensor([math.log(weight), math.log(1 - weight), 2 - distance / 2, distance / 2 - 2,
                        *[2 * math.atanh(math.log(scale) / 2)] * 2, 0, 0], dtype=torch.float64)
    z, log_slope = f.inverse(x, raw.expand(len(x), -1))
    return (base.double().log_prob(z[:, None]) + log_slope).exp()


@pytest.mark.parametrize("values, words", [((0, 0, 1.0), "one peak"), ((0, 0, 0.1), "2 peaks"),
                                           ((-1.2, 1.5, 2.8), "2 peaks")])
def test_the_density_of_the_spline(opened, values, words):  # noqa: F811
    page = opened(viz.demo("coordinate_map", alt="A map.", data={"kind": "spline"}, controls=SPLINE))
    set_to(page, dict(zip(SPLINE, values)))
    high, place, area = said(page, PEAK)
    p = spline_density(*values)
    assert high == pytest.approx(p.max().item(), abs=6e-3) and area == pytest.approx(1, abs=2e-3)
    assert p[(x - place).abs().argmin()] == pytest.approx(high, abs=1e-2)
    assert int(((p[1:-1] > p[:-2]) & (p[1:-1] >= p[2:])).sum()) == (2 if words == "2 peaks" else 1)
    assert f"has {words}" in page.locator("p").text_content()


def test_the_knot_can_be_dragged(opened):  # noqa: F811
    page = opened(viz.demo("coordinate_map", alt="A map.", data={"kind": "spline"}, controls=SPLINE))
    box = page.locator("svg").bounding_box()
    at = lambda px, py: (box["x"] + box["width"] * px / 400, box["y"] + box["height"] * py / 380)  # noqa: E731
    page.mouse.move(*at(242, 138))
    page.mouse.down()
    page.mouse.move(*at(92 + 300 * 5.5 / 8, 268 - 260 * 3 / 8), steps=3)
    page.mouse.up()
    assert [page.get_by_label(name).input_value() for name in list(SPLINE)[:2]] == ["1.5", "-1"]
    assert "takes x = 1.5 to z = −1.0 with slope 1.00" in page.locator("p").text_content()


@pytest.mark.parametrize("values", [(5, 0.6, 0.4), (0, 0.4, 0.5), (8, 1.5, 0.2)])
def test_over_a_logistic_base_the_density_is_the_mixture(opened, values):  # noqa: F811
    page = opened(viz.demo("coordinate_map", alt="A map.", data={"kind": "mixture"}, controls=MIXTURE))
    set_to(page, dict(zip(MIXTURE, values)))
    assert said(page, r"differs from the mixture \(dashed\) by at most (\d\.\d+)") == [0.0]
    for word, base in (("logistic", StandardLogistic(1)), ("standard Gaussian", StandardNormal(1))):
        page.get_by_label("base").select_option(word)
        high, _, area = said(page, PEAK)
        assert high == pytest.approx(mixture_density(*values, base).max().item(), abs=6e-3)
        assert area == pytest.approx(1, abs=2e-3)
    (apart,) = said(page, r"differs from the mixture \(dashed\) by at most (\d\.\d+)")
    assert apart > 0.05
