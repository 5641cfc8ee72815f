"""Figures: densities are drawn where they are, interactive outputs are the same text in every run and work in a
browser."""
import re
from xml.etree import ElementTree

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from registry import ENTRIES

import flowlib
from flowlib import viz

matplotlib.use("agg")
PUSH_FORWARD = {"base": ["uniform on [0, 1]", "standard Gaussian"], "map": ["x = a·z + 1", "x = exp(−a·z), decreasing"],
                "steepness a": (0.1, 2.0, 0.1, 2.0), "strip at z": (-3.0, 2.8, 0.1, 0.3)}


@pytest.fixture(autouse=True)
def fresh():
    with matplotlib.rc_context():
        viz.use_style()
        yield
        plt.close("all")


def curve(a):
    figure, ax = plt.subplots(figsize=(2, 1.5))
    ax.plot([0, 1], [0, a])
    return figure


def test_density_of_flow_distribution_and_function_agree():
    flow = flowlib.Flow(flowlib.StandardNormal(1), flowlib.AffineMap(1.0)).double()
    normal = torch.distributions.Normal(0.0, 1.0)
    _, ax = plt.subplots()
    lines = [viz.plot_density(ax, p, -4, 4) for p in (flow, normal, lambda x: normal.log_prob(x).exp())]
    heights = [line.get_ydata() for line in lines]
    assert abs(heights[0].max() - 0.39894) < 1e-4 and heights[0].dtype == "float64"
    for other in heights[1:]:
        assert abs(heights[0] - other).max() < 1e-6


def test_histogram_counts_what_lies_outside():
    _, ax = plt.subplots()
    bars = viz.plot_samples(ax, torch.tensor([0.1, 0.6, 0.7, 9.0]), bins=2, range=(0.0, 1.0))
    assert bars.get_data().values.tolist() == [0.5, 1.0]  # 1/4 and 2/4 on bins of width 1/2


def test_image_has_x_across_and_y_up():
    _, ax = plt.subplots()
    image = viz.plot_density_2d(ax, lambda points: points[:, 0] + 10 * points[:, 1], 0, 1, n=3).get_array()
    assert image[0].tolist() == [0, 0.5, 1] and image[:, 0].tolist() == [0, 5, 10]


def test_grid_is_mapped():
    _, ax = plt.subplots()
    viz.plot_grid(ax, lambda z: z @ torch.tensor([[2.0, 0.0], [0.0, 3.0]]), 0, 1, lines=2, n=5)
    ends = [tuple(line.get_xydata()[[0, -1]].flatten().tolist()) for line in ax.lines]
    assert ends == [(0, 0, 0, 3), (0, 0, 2, 0), (2, 0, 2, 3), (0, 3, 2, 3)]


def test_frames_are_deterministic_labelled_and_closed():
    def make(values):
        return viz.frames(curve, values, label="height a", alt="A line up to {}", start=1).data
    first = make([1.0, 2.0, 3.0])
    assert first == make([1.0, 2.0, 3.0]) and plt.get_fignums() == []
    assert 'alt="A line up to 2.0"' in first and first.count("iVBORw0KGgo") == 4  # the first one shown, and all three
    key = re.search(r'<figure class="flow-figure" id="([^"]+)">', first)[1]
    assert key not in make([1.0, 2.0, 4.0])
    assert f'<label for="{key}-slider">height a</label>' in first and f'id="{key}-slider"' in first
    assert "//" not in re.sub(r"iVBORw0KGgo[A-Za-z0-9+/]+=*", "", first)  # no address of anything


def test_frames_id_does_not_depend_on_pixels():
    one, two = (viz.frames(lambda a, scale=scale: curve(a * scale), [1, 2], label="a", alt="{}").data
                for scale in (1, 5))
    assert one != two and one[:70] == two[:70]


def test_text_is_escaped():
    out = viz.frames(curve, [1], label="a < b", alt='</script> & "quotes"').data
    assert "a &lt; b" in out and out.count("</script>") == 1


@pytest.mark.parametrize("call, message", [
    (lambda: viz.frames(curve, [], label="a", alt=""), "needs values"),
    (lambda: viz.frames(curve, [1], label="a", alt="", start=1), "start=1"),
    (lambda: viz.demo("nothing", alt="", controls={}), "push_forward"),
])
def test_errors_say_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_in_a_browser_from_disk(browser, tmp_path):
    demo = viz.demo("push_forward", alt="A density and its push-forward.", controls=PUSH_FORWARD).data
    frames = viz.frames(curve, [1.0, 2.0, 3.0], label="height a", alt="A line up to {}").data
    (tmp_path / "page.html").write_text(
        f"<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>{demo}{frames}",
        encoding="utf-8")
    faults = []
    page = browser.new_page(viewport={"width": 400, "height": 900})
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    page.goto((tmp_path / "page.html").as_uri())

    svg, strip = page.locator("svg"), page.get_by_label("strip at z", exact=True)
    assert "from x = 1.60 to 2.00 is 0.40 wide and holds 0.200" in svg.get_attribute("aria-label")
    strip.focus()
    page.keyboard.press("ArrowRight")
    assert "from x = 1.80 to 2.20 is 0.40 wide and holds 0.200" in svg.get_attribute("aria-label")
    page.get_by_label("map", exact=True).select_option("x = exp(−a·z), decreasing")
    assert "from x = 0.30 to 0.45 is 0.15 wide and holds 0.200" in page.locator("p").inner_text()
    box = svg.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 265 / 400, box["y"] + 20)  # the middle of the square, z = 0
    assert strip.input_value() == "-0.1" and "holds probability 0.100" in svg.get_attribute("aria-label")

    page.get_by_label("height a").focus()
    page.keyboard.press("End")
    assert page.locator("img").get_attribute("alt") == "A line up to 3.0"
    assert page.locator("output").last.inner_text() == "3.0"
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.close()
    assert not faults


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_an_architecture_is_drawn_of_every_bijection(entry):
    f = entry.make(entry.dims[-1], 3 if entry.context else None)
    drawing = viz.architecture(f).data
    assert drawing == viz.architecture(f).data
    root = ElementTree.fromstring(re.search(r"<svg.*</svg>", drawing, flags=re.S)[0])
    texts = [text.text for text in root.iter("text")]
    assert texts[-1] == f"{sum(p.numel() for p in f.parameters()):,}"
    assert f.event_shape is None or texts[-2] == "×".join(map(str, f.event_shape))


def rows_of(flow):
    """The names in the drawing from top to bottom, and the cells of each strip: True where kept."""
    drawing = viz.architecture(flow).data
    names = re.findall(r'font-size="13" text-anchor="start" fill="#[0-9a-f]+">([^<]+)<', drawing)
    strips = {}
    for y, colour in re.findall(r'y="([\d.]+)" width="[\d.]+" height="12" fill="(#\w+)"', drawing):
        strips.setdefault(y, []).append(colour == "#c3c8ce")
    return names, list(strips.values()), re.findall(r">(\d+)×<", drawing)


def test_layers_that_repeat_are_drawn_once_with_what_they_keep():
    names, strips, times = rows_of(flowlib.RealNVP(5, layers=6, hidden=(8,)))
    assert names == ["latent z", "Coupling", "Coupling", "data x"] and times == ["3"]
    assert strips == [[True, True, False, False, False], [False, False, True, True, True]]


def test_a_mask_is_drawn_as_it_is():
    kept = torch.tensor([True, False, True])
    assert rows_of(flowlib.Coupling(3, flowlib.Affine(), mask=kept))[1] == [[True, False, True]]
    board = flowlib.ImageCoupling((1, 4, 4), flowlib.Affine(), mask="checkerboard", hidden=4)
    assert rows_of(board)[1] == [[True, False, True, False]]
    half = flowlib.ImageCoupling((4, 2, 2), flowlib.Affine(), swap=True, hidden=4)
    assert rows_of(half)[1] == [[False, False, True, True]]


def test_latents_come_in_scale_by_scale():
    names, _, times = rows_of(flowlib.Glow((1, 8, 8), scales=2, steps=3, hidden=4))
    step = ["ImageCoupling", "InvertibleConv1x1", "ActNorm"]
    assert times == ["3", "3"]
    assert names == ["latent of scale 2", *step, "Squeeze", "latent of scale 1", "split prior", *step, "Squeeze",
                     "AffineMap", "Dequantize", "data x"]
