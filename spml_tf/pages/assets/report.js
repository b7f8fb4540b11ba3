// Tables: a button in a column's head sorts by it; cells without a number come last.
const cellKey = (row, column, numeric) => {
  const cell = row.cells[column];
  if (!numeric) return cell.textContent;
  return cell.dataset.value === undefined ? NaN : Number(cell.dataset.value);
};
const compareRows = (column, numeric, sign) => (one, two) => {
  const [a, b] = [cellKey(one, column, numeric), cellKey(two, column, numeric)];
  if (!numeric) return sign * a.localeCompare(b, undefined, { numeric: true });
  if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
  return sign * (a - b);
};
const sortTable = (table, head) => {
  const numeric = head.classList.contains("number");
  const before = head.getAttribute("aria-sort");
  const first = numeric ? "descending" : "ascending";
  const second = numeric ? "ascending" : "descending";
  const order = before === first ? second : first;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  const rows = [...table.tBodies[0].rows];
  rows.sort(compareRows(head.cellIndex, numeric, order === "ascending" ? 1 : -1));
  table.tBodies[0].append(...rows);
};
for (const button of document.querySelectorAll("table.sortable th button")) {
  const head = button.closest("th");
  button.addEventListener("click", () => sortTable(head.closest("table"), head));
}

// Curves: the values of the epoch that is pointed at, or reached with the arrow keys.
const charts = read("chart-data");
for (const figure of document.querySelectorAll("[data-chart]")) {
  const chart = charts[Number(figure.dataset.chart)];
  const drawing = figure.querySelector("svg[role=img]");
  const pointer = figure.querySelector(".pointer");
  const reading = figure.querySelector(".reading");
  let at = chart.epochs.length - 1;
  const show = (position) => {
    at = Math.max(0, Math.min(chart.epochs.length - 1, position));
    const { from, to } = pointer.dataset;
    pointer.setAttribute("d", `M${chart.x[at]} ${from}V${to}`);
    const values = chart.series.map(
      ({ name, values }) => `${name} ${values[at] === null ? "\u2013" : values[at].toPrecision(4)}`,
    );
    reading.textContent = `Epoch ${chart.epochs[at]}: ${values.join(", ")}`;
  };
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * drawing.viewBox.baseVal.width;
    const away = chart.x.map((place) => Math.abs(place - x));
    show(away.indexOf(Math.min(...away)));
  });
  drawing.addEventListener("focus", () => show(at));
  drawing.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    show(at + step);
  });
}

// The gallery's class, and which of its photos are shown.
const controls = {
  label: document.getElementById("class"),
  photos: document.getElementById("photos"),
};
const galleryCards = cards.filter((card) => card.closest("#gallery"));
const filterCards = () => {
  const label = Number(controls.label.value);
  controls.photos.disabled = label < 0;
  let visible = 0;
  for (const card of galleryCards) {
    const labelled = gallery.photos[Number(card.dataset.photo)].labelled.includes(label);
    const wanted = { all: true, labelled, others: !labelled }[controls.photos.value];
    card.hidden = label >= 0 && !wanted;
    visible += !card.hidden;
  }
  document.getElementById("count").textContent = `${visible} of ${galleryCards.length} photos`;
};
const chooseClass = () => {
  for (const card of galleryCards) {
    const label = Number(controls.label.value);
    card.dataset.shown = label === -1 ? card.dataset.best : label;
  }
  filterCards();
  galleryCards.forEach(drawCard);
};
if (controls.label) {
  controls.label.addEventListener("change", chooseClass);
  controls.photos.addEventListener("change", filterCards);
  for (const chip of document.querySelectorAll(".chips button")) {
    chip.addEventListener("click", () => {
      const card = chip.closest(".card");
      card.dataset.shown = chip.dataset.label;
      drawCard(card);
    });
  }
  chooseClass();
}
drawAll();
