
// Decisions: on the disk of the server that the page comes from, or, of a page in a file, kept by
// this browser under the data's fingerprint where it allows that.
const served = document.getElementById("review-server") && read("review-server");
const KEY = `spml_tf review ${read("audit-data").key}`;
const RETRY_AFTER = 2000; // milliseconds
const inBrowser = () => {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {
    return {};
  }
};
const onDisk = () => served.decisions.map(([image, name, label]) => [JSON.stringify([image, name]), label]);
const decisions = new Map(served ? onDisk() : Object.entries(inBrowser()));

const saved = document.getElementById("saved");
const tell = (text, isProblem = false) => {
  saved.textContent = text;
  saved.classList.toggle("problem", isProblem);
};
// What the server has not confirmed yet: the latest label, "" for none, by image and class.
const pending = new Map();
// Those that it will never take, such as a label that a newer audit does not list, and why.
const refused = new Map();
const isUnsaved = (name) => pending.has(name) || refused.has(name);
let whenSaved = () => {};
const tellSaved = (problem = "") => {
  const open = pending.size + refused.size;
  const why = problem || refused.values().next().value;
  if (!open) tell(`All is saved in ${served.file}.`);
  else if (!why) tell(`Saving ${open} ...`);
  else tell(`${open} NOT SAVED: ${why}. "Save reviewed.csv" keeps all decisions.`, true);
};
const post = ([name, label]) => {
  const [image, className] = JSON.parse(name);
  return fetch("decision", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ image, class: className, label }),
    keepalive: true,
  });
};
// Why a decision is not on the disk, "" once it is; and whether another one may be taken.
const BAD_REQUEST = 400;
const problemOf = async (decision) => {
  try {
    const answer = await post(decision);
    return { problem: answer.ok ? "" : await answer.text(), isOfThisOne: answer.status === BAD_REQUEST };
  } catch {
    return { problem: "the server does not answer", isOfThisOne: false };
  }
};
let sending = false;
const send = async () => {
  if (sending) return;
  sending = true;
  let problem = "";
  while (pending.size && !problem) {
    const [name, label] = pending.entries().next().value;
    const found = await problemOf([name, label]);
    if (!found.isOfThisOne) problem = found.problem;
    if (!problem && pending.get(name) === label) {
      pending.delete(name);
      if (found.isOfThisOne) refused.set(name, found.problem);
      whenSaved(name);
    }
    tellSaved(problem);
  }
  sending = false;
  if (problem) setTimeout(send, RETRY_AFTER);
};

// The page may be open twice: what the other one keeps stays.
const keepInBrowser = (names) => {
  try {
    const kept = inBrowser();
    for (const name of names) {
      if (decisions.has(name)) kept[name] = decisions.get(name);
      else delete kept[name];
    }
    localStorage.setItem(KEY, JSON.stringify(kept));
    tell("This browser remembers what you decide.");
  } catch {
    tell("This browser remembers nothing: save before you close the page.", true);
  }
};
// Call it after each change of `decisions`, with the keys that changed.
const keep = (names) => {
  if (!served) {
    keepInBrowser(names);
    return;
  }
  for (const name of names) {
    refused.delete(name);
    pending.set(name, decisions.get(name) ?? "");
  }
  tellSaved();
  send();
};
if (served) {
  tellSaved();
  window.addEventListener("pagehide", () => [...pending].forEach((decision) => post(decision).catch(() => {})));
  window.addEventListener("beforeunload", (event) => {
    if (pending.size + refused.size) event.preventDefault();
  });
} else keepInBrowser([]);
