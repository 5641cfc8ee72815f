"""The charts of the results page: how times and memory grow, as SVG with the colours of the page around it."""
from math import ceil, floor, log10
from xml.sax.saxutils import quoteattr

WIDTH, HEIGHT = 250, 190  # of one panel
LEFT, RIGHT, TOP, BOTTOM = 52, 18, 26, 34  # what its labels need
LINES = {"flowlib": ("#c8553d", ""), "zuko": ("#2a8fb8", "6 3"), "nflows": ("#7d8f2a", "2 3"),
         "normflows": ("#8f78d8", "8 3 2 3")}  # each can be read on white and on dark grey, and told by its dashes

GRID = '<div style="display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr))">'


def text(x, y, content, anchor="middle", size=11):
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
    return f'<text {place} fill="currentColor">{content}</text>'


def line(points, colour="currentColor", dashes="", width=1.0, opacity=1.0):
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return (f'<path d="{path}" fill="none" stroke="{colour}" stroke-dasharray="{dashes}" stroke-width="{width}" '
            f'stroke-opacity="{opacity}"/>')


def panel(title: str, across: str, curves: dict[str, list[tuple[float, float]]]) -> list[str]:
    """One pair of logarithmic axes: curves of (x, y) by name, x at marked places, y over whole powers of ten."""
    xs = sorted({x for points in curves.values() for x, _ in points})
    ys = [y for points in curves.values() for _, y in points]
    low, high = floor(log10(min(ys))), ceil(log10(max(ys)))

    def place(x, y):
        right = (log10(x) - log10(xs[0])) / (log10(xs[-1]) - log10(xs[0]))
        up = (log10(y) - low) / (high - low)
        return LEFT + right * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [text((LEFT + WIDTH - RIGHT) / 2, 14, title, size=12), text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, across)]
    for power in range(low, high + 1):
        ends = [place(x, 10.0**power) for x in (xs[0], xs[-1])]
        parts += [line(ends, opacity=0.25), text(LEFT - 5, ends[0][1] + 4, f"{10.0**power:,g}", "end")]
    labels = [(place(x, 10.0**low)[0], f"{x:,}") for x in xs]
    following = [right for right, _ in labels[1:]] + [2 * WIDTH]
    parts += [text(right, HEIGHT - BOTTOM + 15, label) for (right, label), after in zip(labels, following)
              if after - right > 30]  # a label needs so much room
    for name, points in curves.items():
        colour, dashes = LINES[name]
        parts.append(line([place(*point) for point in sorted(points)], colour, dashes, width=2.2))
    return parts


def drawing(says: str, width: float, height: float, parts: list[str]) -> list[str]:
    return [f'<svg viewBox="0 0 {width} {height}" style="width: 100%; max-width: {1.4 * width:.0f}px" role="img" '
            f'aria-label={quoteattr(says)} font-family="sans-serif">', *parts, "</svg>"]


def chart(rows: list[list[tuple]], says: str) -> list[str]:
    """Rows of panels (title, what is across, curves) under one legend, as lines of HTML without an empty one. Where the
    page is narrow, fewer panels stand side by side."""
    legend = [part for k, (name, (colour, dashes)) in enumerate(LINES.items())
              for part in (line([(75 * k, 12), (22 + 75 * k, 12)], colour, dashes, width=2.2),
                           text(26 + 75 * k, 16, name, "start"))]
    lines = drawing("Legend: " + ", ".join(LINES), 80 * len(LINES), 24, legend)
    for panels in rows:
        lines.append(GRID)
        for title, across, curves in panels:
            lines += drawing(f"{title}, against {across}", WIDTH, HEIGHT, panel(title, across, curves))
        lines.append("</div>")
    return ["<figure>", *lines, f"<figcaption>{says}</figcaption>", "</figure>"]
