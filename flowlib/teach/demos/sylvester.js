// One Sylvester layer with M = D = 2: x = z + Q R tanh(R~ Q'z). A grid along the columns of Q is pushed along both of them at
// once and shaded by the density of x; where the determinant is negative, the sheet is turned over.
(pen, values) => {
  const [degrees, p1, p2, above] = Object.values(values); // r_ii with r~_ii = 1, and both entries above the diagonals
  const cos = Math.cos(degrees * Math.PI / 180), sin = Math.sin(degrees * Math.PI / 180);
  const layer = (v1, v2) => { // v = Q'z
    const h1 = Math.tanh(v1 + above * v2), h2 = Math.tanh(v2);
    const y1 = v1 + p1 * h1 + above * h2, y2 = v2 + p2 * h2;
    return { x: [cos * y1 - sin * y2, sin * y1 + cos * y2], det: (1 + p1 * (1 - h1 * h1)) * (1 + p2 * (1 - h2 * h2)) };
  };
  const across = pen.scale([-7, 7], [4, 396]), up = pen.scale([-7, 7], [396, 4]), at = ([x, y]) => [across(x), up(y)];
  const n = 24, v = i => -3 + 6 * i / n, all = Array.from({ length: n + 1 }, (_, i) => i);
  const nodes = all.map(i => all.map(j => layer(v(i), v(j))));

  for (const i of all.slice(0, n)) for (const j of all.slice(0, n)) {
    const { det } = layer(v(i + 0.5), v(j + 0.5));
    const density = Math.exp(-(v(i + 0.5) ** 2 + v(j + 0.5) ** 2) / 2) / (2 * Math.PI) / Math.max(Math.abs(det), 0.02);
    const corners = [nodes[i][j], nodes[i + 1][j], nodes[i + 1][j + 1], nodes[i][j + 1]].map(node => at(node.x));
    pen.area(corners, { fill: det < 0 ? "#a2447a" : "#0072b2", "fill-opacity": Math.min(0.85, 3.5 * density).toFixed(3) });
  }
  for (const i of all.filter(i => i % 2 == 0)) {
    pen.line(nodes[i].map(node => at(node.x)), { stroke: "#5f6670", "stroke-width": 0.9 });
    pen.line(nodes.map(row => at(row[i].x)), { stroke: "#5f6670", "stroke-width": 0.9 });
  }
  [["q₁", cos, sin], ["q₂", -sin, cos]].forEach(([name, x, y]) => {
    pen.line([at([0, 0]), at([1.6 * x, 1.6 * y])], { stroke: "#d55e00", "stroke-width": 3 });
    pen.text(across(2.1 * x), up(2.1 * y) + 5, name, { fill: "#b04a00", "font-weight": 600, stroke: "#fff", "stroke-width": 3, "paint-order": "stroke" });
  });

  const dets = nodes.flat().map(node => node.det), number = d => (Math.abs(d) < 0.005 ? 0 : d).toFixed(2).replace("-", "−");
  const least = Math.min(p1, p2);
  return `The determinant on the grid lies between ${number(Math.min(...dets))} and ${number(Math.max(...dets))}. ` + (
    least < -1 ? "A product is below −1: the sheet is folded, and some x have several latents."
    : least == -1 ? "A product is −1: the sheet is creased, its determinant reaches 0."
    : "Both products are above −1: every x has exactly one latent.");
}
