
// Cards to decide, one label each.
const reviewOf = (card) => card.querySelector(".review");
const sectionOf = (card) => card.closest("section");

const controls = { label: byId("class"), which: byId("which"), order: byId("order") };
const count = () => {
  const shown = cards.filter((card) => !card.hidden).length;
  byId("count").textContent = `${labels.filter(isDecided).length} of ${cards.length} decided, ${shown} shown`;
  byId("undo").disabled = !changes.length;
  byId("estimate").textContent = estimate();
};
const filter = () => {
  for (const card of cards) {
    const label = Number(controls.label.value);
    const open = !isDecided(reviewOf(card));
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

const focusOn = (label) => {
  label.querySelector("button").focus();
  cardOf(label).scrollIntoView({ block: "nearest" });
};
const choose = (card, decision) => {
  if (!decide([reviewOf(card)], decision)) return;
  if (decision !== undefined) notePace();
  count();
};
const move = (card, step) => {
  const shown = cards.filter((other) => !other.hidden);
  const next = shown[shown.indexOf(card) + step];
  if (!next) return;
  if (isZoomed(card)) zoom(next);
  focusOn(reviewOf(next));
};
const STEPS = { arrowright: 1, arrowdown: 1, arrowleft: -1, arrowup: -1 };
for (const card of cards) {
  card.querySelector(".stage").addEventListener("click", () => {
    zoom(isZoomed(card) ? null : card);
    focusOn(reviewOf(card)); // the keys are those of the card that has the focus
  });
  for (const button of card.querySelectorAll(".review button")) {
    button.addEventListener("click", () => choose(card, pressed(button)));
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
    if (key in KEYS) choose(card, KEYS[key]);
    move(card, STEPS[key] ?? 1);
  });
}

controls.label.addEventListener("change", filter);
controls.which.addEventListener("change", filter);
controls.order.addEventListener("change", arrange);
filter();
drawAll();
