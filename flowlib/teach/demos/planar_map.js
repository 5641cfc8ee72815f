// A grid and the points of a cloud, pushed by one planar map x = z + u tanh(w·z + b). The dashed line w·z + b = 0 stays where
// it is; the tip of u can be dragged. Where w·u < -1 the determinant is negative in a band around the line: there space is
// turned over, and the violet band is covered three times.
(pen, { "direction of w, degrees": degrees, "length of w": length, "u₁": u1, "u₂": u2, b, "push along": use }, { points }) => {
  const n = [Math.cos(degrees * Math.PI / 180), Math.sin(degrees * Math.PI / 180)]; // w / |w|
  const given = length * (n[0] * u1 + n[1] * u2), corrected = use !== "u as it is";
  const c = corrected ? Math.log(1 + Math.exp(given)) - 1 : given; // w·u, after the correction
  const u = [u1, u2].map((v, i) => v + (c - given) / length * n[i]);
  const f = ([x, y]) => {
    const h = Math.tanh(length * (n[0] * x + n[1] * y) + b);
    return [x + u[0] * h, y + u[1] * h];
  };
  const across = pen.scale([-3.3, 3.3], [5, 395]), up = pen.scale([-3.3, 3.3], [395, 5]);
  const at = ([x, y]) => [across(x), up(y)], image = z => at(f(z));
  const along = (s, t) => [s * n[0] - t * n[1], s * n[1] + t * n[0]]; // s along w, t beside it
  const s0 = -b / length, red = "#d55e00", blue = "#0072b2", violet = "#a2447a";

  const grid = Array.from({ length: 21 }, (_, i) => -2.5 + i / 4), fine = Array.from({ length: 101 }, (_, i) => -2.5 + i / 20);
  for (const v of grid) {
    pen.line(fine.map(t => image([v, t])), { stroke: blue, "stroke-width": 0.9 });
    pen.line(fine.map(t => image([t, v])), { stroke: blue, "stroke-width": 0.9 });
  }
  if (c < -1) { // the determinant vanishes where cosh²(a) = -c
    const a = Math.acosh(Math.sqrt(-c)) / length;
    pen.area([along(s0 - a, -9), along(s0 - a, 9), along(s0 + a, 9), along(s0 + a, -9)].map(image), { fill: violet, "fill-opacity": 0.35 });
  }
  for (const z of points) pen.line([image(z), image(z)], { stroke: "#1f2328", "stroke-width": 3, "stroke-linecap": "round" });
  pen.line([at(along(s0, -9)), at(along(s0, 9))], { stroke: "#5f6670", "stroke-dasharray": "6 4" });
  const foot = along(s0, 0), tip = [foot[0] + u[0], foot[1] + u[1]], handle = [foot[0] + u1, foot[1] + u2];
  pen.line([at(foot), at(along(s0 + length / 3, 0))], { stroke: "#5f6670", "stroke-width": 4 });
  pen.text(...at(along(s0 + length / 3 + 0.2, 0)), "w", { "font-weight": 600 });
  pen.line([at(foot), at(tip)], { stroke: red, "stroke-width": 4 });
  // a large round dot, which a finger can drag without moving the page
  pen.line([at(handle), at(handle)], { stroke: red, "stroke-width": 18, "stroke-linecap": "round", style: "cursor: grab", ontouchstart: "event.preventDefault()" });
  pen.text(across(handle[0]) + 18, up(handle[1]) + 5, "u", { "font-weight": 600, "text-anchor": "start" });
  if (corrected) pen.text(across(tip[0]), up(tip[1]) - 8, "û", { "font-weight": 600, fill: "#b04a00" });
  pen.drag((x, y) => ({ "u₁": across.inverse(x) - foot[0], "u₂": up.inverse(y) - foot[1] }));

  // a small square on the line, measured around the corners of its image
  const side = 1e-3, corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([s, t]) => f(along(s0 + s * side, t * side)));
  const area = corners.reduce((sum, [x, y], i) => sum + (x * corners[(i + 1) % 4][1] - y * corners[(i + 1) % 4][0]) / 2, 0) / (4 * side * side);
  const number = v => (Math.abs(v) < 0.005 ? 0 : v).toFixed(2).replace("-", "−");
  return `w·u = ${number(given)}${corrected ? `, corrected to w·û = ${number(c)}` : ""}. On the line the signed area of a small square is multiplied by ${number(area)}, far from it by 1.00. `
    + (Math.abs(area) < 0.005 ? "On the line space is crushed: no density there."
      : area < 0 ? "Space is folded: each point of the violet band has three originals, so the map cannot be undone."
        : "Nothing folds: every point has one original.");
}
