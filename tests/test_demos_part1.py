"""The interactive figures of Lessons 3 and 4, in a browser, from disk: by keyboard, by mouse, by touch, on a narrow
screen. What they say is held to determinants computed here; and the form that Lesson 3 offers in a live notebook."""
import json
import math
import re
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from demos import said

from flowlib import viz, volume_by_counting
from flowlib.checks import jacobian

matplotlib.use("agg")
COLUMNS = {"a (column 1, right)": 1.2, "b (column 1, up)": 0.4, "c (column 2, right)": 0.5, "d (column 2, up)": 1.1}
MAPS = {
    "banana": lambda z: torch.stack([z[0], z[1] * torch.exp(z[0] / 2) + z[0] ** 2 / 2]),
    "polar coordinates": lambda z: (z[0] + 2.5) * torch.stack([torch.cos(z[1]), torch.sin(z[1])]),
    "waves": lambda z: z + 0.4 * torch.sin(2 * z.flip(0)),
    "swirl, keeps areas": lambda z: torch.stack([torch.stack([torch.cos(a := 2 * torch.exp(-z @ z / 2)),
                                                              -torch.sin(a)]),
                                                 torch.stack([torch.sin(a), torch.cos(a)])]) @ z,
    "fold, no bijection": lambda z: torch.stack([z[0], z[1] ** 3 / 3 - z[0] * z[1]]),
}


def test_matrix_and_square(opened):
    controls = {name: (-1.6, 1.6, 0.1, start) for name, start in COLUMNS.items()}
    page = opened(viz.demo("matrix_square", alt="A square.", controls=controls, data={"points": [[0.5, 0.5]]},
                           size=(400, 400)))
    area, kept = r"around the corners: (−?[\d.]+);", r"kept\. Area ([\d.]+), so the density of X on it is (\d+\.\d+)\."
    assert said(page, area) == [1.12]
    page.get_by_label("a (column 1, right)").focus()
    page.keyboard.press("ArrowRight")
    assert said(page, area) == [pytest.approx(1.3 * 1.1 - 0.4 * 0.5)]
    assert said(page, kept) == [1.23, pytest.approx(1 / 1.23, abs=0.005)]

    page.get_by_label("d (column 2, up)").focus()
    page.keyboard.press("Home")  # d = -1.6 turns the square over
    assert said(page, area + " the letter is mirrored") == [pytest.approx(1.3 * -1.6 - 0.4 * 0.5)]
    for name, value in zip(COLUMNS, ("1.2", "0.6", "0.8", "0.4")):
        page.get_by_label(name).fill(value)
    assert "signed area 0.00, and X has no density" in page.locator("p").inner_text()

    box = page.locator("svg").bounding_box()

    def at(x, y):  # the pixel of a point of the plane
        return (box["x"] + box["width"] * (200 + 195 * x / 3.3) / 400,
                box["y"] + box["height"] * (200 - 195 * y / 3.3) / 400)

    page.mouse.move(*at(1.2, 0.6))
    page.mouse.down()
    page.mouse.move(*at(1.0, -0.5), steps=4)
    page.mouse.up()
    assert [page.get_by_label(name).input_value() for name in COLUMNS] == ["1", "-0.5", "0.8", "0.4"]
    assert said(page, area) == [0.80]


def test_zoom_tells_the_determinant(opened):
    controls = {"map": list(MAPS), "z₁": (-2, 2, 0.1, 0.5), "z₂": (-2, 2, 0.1, 0.5), "zoom, in doublings": (0, 8, 1, 0)}
    page = opened(viz.demo("zoom", alt="A square under a glass.", controls=controls, size=(400, 240)))
    numbers = (r"Its image has (−?[\d.]+) times its signed area; the Jacobian's parallelogram, (−?[\d.]+) times\. They "
               r"differ by (\d+\.\d+)\.")
    for z in ((0.5, 0.5), (-1.2, 0.3), (1.0, 1.0)):
        page.get_by_label("z₁", exact=True).fill(str(z[0]))
        page.get_by_label("z₂", exact=True).fill(str(z[1]))
        for name, f in MAPS.items():
            page.get_by_label("map", exact=True).select_option(name)
            page.get_by_label("zoom, in doublings").focus()
            page.keyboard.press("End")
            J = jacobian(f, torch.tensor(z, dtype=torch.float64))
            det = torch.linalg.det(J).item()
            assert said(page, numbers) == [pytest.approx(det, abs=2e-3), pytest.approx(det, abs=6e-4),
                                           pytest.approx(0, abs=2e-3)], name


def test_zoom_shows_an_error_of_second_order(opened):
    controls = {"map": list(MAPS), "z₁": (-2, 2, 0.1, 0.5), "z₂": (-2, 2, 0.1, 0.5), "zoom, in doublings": (0, 8, 1, 0)}
    page = opened(viz.demo("zoom", alt="A square under a glass.", controls=controls, size=(400, 240)))
    slider, gaps = page.get_by_label("zoom, in doublings"), []
    slider.focus()
    for _ in range(4):
        gaps += said(page, r"They differ by (\d+\.\d+)\.")
        page.keyboard.press("ArrowRight")
    # for the banana, the mean of exp(z1 / 2) over a side s exceeds its middle value by the factor sinh(s / 4) / (s / 4)
    expected = [math.exp(0.25) * (math.sinh(s / 4) / (s / 4) - 1) for s in (4, 2, 1, 0.5)]
    assert gaps == [pytest.approx(gap, abs=6e-3) for gap in expected]
    assert gaps[0] > 3.5 * gaps[1] > 3.5 ** 2 * gaps[2] > 0


def test_a_finger_drags_a_tip_and_scrolls_elsewhere(browser, tmp_path):
    controls = {name: (-1.6, 1.6, 0.1, start) for name, start in COLUMNS.items()}
    figure = viz.demo("matrix_square", alt="A square.", controls=controls, data={"points": [[0.5, 0.5]]},
                      size=(400, 400))
    (tmp_path / "page.html").write_text(
        "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"{figure.data}<div style='height: 2000px'></div>", encoding="utf-8")
    page = browser.new_context(viewport={"width": 400, "height": 800}, has_touch=True, is_mobile=True).new_page()
    page.goto((tmp_path / "page.html").as_uri())
    hand, box = page.context.new_cdp_session(page), page.locator("svg").bounding_box()

    def swipe(start, end):  # between two points of the plane
        for k in range(13):
            x, y = (a + (b - a) * k / 12 for a, b in zip(start, end))
            point = {"x": box["x"] + box["width"] * (200 + 195 * x / 3.3) / 400,
                     "y": box["y"] + box["height"] * (200 - 195 * y / 3.3) / 400}
            hand.send("Input.dispatchTouchEvent", {"type": "touchMove" if k else "touchStart",
                                                   "touchPoints": [point]})
            page.wait_for_timeout(20)
        hand.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.wait_for_timeout(200)

    swipe((1.2, 0.4), (1.0, -1.0))  # the first tip, downwards: the way that would scroll the page
    assert [page.get_by_label(name).input_value() for name in COLUMNS] == ["1", "-1", "0.5", "1.1"]
    assert page.evaluate("scrollY") == 0
    swipe((2.0, -2.5), (2.0, 0.5))  # far from both tips, upwards
    page.wait_for_function("scrollY > 50")
    page.context.close()


def test_the_form_of_a_live_notebook(monkeypatch):
    widgets = pytest.importorskip("ipywidgets")
    lesson = json.loads((Path(__file__).parents[1] / "lessons" / "03_determinants_and_volumes.ipynb").read_text(
        encoding="utf-8"))
    (cell,) = [cell for cell in lesson["cells"] if "".join(cell["source"]).startswith("LIVE = False")]
    assert not cell["outputs"]  # the page shows nothing of it
    made, names = [], {"torch": torch, "plt": plt, "viz": viz, "volume_by_counting": volume_by_counting}
    monkeypatch.setattr(widgets, "interact", lambda show, **sliders: made.append(widgets.interactive(show, **sliders)))
    exec("".join(cell["source"]).replace("LIVE = False", "LIVE = True"), names)
    sliders = made[0].children[:4]
    assert [(s.description, s.value, s.min, s.max, s.step) for s in sliders] == [
        (name, start, -1.6, 1.6, 0.1) for name, start in zip("abcd", COLUMNS.values())]
    torch.manual_seed(0)
    names["show"](1.0, 0.0, 0.5, 1.5)
    said = re.fullmatch(r"det A = 1.50, counted ([\d.]+) ± 0.01", plt.gca().get_title())
    assert said and abs(float(said[1]) - 1.5) < 0.05
    plt.close("all")
