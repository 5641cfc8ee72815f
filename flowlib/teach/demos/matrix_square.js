// The unit square (dashed) and the parallelogram that a matrix makes of it. The columns of the matrix are the images of the
// two edges; their tips can be dragged. The same points lie in both, so they thin out where the area grows.
(pen, values, { points }) => {
  const [a, b, c, d] = Object.values(values); // the columns (a, b) and (c, d), in the order of the controls
  const names = Object.keys(values), det = a * d - b * c, flat = Math.abs(det) < 0.005;
  const across = pen.scale([-3.3, 3.3], [5, 395]), up = pen.scale([-3.3, 3.3], [395, 5]);
  const at = ([x, y]) => [across(x), up(y)], image = ([s, t]) => at([a * s + c * t, b * s + d * t]);
  const red = "#d55e00", colour = det < 0 ? "#a2447a" : "#0072b2";
  const square = [[0, 0], [1, 0], [1, 1], [0, 1]], letter = [[[0.3, 0.2], [0.3, 0.8], [0.7, 0.8]], [[0.3, 0.52], [0.6, 0.52]]];

  for (const k of [-3, -2, -1, 0, 1, 2, 3]) {
    const style = { stroke: k ? "#e4e7eb" : "#8a929c", "stroke-width": 1 };
    pen.line([at([k, -3.3]), at([k, 3.3])], style);
    pen.line([at([-3.3, k]), at([3.3, k])], style);
    if (k) pen.text(across(k), up(0) + 15, `${k}`.replace("-", "−"), { "font-size": 11, fill: "#5f6670" });
  }
  pen.area(square.map(at), { fill: red, "fill-opacity": 0.12 });
  pen.line([...square, square[0]].map(at), { stroke: red, "stroke-dasharray": "5 4", "stroke-width": 1.5 });
  pen.area(square.map(image), { fill: colour, "fill-opacity": Math.min(0.75, 0.22 / Math.abs(det)) });
  for (const point of points) pen.line([image(point), image(point)], { stroke: colour, "stroke-width": 2.8, "stroke-linecap": "round" });
  for (const stroke of letter) {
    pen.line(stroke.map(at), { stroke: red, "stroke-width": 3, "stroke-opacity": 0.5 });
    pen.line(stroke.map(image), { stroke: "#1f2328", "stroke-width": 4, "stroke-linejoin": "round" });
  }
  pen.line([...square, square[0]].map(image), { stroke: colour });
  [[1, 0], [0, 1]].forEach((corner, i) => {
    const [x, y] = image(corner), [u, v] = [x - across(0), y - up(0)], size = Math.hypot(u, v) || 1;
    pen.line([at([0, 0]), [x, y]], { stroke: colour, "stroke-width": 4 });
    // a large round dot, which a finger can drag without moving the page
    pen.line([[x, y], [x, y]], { stroke: colour, "stroke-width": 18, "stroke-linecap": "round", style: "cursor: grab", ontouchstart: "event.preventDefault()" });
    pen.text(x + 22 * u / size, y + 22 * v / size + 5, ["A e₁", "A e₂"][i], { "font-weight": 600 });
  });
  pen.drag((x, y, pressed) => {
    const far = corner => Math.hypot(image(corner)[0] - x, image(corner)[1] - y);
    if (pressed) pen.held = far([1, 0]) <= far([0, 1]) ? 0 : 2;
    return { [names[pen.held]]: across.inverse(x), [names[pen.held + 1]]: up.inverse(y) };
  });

  const n = (v, digits = 2) => (Math.abs(v) < 0.005 ? 0 : v).toFixed(digits).replace("-", "−");
  const corners = square.map(([s, t]) => [a * s + c * t, b * s + d * t]);
  const area = corners.reduce((sum, [x, y], i) => sum + (x * corners[(i + 1) % 4][1] - y * corners[(i + 1) % 4][0]) / 2, 0);
  const turn = det > 0 ? "the letter can be read: orientation kept" : "the letter is mirrored: orientation turned over";
  return `A = (${n(a, 1)}  ${n(c, 1)};  ${n(b, 1)}  ${n(d, 1)}). ` + (flat
    ? "Both columns lie on one line. The square is crushed: signed area 0.00, and X has no density in the plane."
    : `Signed area, measured around the corners: ${n(area)}; ${turn}. Area ${n(Math.abs(area))}, so the density of X on it is ${n(1 / Math.abs(area))}.`);
}
