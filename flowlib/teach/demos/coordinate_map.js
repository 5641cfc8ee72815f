// An increasing map z = f(x) of one coordinate, in the square; left of it the density of z, below it that of x,
// p(x) = p(f(x)) f'(x). data.kind is "spline", two rational quadratic pieces that meet in a knot which can be dragged, or
// "mixture", the logit of the CDF of two logistics: there the mixture's own density is drawn too (dashed).
(pen, values, { kind }) => {
  const [u, v, w] = Object.values(values), spline = kind === "spline", { exp, log, min, max } = Math;
  const logistic = t => 1 / (exp(t / 2) + exp(-t / 2)) ** 2, gaussian = t => exp(-t * t / 2) / Math.sqrt(2 * Math.PI);

  const box = 3, ends = [[-box, -box, 1], [box, box, 1]]; // of the spline: x, z and slope
  const piece = x => {
    const [[x0, z0, d0], [x1, z1, d1]] = x < u ? [ends[0], [u, v, w]] : [[u, v, w], ends[1]];
    const t = (x - x0) / (x1 - x0), s = (z1 - z0) / (x1 - x0), below = s + (d0 + d1 - 2 * s) * t * (1 - t);
    return [z0 + (z1 - z0) * (s * t * t + d0 * t * (1 - t)) / below,
      s * s * (d1 * t * t + 2 * s * t * (1 - t) + d0 * (1 - t) ** 2) / below ** 2];
  };
  const parts = [[-u / 2, w], [u / 2, 1 - w]]; // of the mixture: mean and weight; v is the scale
  const sum = term => parts.reduce((all, [mean, weight]) => all + weight * term(mean), 0);
  const mixture = x => sum(mean => logistic((x - mean) / v) / v);
  const logit = x => {
    const [left, right] = [1, -1].map(side => sum(mean => 1 / (1 + exp(-side * (x - mean) / v)))); // F and 1 - F
    return [log(left / right), mixture(x) / left / right];
  };
  const f = spline ? x => Math.abs(x) >= box ? [x, 1] : piece(x) : logit;
  const base = !spline && values.base.startsWith("logistic") ? logistic : gaussian;
  const density = x => { const [z, slope] = f(x); return base(z) * slope; };

  const reach = spline ? 4 : 7, unit = spline ? 80 : 160, left = 92, right = 392, top = 8, bottom = 268;
  const across = pen.scale([-reach, reach], [left, right]), up = pen.scale([-reach, reach], [bottom, top]);
  const red = "#d55e00", blue = "#0072b2", grey = "#5f6670";
  const grid = Array.from({ length: 801 }, (_, i) => reach * (i / 400 - 1));
  const under = p => grid.map(x => [across(x), bottom + 6 + min(unit * p(x), 100)]);
  const aside = [[left - 6, bottom], ...grid.map(z => [left - 6 - 200 * base(z), up(z)]), [left - 6, top]];
  if (spline) pen.area([[-box, -box], [box, -box], [box, box], [-box, box]].map(([x, z]) => [across(x), up(z)]), { fill: "#f1f3f5" });
  pen.area([[left, bottom + 6], ...under(density), [right, bottom + 6]], { fill: blue, "fill-opacity": 0.2 });
  pen.area(aside, { fill: red, "fill-opacity": 0.2 });
  pen.line(under(density), { stroke: blue });
  pen.line(aside, { stroke: red, "stroke-width": 1.5 });
  if (!spline) pen.line(under(mixture), { "stroke-dasharray": "5 4", "stroke-width": 1.5 });
  pen.line([[left, top], [left, bottom], [right, bottom]], { stroke: grey, "stroke-width": 1 });
  pen.line(grid.map(x => [x, f(x)[0]]).filter(([, z]) => Math.abs(z) <= reach).map(([x, z]) => [across(x), up(z)]), { stroke: grey, "stroke-width": 2.5 });
  const number = (value, digits = 2) => value.toFixed(digits).replace("-", "−");
  for (const t of spline ? [-2, 0, 2] : [-4, 0, 4]) {
    pen.text(across(t), bottom - 5, number(t, 0), { "font-size": 11, fill: grey });
    pen.text(left + 6, up(t) + 4, number(t, 0), { "font-size": 11, fill: grey, "text-anchor": "start" });
  }
  [["x", right - 6, bottom - 5], ["z", left + 10, top + 10], ["p(z)", left - 30, top + 10, red], ["p(x)", right - 20, bottom + 24, blue]]
    .forEach(([words, x, y, fill = grey]) => pen.text(x, y, words, { fill, "font-weight": 600 }));
  if (spline) { // a large round dot, which a finger can drag without moving the page
    pen.line([[across(u), up(v)], [across(u), up(v)]], { stroke: grey, "stroke-width": 16, "stroke-linecap": "round", style: "cursor: grab", ontouchstart: "event.preventDefault()" });
    pen.drag((x, y) => ({ [Object.keys(values)[0]]: across.inverse(x), [Object.keys(values)[1]]: up.inverse(y) }));
  }

  const wide = Array.from({ length: 8001 }, (_, i) => 3 * reach * (i / 4000 - 1)), p = wide.map(density);
  const peaks = p.filter((_, i) => p[i] > p[i - 1] && p[i] >= p[i + 1]).length, high = max(...p);
  const area = p.reduce((all, value) => all + value, 0) * 3 * reach / 4000;
  return `The density of x has ${peaks === 1 ? "one peak" : `${peaks} peaks`}, at most ${number(high)}, at x = ${number(wide[p.indexOf(high)])}; its area is ${number(area, 3)}. `
    + (spline ? `At the knot the map takes x = ${number(u, 1)} to z = ${number(v, 1)} with slope ${number(w)}.`
      : `It differs from the mixture (dashed) by at most ${number(max(...wide.map((x, i) => Math.abs(p[i] - mixture(x)))), 3)}.`);
}
