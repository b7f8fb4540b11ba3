
// Cards to decide.
const reviewOf = (card) => card.querySelector(".review");
const nameOf = (card) => JSON.stringify([reviewOf(card).dataset.image, reviewOf(card).dataset.class]);
const sectionOf = (card) => card.closest("section");
const byId = (id) => document.getElementById(id);

const controls = { label: byId("class"), which: byId("which"), order: byId("order") };
const count = () => {
  const shown = cards.filter((card) => !card.hidden).length;
  const decided = cards.filter((card) => decisions.has(nameOf(card))).length;
  byId("count").textContent = `${decided} of ${cards.length} decided, ${shown} shown`;
  byId("undo").disabled = !changes.length;
  byId("estimate").textContent = estimate();
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

// By score; a label of each class in turn; or by what a label adds to the sum over classes of
// log(positives), those before it in its class counted by their chances. Sections stay apart.
const scoreOrder = [...cards];
const POSITIVES = read("audit-data").positives;
const arrange = () => {
  const seen = new Map();
  const turns = new Map();
  for (const card of scoreOrder) {
    const group = `${sectionOf(card).id} ${card.dataset.shown}`;
    const { turn, total } = seen.get(group) ?? { turn: 0, total: POSITIVES[card.dataset.shown] || 1 };
    const gain = Math.log1p(chance(card) / total);
    turns.set(card, { score: 0, classes: turn, gain: -gain }[controls.order.value]);
    seen.set(group, { turn: turn + 1, total: total + chance(card) });
  }
  const sections = [...new Set(scoreOrder.map(sectionOf))];
  const places = new Map(scoreOrder.map((card, place) => [card, place]));
  const rank = (card) => [sections.indexOf(sectionOf(card)), turns.get(card), places.get(card)];
  cards.sort((one, two) => {
    const [a, b] = [rank(one), rank(two)];
    return a[0] - b[0] || a[1] - b[1] || a[2] - b[2];
  });
  cards.forEach((card) => card.parentElement.append(card));
  count();
};

const mark = (card) => {
  const decision = decisions.get(nameOf(card));
  if (decision === undefined) delete card.dataset.decided;
  else card.dataset.decided = decision;
  card.toggleAttribute("data-unsaved", isUnsaved(nameOf(card)));
  for (const button of card.querySelectorAll(".review button")) {
    button.setAttribute("aria-pressed", String(button.dataset.decision === decision));
  }
};
// What was before each change, the last one at the end.
const changes = [];
const set = (card, decision) => {
  const name = nameOf(card);
  if (decision === undefined) decisions.delete(name);
  else decisions.set(name, decision);
  keep(name);
  mark(card);
};
const decide = (card, decision) => {
  const before = decisions.get(nameOf(card));
  if (decision === before) return;
  changes.push([card, before]);
  set(card, decision);
  if (decision !== undefined) notePace();
  count();
};
const undo = () => {
  if (!changes.length) return;
  const [card, before] = changes.pop();
  set(card, before);
  card.hidden = false;
  focusOn(card);
  count();
};

const focusOn = (card) => {
  reviewOf(card).querySelector("button").focus();
  card.scrollIntoView({ block: "nearest" });
};
const zoom = (card) => {
  for (const other of cards) other.classList.toggle("zoomed", other === card);
  const photo = card?.querySelector("img");
  card?.style.setProperty("--ratio", photo.naturalWidth / photo.naturalHeight);
  card?.scrollIntoView({ block: "nearest" });
};
const isZoomed = (card) => card.classList.contains("zoomed");
const move = (card, step) => {
  const shown = cards.filter((other) => !other.hidden);
  const next = shown[shown.indexOf(card) + step];
  if (!next) return;
  if (isZoomed(card)) zoom(next);
  focusOn(next);
};
whenSaved = (name) => cards.filter((card) => nameOf(card) === name).forEach(mark);
const KEYS = { p: "1", a: "0", u: undefined };
const STEPS = { arrowright: 1, arrowdown: 1, arrowleft: -1, arrowup: -1 };
for (const card of cards) {
  mark(card);
  card.querySelector(".stage").addEventListener("click", () => {
    zoom(isZoomed(card) ? null : card);
    focusOn(card); // the keys are those of the card that has the focus
  });
  for (const button of card.querySelectorAll(".review button")) {
    const pressed = () => button.getAttribute("aria-pressed") === "true";
    button.addEventListener("click", () => decide(card, pressed() ? undefined : button.dataset.decision));
  }
  card.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    if (key !== "z" && !(key in KEYS || key in STEPS)) return;
    event.preventDefault();
    if (event.repeat && !(key in STEPS)) return; // a key held down decides one photo
    if (key === "z") {
      zoom(isZoomed(card) ? null : card);
      return;
    }
    if (key in KEYS) decide(card, KEYS[key]);
    move(card, STEPS[key] ?? 1);
  });
}

// The photos alone while H is held.
const hideMaps = (hidden) => document.body.classList.toggle("photos-alone", hidden);
document.addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase();
  if ((event.ctrlKey || event.metaKey) && key === "z" && !event.shiftKey) {
    event.preventDefault();
    undo();
  } else if (key === "h" && !event.ctrlKey && !event.metaKey && event.target.tagName !== "SELECT") {
    hideMaps(true);
  }
});
document.addEventListener("keyup", (event) => event.key.toLowerCase() === "h" && hideMaps(false));
window.addEventListener("blur", () => hideMaps(false));

byId("undo").addEventListener("click", undo);
byId("save").addEventListener("click", () => {
  const rows = cards
    .filter((card) => decisions.has(nameOf(card)))
    .map((card) => [...JSON.parse(nameOf(card)), decisions.get(nameOf(card))]);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([written([COLUMNS, ...rows])], { type: "text/csv" }));
  link.download = "reviewed.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});
// Takes over what a file decides and this page does not; says what became of the rest.
const load = (found) => {
  const onPage = new Map(cards.map((card) => [nameOf(card), card]));
  const said = { taken: 0, "as here": 0, "decided otherwise here, kept": 0, "not on this page": 0 };
  for (const [name, label] of found) {
    const here = decisions.get(name);
    if (!onPage.has(name)) said["not on this page"] += 1;
    else if (here === undefined) {
      said.taken += 1;
      changes.push([onPage.get(name), here]);
      set(onPage.get(name), label);
    } else said[here === label ? "as here" : "decided otherwise here, kept"] += 1;
  }
  filter();
  return Object.entries(said).filter(([, n]) => n).map(([what, n]) => `${n} ${what}`).join(", ");
};
byId("load").addEventListener("change", async ({ target }) => {
  const [file] = target.files;
  if (!file) return;
  try {
    byId("loaded").textContent = `${file.name}: ${load(decided(await file.text())) || "no decision"}`;
  } catch (error) {
    byId("loaded").textContent = `${file.name}: ${error.message}`;
  }
  target.value = "";
});
controls.label.addEventListener("change", filter);
controls.which.addEventListener("change", filter);
controls.order.addEventListener("change", arrange);
filter();
drawAll();
