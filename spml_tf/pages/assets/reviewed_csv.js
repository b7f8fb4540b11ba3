
// reviewed.csv, written and read as spml_tf does: a cell that a spreadsheet may run as a formula has
// an apostrophe before it.
const COLUMNS = ["image", "class", "label"];
const FORMULA = /^'*[=+\-@\t\r\n]/;
const NUMBER = /^[-+]?((\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|inf|nan)$/;
const runs = (cell) => FORMULA.test(cell) && !NUMBER.test(cell);
const guarded = (cell) => (runs(cell) ? `'${cell}` : cell);
const bare = (cell) => (cell.startsWith("'") && runs(cell.slice(1)) ? cell.slice(1) : cell);
const quoted = (cell) => (/[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
const written = (rows) =>
  rows.map((row) => row.map((cell) => quoted(guarded(cell))).join(",") + "\n").join("");

const CELL = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n|\n|\r|$)/y;
const split = (text) => {
  const rows = [[]];
  CELL.lastIndex = text.startsWith("\ufeff") ? 1 : 0;
  while (CELL.lastIndex < text.length) {
    const found = CELL.exec(text);
    if (!found) throw new Error(`not valid CSV in row ${rows.length}`);
    rows.at(-1).push(bare(found[1]?.replaceAll('""', '"') ?? found[2]));
    if (found[3] === "," && CELL.lastIndex === text.length) rows.at(-1).push("");
    if (found[3] !== ",") rows.push([]);
  }
  return rows.filter((row) => row.length && (row.length > 1 || row[0]));
};
// What a file decides, by image and class; of a journal the last row of a label counts.
const decided = (text) => {
  const [header, ...rows] = split(text);
  const places = COLUMNS.map((name) => header?.indexOf(name) ?? -1);
  if (places.includes(-1)) throw new Error(`the first line must name ${COLUMNS.join(", ")}`);
  const isJournal = header.includes("decided_at");
  const found = new Map();
  rows.forEach((row, number) => {
    if (row.length !== header.length) throw new Error(`row ${number + 2} has ${row.length} cells`);
    const [image, className] = places.map((place) => row[place]); // names may begin with blanks
    const label = row[places[2]].trim();
    if (!["0", "1", ""].includes(label)) throw new Error(`the label in row ${number + 2} is no 1 or 0`);
    const name = JSON.stringify([image, className]);
    const before = isJournal ? "" : found.get(name) || label;
    if (!isJournal && label && before !== label) {
      throw new Error(`row ${number + 2} contradicts an earlier one`);
    }
    found.set(name, label || before);
  });
  return [...found].filter(([, label]) => label);
};
