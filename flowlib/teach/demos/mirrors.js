// Householder reflections of the plane. The mirror is the line at right angles to v, and v can be dragged. With two mirrors, a
// second reflection follows the first: together they rotate, by twice the angle between the mirrors.
(pen, { mirrors, "v₁": a, "v₂": b, "angle, degrees": turn }, { points }) => {
  const across = pen.scale([-3.3, 3.3], [5, 395]), up = pen.scale([-3.3, 3.3], [395, 5]), at = ([x, y]) => [across(x), up(y)];
  const red = "#d55e00", blue = "#0072b2", purple = "#a2447a", grey = "#5f6670", flat = Math.hypot(a, b) < 0.05;
  const reflect = ([p, q]) => ([x, y]) => { // x - 2 (v·x) v / |v|²; a vector of length zero reflects nothing
    const share = flat ? 0 : 2 * (p * x + q * y) / (p * p + q * q);
    return [x - share * p, y - share * q];
  };
  const angle = turn * Math.PI / 180, next = [a * Math.cos(angle) - b * Math.sin(angle), a * Math.sin(angle) + b * Math.cos(angle)];
  const first = reflect([a, b]), second = reflect(next), image = mirrors == 2 ? point => second(first(point)) : first;
  const kept = (mirrors == 2) || flat, colour = kept ? blue : purple;
  const outline = [[0.7, 0.5], [1.0, 0.5], [1.0, 1.1], [1.5, 1.1], [1.5, 1.4], [1.0, 1.4], [1.0, 1.8], [1.8, 1.8], [1.8, 2.1], [0.7, 2.1]];

  for (const k of [-3, -2, -1, 0, 1, 2, 3]) {
    const style = { stroke: k ? "#e4e7eb" : "#b9c0c8", "stroke-width": 1 };
    pen.line([at([k, -3.3]), at([k, 3.3])], style);
    pen.line([at([-3.3, k]), at([3.3, k])], style);
  }
  const mirror = ([p, q], style) => {
    const size = Math.hypot(p, q), ends = [-1, 1].map(side => at([-3.2 * side * q / size, 3.2 * side * p / size]));
    pen.line(ends, { stroke: grey, ...style });
  };
  if (!flat) {
    mirror([a, b], { "stroke-width": 4 });
    if (mirrors == 2) mirror(next, { "stroke-width": 3, "stroke-dasharray": "10 5" });
  }
  for (const point of points) {
    const goal = image(point);
    if (mirrors == 1) pen.line([at(point), at(goal)], { stroke: "#b9c0c8", "stroke-width": 1 });
    pen.line([at(point), at(point)], { stroke: red, "stroke-width": 6, "stroke-linecap": "round" });
    pen.line([at(goal), at(goal)], { stroke: colour, "stroke-width": 6, "stroke-linecap": "round" });
  }
  if (mirrors == 2) pen.area(outline.map(first).map(at), { fill: purple, "fill-opacity": 0.18 });
  pen.area(outline.map(at), { fill: red, "fill-opacity": 0.55 });
  pen.area(outline.map(image).map(at), { fill: colour, "fill-opacity": 0.65 });

  const tip = at([a, b]);
  pen.line([at([0, 0]), tip], { "stroke-width": 4 });
  // a large round dot, which a finger can drag without moving the page
  pen.line([tip, tip], { "stroke-width": 18, "stroke-linecap": "round", style: "cursor: grab", ontouchstart: "event.preventDefault()" });
  pen.text(tip[0] + 18, tip[1] - 10, "v", { "font-weight": 600, "font-size": 16 });
  pen.drag((x, y) => ({ "v₁": across.inverse(x), "v₂": up.inverse(y) }));

  const n = (v, digits = 2) => (Math.abs(v) < 0.5 * 10 ** -digits ? 0 : v).toFixed(digits).replace("-", "−");
  const area = shape => shape.reduce((sum, [x, y], i) => {
    const [u, v] = shape[(i + 1) % shape.length];
    return sum + (x * v - y * u) / 2;
  }, 0);
  const [before, after] = [outline, outline.map(image)], z = before[0], x = after[0];
  const start = `v = (${n(a, 1)}, ${n(b, 1)}), ` + (flat ? "too short to give a direction: nothing is reflected. "
    : mirrors == 1 ? `and the mirror at right angles to it; a second one, ${turn} degrees further, is not used. `
      : `then a second mirror, ${turn} degrees further. Together they rotate by ${2 * turn} degrees. `);
  return start + `The corner z = (${n(z[0])}, ${n(z[1])}) of the letter goes to x = (${n(x[0])}, ${n(x[1])}); its length is ${n(Math.hypot(...z))} before and `
    + `${n(Math.hypot(...x))} after. Signed area of the letter: ${n(area(before))} before, ${n(area(after))} after.`;
}
