// Small repairs of the theme's markup that axe-core reports (labels that differ from the visible text, a logo outside of
// every landmark, lists with the wrong roles, and what scrolls sideways but cannot be reached by keyboard).
document.addEventListener("DOMContentLoaded", () => {
  const each = (selector, change) => document.querySelectorAll(selector).forEach(change);
  each(".search-button-field, details.hide > summary[aria-label]", e => e.removeAttribute("aria-label"));
  each(".bd-sidebar-primary", e => { e.setAttribute("role", "navigation"); e.setAttribute("aria-label", "Book"); });
  each('.citation-list [role="doc-biblioentry"]', e => e.setAttribute("role", "listitem"));
  const reachable = () => each('mjx-container[display="true"], div.highlight pre, div.cell_output, div.pst-scrollable-table-container', e => {
    if (e.scrollWidth > e.clientWidth) e.tabIndex = 0;
  });
  window.addEventListener("load", () => setTimeout(reachable, 500));
  window.addEventListener("resize", reachable);
});
