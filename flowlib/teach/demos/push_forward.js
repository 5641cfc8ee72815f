// A density pushed forward by a map of one variable. Below: the base density of z. In the square: the map x = f(z). On the
// left: the density of x, p(z) / |f'(z)| at x = f(z). A strip of z is followed upwards to the map and left to its x values.
(pen, { base, map, "steepness a": a, "strip at z": z }) => {
  const maps = { // the map, its derivative, and the part of the x axis to show
    "x = a·z + 1": [z => a * z + 1, () => a, [-4, 6]],
    "x = exp(a·z)": [z => Math.exp(a * z), z => a * Math.exp(a * z), [-0.8, 8]],
    "x = exp(−a·z), decreasing": [z => Math.exp(-a * z), z => -a * Math.exp(-a * z), [-0.8, 8]],
    "x = a·z + z³/3": [z => a * z + z ** 3 / 3, z => a + z * z, [-5, 5]],
    "x = z/3 + a·tanh(2z)": [z => z / 3 + a * Math.tanh(2 * z), z => 1 / 3 + 2 * a / Math.cosh(2 * z) ** 2, [-3, 3]],
  };
  const bases = { // the density, and the interval that holds its probability
    "uniform on [0, 1]": [() => 1, [0, 1]],
    "standard Gaussian": [z => Math.exp(-z * z / 2) / Math.sqrt(2 * Math.PI), [-3, 3]],
  };
  const [f, slope, shown] = maps[map], [p, support] = bases[base], end = z + 0.2;
  const q = z => p(z) / Math.abs(slope(z)); // the density of x, at x = f(z)
  const grid = (from, to, n = 300) => Array.from({ length: n + 1 }, (_, i) => from + (to - from) * i / n);

  // the square, with the length 100 for density 1 below it and on its left; what leaves the drawing is cut off
  const left = 138, right = 392, top = 12, bottom = 268, red = "#d55e00", blue = "#0072b2", grey = "#5f6670";
  const across = pen.scale([-3, 3], [left, right]), up = pen.scale(shown, [bottom, top]);
  const high = z => Math.min(Math.max(up(f(z)), top), bottom);
  const below = (a, b) => [[across(a), bottom + 6], ...grid(a, b).map(z => [across(z), bottom + 6 + 100 * p(z)]),
    [across(b), bottom + 6]];
  const aside = (a, b) => [[left - 6, high(a)], ...grid(a, b).map(z => [Math.max(left - 6 - 100 * q(z), 2), high(z)]),
    [left - 6, high(b)]];

  const band = [[across(z), bottom], [across(z), high(z)], [left, high(z)], [left, high(end)], [across(end), high(end)],
    [across(end), bottom]];
  pen.area(band, { fill: grey, "fill-opacity": 0.18 });
  pen.area(below(...support), { fill: red, "fill-opacity": 0.2 });
  pen.area(aside(...support), { fill: blue, "fill-opacity": 0.2 });
  const part = [Math.max(z, support[0]), Math.min(end, support[1])]; // what of the strip holds probability
  const empty = part[0] >= part[1];
  if (!empty) {
    pen.area(below(...part), { fill: red });
    pen.area(aside(...part), { fill: blue });
  }
  pen.line(below(...support), { stroke: red, "stroke-width": 1.5 });
  pen.line(aside(...support), { stroke: blue, "stroke-width": 1.5 });
  pen.line([[left, top], [left, bottom], [right, bottom]], { stroke: grey, "stroke-width": 1 });
  const visible = grid(-3, 3).filter(z => f(z) >= shown[0] && f(z) <= shown[1]);
  pen.line(visible.map(z => [across(z), up(f(z))]), { stroke: grey, "stroke-width": 2.5 });

  const n = (v, digits = 2) => v.toFixed(digits).replace("-", "−");
  for (const t of grid(-2, 2, 4)) {
    pen.line([[across(t), bottom - 3], [across(t), bottom + 3]], { "stroke-width": 1 });
    pen.text(across(t), bottom - 7, n(t, 0), { "font-size": 11 });
  }
  for (const t of grid(-4, 8, 6).filter(t => t > shown[0] && t < shown[1])) {
    pen.line([[left - 3, up(t)], [left + 3, up(t)]], { "stroke-width": 1 });
    pen.text(left + 7, up(t) + 4, n(t, 0), { "font-size": 11, "text-anchor": "start" });
  }
  pen.text(right - 4, bottom - 7, "z");
  pen.text(left + 9, top + 6, "x");
  pen.text(left - 12, bottom + 40, "p(z)", { fill: "#b04a00", "text-anchor": "end" });
  pen.text(left - 60, top + 6, "p(x)", { fill: blue });
  pen.drag(x => ({ "strip at z": across.inverse(x) - 0.1 }));

  // probabilities as areas: trapezia under each of the two curves, so that their agreement is measured, not assumed
  const area = (x, y) => x.slice(1).reduce((sum, _, i) => sum + Math.abs(x[i + 1] - x[i]) * (y[i] + y[i + 1]) / 2, 0);
  const inside = empty ? [0] : grid(...part);
  const [from, to] = [f(z), f(end)].sort((u, v) => u - v);
  const before = area(inside, inside.map(p)), after = area(inside.map(f), inside.map(q));
  return `Base ${base}, map ${map} with a = ${n(a, 1)}. `
    + `The strip from z = ${n(z)} to ${n(end)} is ${n(end - z)} wide and holds probability ${n(before, 3)}. `
    + `Its image from x = ${n(from)} to ${n(to)} is ${n(to - from)} wide and holds ${n(after, 3)}.`;
}
