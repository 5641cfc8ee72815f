// A form.table-filter above a table: rows that hold every typed word, and the chosen grade, stay. Without script the form is hidden
// and the table whole. The grade is the cell below the heading "grade".
document.addEventListener("DOMContentLoaded", () => document.querySelectorAll("form.table-filter").forEach(form => {
  const table = [...document.querySelectorAll("article table")].find(t => form.compareDocumentPosition(t) & Node.DOCUMENT_POSITION_FOLLOWING);
  if (!table) return;
  const [words, grade, count] = [form.querySelector("input"), form.querySelector("select"), form.querySelector("output")];
  const column = [...table.tHead.rows[0].cells].findIndex(c => c.textContent.trim() === "grade");
  const rows = [...table.tBodies[0].rows].map(row => [row, row.textContent.toLowerCase(), row.cells[column].textContent.trim()]);
  const update = () => {
    const wanted = words.value.toLowerCase().split(/\s+/);
    rows.forEach(([row, text, of]) => { row.hidden = !(wanted.every(w => text.includes(w)) && (!grade.value || grade.value === of)); });
    count.textContent = `${rows.filter(([row]) => !row.hidden).length} of ${rows.length} notes`;
  };
  form.addEventListener("input", update);
  form.addEventListener("submit", event => event.preventDefault());
  form.hidden = false;
  update();
}));
