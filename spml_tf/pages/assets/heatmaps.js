
// The gallery: photos with a heatmap over each.
const gallery = read("gallery-data");
const colours = bytes(gallery.colours);
const LONGEST = 288;
const drawBoxes = (context, boxes) => {
  const { width, height } = context.canvas;
  for (const [, y1, x1, y2, x2] of boxes) {
    const corners = [x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height];
    for (const [colour, thickness] of [["#000", 4], ["#fff", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = thickness;
      context.strokeRect(...corners);
    }
  }
};

const mapOf = (photo, label) => {
  const place = photo.classes.indexOf(label);
  const cells = photo.grid[0] * photo.grid[1];
  return place < 0 ? null : bytes(photo.maps).subarray(place * cells, (place + 1) * cells);
};

// Without photos there are no controls, and yet there may be labels to look at.
const opacityInput = document.getElementById("opacity");
const boxesInput = document.getElementById("boxes");
const opacity = () => Number(opacityInput?.value ?? 60) / 100;

const drawCard = (card) => {
  const photo = gallery.photos[Number(card.dataset.photo)];
  const canvas = card.querySelector("canvas");
  const label = Number(card.dataset.shown);
  const scale = LONGEST / Math.max(photo.size[0], photo.size[1]);
  canvas.height = Math.max(1, Math.round(photo.size[0] * scale));
  canvas.width = Math.max(1, Math.round(photo.size[1] * scale));
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  const shown = card.querySelector(".shown");
  for (const chip of card.querySelectorAll(".chips button")) {
    chip.setAttribute("aria-pressed", String(Number(chip.dataset.label) === label));
  }
  const map = label < 0 ? null : mapOf(photo, label);
  if (map) drawMap(context, map, photo.grid, opacity(), colours);
  if (boxesInput?.checked) {
    drawBoxes(context, photo.boxes.filter((box) => label < 0 || box[0] === label));
  }
  const name = gallery.classes[label];
  const words = map ? describeMap(name, map, photo.grid) : "No heatmap is shown.";
  canvas.setAttribute("aria-label", words);
  if (!shown) return;
  if (label < 0) shown.textContent = "Photo alone";
  else shown.textContent = `${name}: ${photo.scores[label].toFixed(2)}${map ? "" : ", no heatmap kept"}`;
};

const cards = [...document.querySelectorAll(".card")];
const drawAll = () => cards.forEach(drawCard);
opacityInput?.addEventListener("input", () => {
  document.getElementById("opacity-value").textContent = `${opacityInput.value}%`;
  drawAll();
});
boxesInput?.addEventListener("change", drawAll);
