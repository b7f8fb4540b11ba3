"use strict";
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const bytes = (text) => {
  const raw = atob(text);
  const found = new Uint8Array(raw.length);
  for (let at = 0; at < raw.length; at += 1) found[at] = raw.charCodeAt(at);
  return found;
};

// Heatmaps of a byte a cell, 255 being 1, drawn over photos.
// Two cells and the weight of the second for every pixel: linear between the cells' centres.
const interpolation = (cells, pixels) =>
  Array.from({ length: pixels }, (_, pixel) => {
    const place = Math.min(Math.max(((pixel + 0.5) / pixels) * cells - 0.5, 0), cells - 1);
    const low = Math.floor(place);
    return [low, Math.min(low + 1, cells - 1), place - low];
  });

const drawMap = (context, map, [height, width], opacity, colours) => {
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

const describeMap = (name, map, [height, width]) => {
  const peak = map.indexOf(Math.max(...map));
  const down = Math.round((100 * (Math.floor(peak / width) + 0.5)) / height);
  const across = Math.round((100 * ((peak % width) + 0.5)) / width);
  const value = (map[peak] / 255).toFixed(2);
  return `Heatmap of ${name}: highest value ${value}, ${across}% from the left and ${down}% from the top.`;
};
