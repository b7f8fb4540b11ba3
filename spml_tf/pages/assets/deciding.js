
// Labels to decide: each is an image and a class with two buttons, in the card of its photo.
const byId = (id) => document.getElementById(id);
const labels = [...document.querySelectorAll(".review")];
const labelsOf = (card) => [...card.querySelectorAll(".review")];
const cardOf = (label) => label.closest(".card");
const names = new Map(
  labels.map((label) => [label, JSON.stringify([label.dataset.image, label.dataset.class])]),
);
const nameOf = (label) => names.get(label);
const labelsNamed = new Map();
for (const label of labels) {
  labelsNamed.set(nameOf(label), [...(labelsNamed.get(nameOf(label)) ?? []), label]);
}
const decisionOf = (label) => decisions.get(nameOf(label));
const isDecided = (label) => decisions.has(nameOf(label));

// A card is decided when all of its labels are.
const markCard = (card) => {
  const found = labelsOf(card);
  if (!found.every(isDecided)) delete card.dataset.decided;
  else card.dataset.decided = found.length === 1 ? decisionOf(found[0]) : "all";
  card.toggleAttribute("data-unsaved", found.some((label) => isUnsaved(nameOf(label))));
};
const mark = (found) => {
  for (const label of found) {
    for (const button of label.querySelectorAll("[data-decision]")) {
      button.setAttribute("aria-pressed", String(button.dataset.decision === decisionOf(label)));
    }
  }
  new Set(found.map(cardOf)).forEach(markCard);
};
// What was before each step, the last one at the end: labels and their decisions.
const changes = [];
const set = (step) => {
  for (const [label, decision] of step) {
    if (decision === undefined) decisions.delete(nameOf(label));
    else decisions.set(nameOf(label), decision);
  }
  const changed = step.map(([label]) => label);
  keep(changed.map(nameOf));
  mark(changed);
};
// One step, which is undone at once: whether it changes anything.
const decide = (found, decision) => {
  const changed = found.filter((label) => decisionOf(label) !== decision);
  if (!changed.length) return false;
  changes.push(changed.map((label) => [label, decisionOf(label)]));
  set(changed.map((label) => [label, decision]));
  return true;
};
const undo = () => {
  if (!changes.length) return;
  const before = changes.pop();
  set(before);
  cardOf(before[0][0]).hidden = false;
  focusOn(before[0][0]);
  count();
};

const zoom = (card) => {
  for (const other of cards) other.classList.toggle("zoomed", other === card);
  const photo = card?.querySelector("img");
  card?.style.setProperty("--ratio", photo.naturalWidth / photo.naturalHeight);
  card?.scrollIntoView({ block: "nearest" });
};
const isZoomed = (card) => card.classList.contains("zoomed");
// What a press of one of a label's two buttons decides.
const pressed = (button) =>
  button.getAttribute("aria-pressed") === "true" ? undefined : button.dataset.decision;
const KEYS = { p: "1", a: "0", u: undefined };

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
  const rows = labels
    .filter(isDecided)
    .map((label) => [...JSON.parse(nameOf(label)), decisionOf(label)]);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([written([COLUMNS, ...rows])], { type: "text/csv" }));
  link.download = "reviewed.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});
// Takes over what a file decides and this page does not; says what became of the rest.
const load = (found) => {
  const said = { taken: 0, "as here": 0, "decided otherwise here, kept": 0, "not on this page": 0 };
  for (const [name, decision] of found) {
    const here = decisions.get(name);
    if (!labelsNamed.has(name)) said["not on this page"] += 1;
    else if (here === undefined) {
      said.taken += 1;
      decide([labelsNamed.get(name)[0]], decision);
    } else said[here === decision ? "as here" : "decided otherwise here, kept"] += 1;
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
whenSaved = (name) => mark(labelsNamed.get(name) ?? []);
mark(labels);
