// What all demos share: read the controls, clear the drawing, let the demo draw, write its sentence. A demo draws with a pen:
//   pen.scale([a, b], [c, d])   the function that takes a to c and b to d, with .inverse
//   pen.line(points, style)     an open line through [x, y] points; style holds SVG attributes, such as { stroke: "red" }
//   pen.area(points, style)     the same, closed and filled
//   pen.text(x, y, words, style)
//   pen.drag((x, y, pressed) => values)  dragging on the drawing sets controls, such as { z: 0.3 }; pressed: a new drag starts here
function flowDemo(id, data, draw) {
  const root = document.getElementById(id), svg = root.querySelector("svg"), reading = root.querySelector("p");
  const controls = [...root.querySelectorAll("input, select")];
  const add = (tag, style, words = "") => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(style)) element.setAttribute(name, value);
    element.textContent = words;
    svg.append(element);
  };
  const path = points => "M" + points.map(p => p.map(v => v.toFixed(1)).join(" ")).join("L");
  let dragged = null;
  const pen = {
    scale([a, b], [c, d]) {
      const scale = v => c + (v - a) / (b - a) * (d - c);
      scale.inverse = v => a + (v - c) / (d - c) * (b - a);
      return scale;
    },
    line: (points, style) => add("path", { fill: "none", stroke: "#1f2328", "stroke-width": 2, ...style, d: path(points) }),
    area: (points, style) => add("path", { stroke: "none", ...style, d: path(points) + "Z" }),
    text: (x, y, words, style) => add("text", { x, y, "font-size": 13, "text-anchor": "middle", fill: "#1f2328", ...style }, words),
    drag: set => { dragged = set; },
  };
  const render = () => {
    const values = {};
    for (const control of controls) {
      const number = control.type === "range";
      values[control.name] = number ? Number(control.value) : control.value;
      if (number) control.nextElementSibling.textContent = values[control.name].toFixed((control.step.split(".")[1] ?? "").length);
    }
    svg.replaceChildren();
    const sentence = draw(pen, values, data);
    reading.textContent = sentence;
    svg.setAttribute("aria-label", sentence);
  };
  const move = event => {
    if (!dragged || !event.buttons) return;
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    for (const [name, value] of Object.entries(dragged(at.x, at.y, event.type === "pointerdown"))) controls.find(control => control.name === name).value = value;
    render();
  };
  controls.forEach(control => control.addEventListener("input", render));
  svg.addEventListener("pointerdown", move);
  svg.addEventListener("pointermove", move);
  render();
}
