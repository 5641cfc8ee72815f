// Displayed formulas that are wider than the column become smaller, down to two thirds; what is wider still can be
// scrolled. Browsers may round the unit (ex) that formulas are measured in, hence some rounds, each of which first looks
// at all and then changes all. Formulas in folded proofs follow when they are unfolded.
window.addEventListener("load", () => {
  const least = 0.66, rounds = 5;
  const fit = inside => {
    let formulas = [...inside.querySelectorAll('mjx-container[display="true"]')].map(box => ({ box, share: 1 }));
    formulas.forEach(({ box }) => box.style.removeProperty("font-size"));
    formulas.forEach(f => { f.full = parseFloat(getComputedStyle(f.box).fontSize); });
    for (let round = 0; round < rounds; round++) {
      formulas.forEach(f => { f.ratio = f.box.clientWidth / f.box.querySelector("svg").getBoundingClientRect().width; });
      formulas = formulas.filter(f => f.ratio > 0 && f.ratio < 1 && f.share > least);
      formulas.forEach(f => {
        f.share = Math.max(least, 0.98 * f.share * f.ratio);
        f.box.style.setProperty("font-size", `${f.share * f.full}px`, "important");
      });
    }
  };
  (window.MathJax?.startup?.promise ?? Promise.resolve()).then(() => fit(document));
  window.addEventListener("resize", () => fit(document));
  document.addEventListener("toggle", event => fit(event.target), true);
});
