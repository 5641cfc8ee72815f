// A smooth map under a magnifying glass. Left: the plane of z with a square around a point. Right: what the map makes of the
// square and of a grid on it, magnified as much as the square is small, beside the parallelogram of the Jacobian (dashed).
(pen, { map, "z₁": p, "z₂": q, "zoom, in doublings": k }) => {
  const maps = {
    "banana": (s, t) => [s, t * Math.exp(s / 2) + s * s / 2],
    "polar coordinates": (s, t) => [(s + 2.5) * Math.cos(t), (s + 2.5) * Math.sin(t)],
    "waves": (s, t) => [s + 0.4 * Math.sin(2 * t), t + 0.4 * Math.sin(2 * s)],
    "swirl, keeps areas": (s, t) => {
      const angle = 2 * Math.exp(-(s * s + t * t) / 2);
      return [s * Math.cos(angle) - t * Math.sin(angle), s * Math.sin(angle) + t * Math.cos(angle)];
    },
    "fold, no bijection": (s, t) => [s, t ** 3 / 3 - s * t],
  };
  const f = ([s, t]) => maps[map](s, t), h = 1e-4, side = 4 / 2 ** k, centre = f([p, q]);
  const slope = (u, v) => f([p + h * u, q + h * v]).map((x, i) => (x - f([p - h * u, q - h * v])[i]) / (2 * h));
  const [column1, column2] = [slope(1, 0), slope(0, 1)], det = column1[0] * column2[1] - column1[1] * column2[0];
  const red = "#d55e00", blue = "#0072b2", range = Array.from({ length: 33 }, (_, i) => i / 32 - 0.5), steps = range.filter((_, i) => i % 4 == 0);
  const outline = [...range.map(r => [r, -0.5]), ...range.map(r => [0.5, r]), ...range.map(r => [-r, 0.5]), ...range.map(r => [-0.5, -r])];
  const square = ([u, v]) => [p + side * u, q + side * v];

  const across = pen.scale([-4, 4], [4, 164]), up = pen.scale([-4, 4], [164, 4]), at = ([s, t]) => [across(s), up(t)];
  for (const r of Array.from({ length: 9 }, (_, i) => i - 4)) {
    pen.line([at([r, -4]), at([r, 4])], { stroke: "#d9dde2", "stroke-width": 1 });
    pen.line([at([-4, r]), at([4, r])], { stroke: "#d9dde2", "stroke-width": 1 });
  }
  pen.area(outline.map(square).map(at), { fill: red, "fill-opacity": 0.3, stroke: red, "stroke-width": 1.5 });
  pen.line([at([p, q]), at([p, q])], { stroke: red, "stroke-width": 18, "stroke-opacity": 0.35, "stroke-linecap": "round", style: "cursor: grab", ontouchstart: "event.preventDefault()" });
  pen.line([at([p, q]), at([p, q])], { stroke: red, "stroke-width": 5, "stroke-linecap": "round", "pointer-events": "none" });

  // the glass: its width is a fixed multiple of the square's side, so that more zoom only magnifies
  const reach = 0.6 * side * Math.max(...[0, 1].map(i => Math.abs(column1[i]) + Math.abs(column2[i])), 0.2), [left, right, top, bottom] = [184, 396, 4, 216];
  const gx = pen.scale([centre[0] - reach, centre[0] + reach], [left, right]), gy = pen.scale([centre[1] - reach, centre[1] + reach], [bottom, top]);
  const seen = point => { const [x, y] = f(square(point)); return [gx(x), gy(y)]; };
  const inside = ([x, y]) => x >= left && x <= right && y >= top && y <= bottom;
  const draw = (points, style) => { // the pieces of a line that lie in the glass
    let part = [];
    for (const point of [...points, [NaN, NaN]]) {
      if (inside(point)) part.push(point);
      else { if (part.length > 1) pen.line(part, style); part = []; }
    }
  };
  const fine = Array.from({ length: 257 }, (_, i) => i / 256 - 0.5);
  for (const r of steps) {
    draw(fine.map(s => seen([r, s])), { stroke: blue, "stroke-width": 1.2 });
    draw(fine.map(s => seen([s, r])), { stroke: red, "stroke-width": 1.2 });
  }
  const flat = [[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5]].map(([u, v]) => [0, 1].map(i => centre[i] + side * (u * column1[i] + v * column2[i])));
  draw(flat.slice(1).flatMap((end, i) => fine.map(s => [0, 1].map(j => flat[i][j] + (s + 0.5) * (end[j] - flat[i][j])))).map(([x, y]) => [gx(x), gy(y)]),
    { stroke: "#1f2328", "stroke-width": 2, "stroke-dasharray": "6 4" });
  pen.line([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]], { stroke: "#8a929c", "stroke-width": 1 });
  pen.text(84, 182, "z, with the square", { fill: "#b04a00" });
  pen.text(290, 234, `x, magnified ×${2 ** k}`, { fill: blue });
  pen.drag((x, y) => ({ "z₁": across.inverse(x), "z₂": up.inverse(y) }));

  const n = (v, digits) => (Math.abs(v) < 0.5 * 10 ** -digits ? 0 : v).toFixed(digits).replace("-", "−");
  const rim = outline.map(square).map(f), area = rim.reduce((sum, [x, y], i) => {
    const [u, v] = rim[(i + 1) % rim.length];
    return sum + (x - centre[0]) * (v - centre[1]) / 2 - (y - centre[1]) * (u - centre[0]) / 2;
  }, 0) / side ** 2;
  return `${map} at z = (${n(p, 1)}, ${n(q, 1)}), a square of side ${n(side, 3)}. Its image has ${n(area, 3)} times its signed area; `
    + `the Jacobian's parallelogram, ${n(det, 3)} times. They differ by ${n(Math.abs(area - det), 3)}.`;
}
