
// Photos to label in full: their cards, each with the labels that nobody has given.
const isDone = (card) => "decided" in card.dataset;
const count = () => {
  const done = cards.filter(isDone).length;
  const found = labels.filter(isDecided).length;
  byId("count").textContent =
    `${done} of ${cards.length} photos done, ${found} of ${labels.length} labels decided`;
  byId("undo").disabled = !changes.length;
};
const filter = () => {
  const which = byId("which").value;
  for (const card of cards) card.hidden = which !== "all" && isDone(card) !== (which === "decided");
  count();
};

// The heatmap is that of the label that has the focus.
const showMap = (label) => {
  const card = cardOf(label);
  if (card.dataset.shown === label.dataset.label) return;
  card.dataset.shown = label.dataset.label;
  drawCard(card);
};
const focusOn = (label) => {
  label.querySelector("button").focus({ preventScroll: true });
  label.scrollIntoView({ block: "nearest" });
  cardOf(label).scrollIntoView({ block: "nearest" });
};
const choose = (found, decision) => {
  if (decide(found, decision)) count();
};
// The next label of the photo, or the first one of the next photo that is shown.
const moveLabel = (label, step) => {
  const shown = labels.filter((other) => !cardOf(other).hidden);
  const next = shown[shown.indexOf(label) + step];
  if (!next) return;
  if (isZoomed(cardOf(label)) && cardOf(next) !== cardOf(label)) zoom(cardOf(next));
  focusOn(next);
};
const movePhoto = (card, step) => {
  const shown = cards.filter((other) => !other.hidden);
  const next = shown[shown.indexOf(card) + step];
  if (!next) return;
  if (isZoomed(card)) zoom(next);
  focusOn(labelsOf(next).find((label) => !isDecided(label)) ?? labelsOf(next)[0]);
};
const restAbsent = (card) => choose(labelsOf(card).filter((label) => !isDecided(label)), "0");

const LABEL_STEPS = { arrowdown: 1, arrowup: -1 };
const PHOTO_STEPS = { arrowright: 1, arrowleft: -1 };
for (const label of labels) {
  label.addEventListener("focusin", () => showMap(label));
  for (const button of label.querySelectorAll("button")) {
    button.addEventListener("click", () => choose([label], pressed(button)));
  }
}
for (const card of cards) {
  const rest = card.querySelector(".rest");
  rest.addEventListener("click", () => restAbsent(card));
  card.querySelector(".stage").addEventListener("click", () => {
    zoom(isZoomed(card) ? null : card);
    focusOn(labelsOf(card)[0]);
  });
  card.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    const label = event.target.closest(".review"); // none where the button below has the focus
    const isStep = key in LABEL_STEPS || key in PHOTO_STEPS;
    if (!(isStep || (label && key in KEYS) || key === "r" || key === "z")) return;
    event.preventDefault();
    if (event.repeat && !isStep) return; // a key held down decides one label
    if (key === "z") zoom(isZoomed(card) ? null : card);
    else if (key in PHOTO_STEPS) movePhoto(card, PHOTO_STEPS[key]);
    else if (key === "r") {
      restAbsent(card);
      movePhoto(card, 1);
    } else {
      if (key in KEYS) choose([label], KEYS[key]);
      moveLabel(label ?? labelsOf(card).at(-1), LABEL_STEPS[key] ?? 1);
    }
  });
}

byId("which").addEventListener("change", filter);
filter();
drawAll();
