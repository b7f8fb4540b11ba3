
// Decisions: on the disk of the server that the page comes from, or, of a page in a file, kept by
// this browser under the data's fingerprint where it allows that.
const served = document.getElementById("review-server") && read("review-server");
const KEY = `spml_tf review ${read("audit-data").key}`;
const RETRY_AFTER = 2000; // milliseconds
const remembered = () => {
  if (served) return served.decisions.map(([image, name, label]) => [JSON.stringify([image, name]), label]);
  try {
    return Object.entries(JSON.parse(localStorage.getItem(KEY)) ?? {});
  } catch {
    return [];
  }
};
const decisions = new Map(remembered());

const saved = document.getElementById("saved");
const tell = (text, isProblem = false) => {
  saved.textContent = text;
  saved.classList.toggle("problem", isProblem);
};
// What the server has not confirmed yet: the latest label, "" for none, by image and class.
const pending = new Map();
let whenSaved = () => {};
const tellSaved = (problem = "") => {
  if (!pending.size) tell(`All is saved in ${served.file}.`);
  else if (!problem) tell(`Saving ${pending.size} ...`);
  else tell(`${pending.size} NOT SAVED: ${problem}. "Save reviewed.csv" keeps all decisions.`, true);
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
// Empty once a decision is on the disk, else why it is not.
const problemOf = async (decision) => {
  try {
    const answer = await post(decision);
    return answer.ok ? "" : await answer.text();
  } catch {
    return "the server does not answer";
  }
};
let sending = false;
const send = async () => {
  if (sending) return;
  sending = true;
  let problem = "";
  while (pending.size && !problem) {
    const [name, label] = pending.entries().next().value;
    problem = await problemOf([name, label]);
    if (!problem && pending.get(name) === label) {
      pending.delete(name);
      whenSaved(name);
    }
    tellSaved(problem);
  }
  sending = false;
  if (problem) setTimeout(send, RETRY_AFTER);
};

const keepInBrowser = () => {
  try {
    localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(decisions)));
    tell("This browser remembers what you decide.");
  } catch {
    tell("This browser remembers nothing: save before you close the page.", true);
  }
};
// Call it after each change of `decisions`, with the key that changed.
const keep = (name) => {
  if (!served) {
    keepInBrowser();
    return;
  }
  pending.set(name, decisions.get(name) ?? "");
  tellSaved();
  send();
};
if (served) {
  tellSaved();
  window.addEventListener("pagehide", () => [...pending].forEach((decision) => post(decision).catch(() => {})));
  window.addEventListener("beforeunload", (event) => {
    if (pending.size) event.preventDefault();
  });
} else keepInBrowser();
