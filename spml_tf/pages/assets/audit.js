
// Cards to decide.
const reviewOf = (card) => card.querySelector(".review");
const nameOf = (card) => JSON.stringify([reviewOf(card).dataset.image, reviewOf(card).dataset.class]);

const controls = { label: document.getElementById("class"), which: document.getElementById("which") };
const count = () => {
  const shown = cards.filter((card) => !card.hidden).length;
  const decided = cards.filter((card) => decisions.has(nameOf(card))).length;
  document.getElementById("count").textContent =
    `${decided} of ${cards.length} decided, ${shown} shown`;
};
const filter = () => {
  for (const card of cards) {
    const label = Number(controls.label.value);
    const open = !decisions.has(nameOf(card));
    const wanted = { all: true, open, decided: !open }[controls.which.value];
    card.hidden = !wanted || (label >= 0 && Number(card.dataset.shown) !== label);
  }
  count();
};
const mark = (card) => {
  const decision = decisions.get(nameOf(card));
  if (decision === undefined) delete card.dataset.decided;
  else card.dataset.decided = decision;
  card.toggleAttribute("data-unsaved", pending.has(nameOf(card)));
  for (const button of card.querySelectorAll(".review button")) {
    button.setAttribute("aria-pressed", String(button.dataset.decision === decision));
  }
};
const decide = (card, decision) => {
  const name = nameOf(card);
  if (decision === null) decisions.delete(name);
  else decisions.set(name, decision);
  keep(name);
  mark(card);
  count();
};
const move = (card, step) => {
  const shown = cards.filter((other) => !other.hidden);
  const next = shown[shown.indexOf(card) + step];
  if (!next) return;
  next.querySelector(".review button").focus();
  next.scrollIntoView({ block: "nearest" });
};
whenSaved = (name) => cards.filter((card) => nameOf(card) === name).forEach(mark);
const KEYS = { p: "1", a: "0", u: null };
for (const card of cards) {
  mark(card);
  for (const button of card.querySelectorAll(".review button")) {
    const pressed = () => button.getAttribute("aria-pressed") === "true";
    button.addEventListener("click", () => decide(card, pressed() ? null : button.dataset.decision));
  }
  card.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    const step = { arrowright: 1, arrowdown: 1, arrowleft: -1, arrowup: -1 }[key];
    if (!(key in KEYS) && step === undefined) return;
    event.preventDefault();
    if (step === undefined) decide(card, KEYS[key]);
    move(card, step ?? 1);
  });
}

const quoted = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
const table = () => {
  const rows = cards
    .filter((card) => decisions.has(nameOf(card)))
    .map((card) => [reviewOf(card).dataset.image, reviewOf(card).dataset.class, decisions.get(nameOf(card))]);
  return [["image", "class", "label"], ...rows].map((row) => row.map(quoted).join(",") + "\n").join("");
};
document.getElementById("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
  link.download = "reviewed.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});
controls.label.addEventListener("change", filter);
controls.which.addEventListener("change", filter);
filter();
drawAll();
