
// What is to be expected of the review: from the scores, and from the pace so far.
const NEXT = 20;
const PAUSE = 60000; // milliseconds without a decision after which the reviewer was away
const isMissing = (card) => card.closest("section").id === "missing";
const chance = (card) => {
  const score = Number(card.querySelector(".review").dataset.score);
  return isMissing(card) ? score : 1 - score;
};
const isFix = (card, label) => label === (isMissing(card) ? "1" : "0");
const percent = (share) => `${Math.round(100 * share)}%`;

const pace = { last: null, time: 0, steps: 0 };
const notePace = () => {
  const now = Date.now();
  if (pace.last !== null && now - pace.last < PAUSE) {
    pace.time += now - pace.last;
    pace.steps += 1;
  }
  pace.last = now;
};
const estimate = () => {
  const open = cards.filter((card) => !card.hidden && !isDecided(reviewOf(card))).slice(0, NEXT);
  const done = cards.filter((card) => isDecided(reviewOf(card)));
  const fixed = done.filter((card) => isFix(card, decisionOf(reviewOf(card)))).length;
  const parts = done.length ? [`Of ${done.length} decided, ${fixed} changed a label.`] : [];
  if (!open.length) return parts.join(" ");
  const share = open.reduce((sum, card) => sum + chance(card), 0) / open.length;
  parts.push(`Of the next ${open.length}, ${percent(share)} are expected to change a label, by their scores`);
  if (!pace.steps) return `${parts.join(" ")}.`;
  const each = Math.max(pace.time / pace.steps, 1);
  const hourly = Math.round((3600000 / each) * share);
  return `${parts.join(" ")}; at ${(each / 1000).toFixed(1)} s each that is ${hourly} labels fixed an hour.`;
};
