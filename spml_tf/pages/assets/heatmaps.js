"use strict";
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

// Heatmaps over photos.
const gallery = read("gallery-data");
const colours = bytes(gallery.colours);
const LONGEST = 288;
// Two cells and the weight of the second for every pixel: linear between the cells' centres.
const interpolation = (cells, pixels) =>
  Array.from({ length: pixels }, (_, pixel) => {
    const place = Math.min(Math.max(((pixel + 0.5) / pixels) * cells - 0.5, 0), cells - 1);
    const low = Math.floor(place);
    return [low, Math.min(low + 1, cells - 1), place - low];
  });

const drawMap = (context, map, [height, width], opacity) => {
  const { width: across, height: down } = context.canvas;
  const picture = context.createImageData(across, down);
  const columns = interpolation(width, across);
  interpolation(height, down).forEach(([top, bottom, v], y) => {
    columns.forEach(([left, right, h], x) => {
      const above = map[top * width + left] * (1 - h) + map[top * width + right] * h;
      const below = map[bottom * width + left] * (1 - h) + map[bottom * width + right] * h;
      const level = 3 * Math.round(above * (1 - v) + below * v);
      const to = 4 * (y * across + x);
      picture.data.set(colours.subarray(level, level + 3), to);
      picture.data[to + 3] = Math.round(255 * opacity);
    });
  });
  context.putImageData(picture, 0, 0);
};

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

const describeMap = (name, map, [height, width]) => {
  const peak = map.indexOf(Math.max(...map));
  const down = Math.round((100 * (Math.floor(peak / width) + 0.5)) / height);
  const across = Math.round((100 * ((peak % width) + 0.5)) / width);
  const value = (map[peak] / 255).toFixed(2);
  return `Heatmap of ${name}: highest value ${value}, ${across}% from the left and ${down}% from the top.`;
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
  if (map) drawMap(context, map, photo.grid, opacity());
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
