"""Draw the picture of the welcome page: a Gaussian pushed forward by a map in one dimension, as an SVG without a
script.

    python book/tools/push_forward.py > book/_static/push-forward.svg

Standard library only. The map is x = f(z) = 0.35 z + 1.25 tanh(2 z): flat at both ends and steep in the middle, so the
density of x, p(z) / f'(z), has two peaks. Colours stay readable on white and on the theme's dark grey.
"""
from math import cosh, exp, pi, sqrt, tanh

WIDTH, HEIGHT = 700, 385
LEFT, TOP, SIDE_X, SIDE_Y = 170, 14, 440, 262  # the square of the map: its corner and its two sides
Z_MAX, X_MAX = 2.6, 2.3
LATENT, DATA, MAP = "#c8553d", "#2a8fb8", "#8a8f98"


def f(z):
    return 0.35 * z + 1.25 * tanh(2 * z)


def slope(z):
    return 0.35 + 2.5 / cosh(2 * z) ** 2


def bell(z):
    return exp(-z * z / 2) / sqrt(2 * pi)


def across(z):
    return LEFT + SIDE_X * (z + Z_MAX) / (2 * Z_MAX)


def up(x):
    return TOP + SIDE_Y * (X_MAX - x) / (2 * X_MAX)


def path(points, **style):
    line = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
    return f'<path d="{line}" ' + " ".join(f'{key.replace("_", "-")}="{value}"' for key, value in style.items()) + "/>"


def text(x, y, content, colour, anchor="middle"):
    return f'<text x="{x}" y="{y}" fill="{colour}" text-anchor="{anchor}">{content}</text>'


def main():
    grid = [Z_MAX * (2 * i / 240 - 1) for i in range(241)]
    floor, wall = TOP + SIDE_Y, LEFT  # the latent axis is the lower side of the square, the data axis its left side
    low = [(across(z), floor + 8 + 240 * bell(z)) for z in grid]
    high = [(wall - 8 - 150 * bell(z) / slope(z), up(f(z))) for z in grid]
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
          f'font-size="15">')
    for i in range(-12, 13):  # rays at equal steps of z: up to the curve, then left to the data axis
        z = i / 5
        style = {"fill": "none", "stroke": LATENT if i else MAP, "stroke_opacity": 0.6, "stroke_width": 1}
        print(path([(across(z), floor), (across(z), up(f(z)))], **style))
        print(path([(across(z), up(f(z))), (wall, up(f(z)))], **{**style, "stroke": DATA}))
    print(path([(wall, TOP), (wall, floor), (wall + SIDE_X, floor)], fill="none", stroke=MAP, stroke_width=1.5))
    print(path([(across(z), up(f(z))) for z in grid], fill="none", stroke=MAP, stroke_width=3))
    print(path([(low[0][0], floor + 8), *low, (low[-1][0], floor + 8)], fill=LATENT, fill_opacity=0.25, stroke=LATENT,
               stroke_width=2))
    print(path([(wall - 8, high[0][1]), *high, (wall - 8, high[-1][1])], fill=DATA, fill_opacity=0.25, stroke=DATA,
               stroke_width=2))
    print(text(across(Z_MAX) + 8, up(f(Z_MAX)) + 5, "x = f(z)", MAP, "start"))
    print(text(across(1.6), floor + 62, "p(z)", LATENT))
    print(text(wall - 120, up(0) + 5, "p(x)", DATA))
    print("</svg>")


if __name__ == "__main__":
    main()
