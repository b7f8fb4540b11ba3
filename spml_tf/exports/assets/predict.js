
const model = read("model-data");
const colours = bytes(model.colours);
// The longest side of a photo as it is shown, in pixels; smaller ones are enlarged.
const LONGEST = 800;
// A side that is larger than this many times the new one is antialiased, as in training.
const ANTIALIAS_FROM = 1.5;

const unpacked = async (id) => {
  const packed = new Blob([bytes(document.getElementById(id).textContent)]);
  const stream = packed.stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};

const start = async () => {
  const code = new Blob([await unpacked("runtime-script")], { type: "text/javascript" });
  const ort = await import(URL.createObjectURL(code));
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = (await unpacked("runtime-wasm")).buffer;
  const session = await ort.InferenceSession.create(await unpacked("network"));
  return { ort, session };
};

// For every new pixel the first old one that counts, and how much each from there on does.
const weights = (from, to, antialias) => {
  const stretch = antialias ? Math.max(from / to, 1) : 1;
  return Array.from({ length: to }, (_, pixel) => {
    const centre = ((pixel + 0.5) * from) / to;
    const first = Math.max(0, Math.floor(centre - stretch - 0.5));
    const last = Math.min(from - 1, Math.ceil(centre + stretch - 0.5));
    const near = [];
    for (let old = first; old <= last; old += 1) {
      near.push(Math.max(0, 1 - Math.abs(old + 0.5 - centre) / stretch));
    }
    const sum = near.reduce((a, b) => a + b, 0);
    return [first, near.map((x) => x / sum)];
  });
};

// RGBA pixels to side x side x RGB in 0..255, as training's evaluation resizes.
const resized = ({ data, width, height }, side) => {
  const antialias = Math.max(width, height) > ANTIALIAS_FROM * side;
  const rows = new Float32Array(side * width * 3);
  weights(height, side, antialias).forEach(([first, parts], y) => {
    parts.forEach((part, step) => {
      const line = (first + step) * width * 4;
      const to = y * width * 3;
      for (let x = 0; x < width; x += 1) {
        for (let c = 0; c < 3; c += 1) rows[to + 3 * x + c] += part * data[line + 4 * x + c];
      }
    });
  });
  const result = new Float32Array(side * side * 3);
  weights(width, side, antialias).forEach(([first, parts], x) => {
    parts.forEach((part, step) => {
      for (let y = 0; y < side; y += 1) {
        const from = (y * width + first + step) * 3;
        const to = (y * side + x) * 3;
        for (let c = 0; c < 3; c += 1) result[to + c] += part * rows[from + c];
      }
    });
  });
  return result;
};

// The file's own pixels, upright, and a canvas that shows them.
const decoded = async (file) => {
  const picture = await createImageBitmap(file, {
    imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none",
  });
  const { width, height } = picture;
  if (width * height > 1e6 * model.maxMegapixels) {
    throw new Error(`${width} x ${height} pixels, more than ${model.maxMegapixels} million`);
  }
  const whole = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  whole.drawImage(picture, 0, 0);
  const canvas = document.createElement("canvas");
  const scale = LONGEST / Math.max(width, height);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return { pixels: whole.getImageData(0, 0, width, height), canvas };
};

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

const predicted = async ({ ort, session }, pixels) => {
  const side = model.imageSize;
  const images = new ort.Tensor("float32", resized(pixels, side), [1, side, side, 3]);
  const { probabilities, decisions, cams } = await session.run({ images });
  const [, height, width, classes] = cams.dims;
  const maps = model.classes.map((_, label) =>
    Uint8Array.from({ length: height * width }, (_, cell) =>
      Math.round(255 * sigmoid(cams.data[cell * classes + label])),
    ),
  );
  return { scores: [...probabilities.data], decisions: [...decisions.data], maps, grid: [height, width] };
};

const element = (kind, name, text) => {
  const made = document.createElement(kind);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
};

const opacity = document.getElementById("opacity");
const shows = [];

const rowOf = (found, label, choose) => {
  const row = element("tr");
  const head = element("th");
  head.scope = "row";
  const button = element("button", "", model.classes[label]);
  button.type = "button";
  button.addEventListener("click", () => choose(label));
  head.append(button);
  const bar = element("div", "bar");
  bar.append(element("i"), element("b"));
  bar.firstChild.style.width = `${100 * found.scores[label]}%`;
  bar.lastChild.style.left = `calc(${100 * Math.min(model.thresholds[label], 1)}% - 1px)`;
  bar.title = `decided for from ${model.thresholds[label].toFixed(4)} on`;
  const cell = element("td");
  cell.append(bar);
  const score = element("td", "number", found.scores[label].toFixed(4));
  const yes = found.decisions[label] === 1;
  row.append(head, score, cell, element("td", yes ? "yes" : "quiet", yes ? "yes" : "no"));
  return [row, button];
};

const tableOf = (found, choose) => {
  const table = element("table");
  const head = table.createTHead().insertRow();
  for (const text of ["class", "score", "threshold", "decision"]) {
    const cell = element("th", text === "score" ? "number" : "", text);
    cell.scope = "col";
    head.append(cell);
  }
  const body = table.createTBody();
  const buttons = new Map();
  const order = [...found.scores.keys()].sort((a, b) => found.scores[b] - found.scores[a]);
  for (const label of order) {
    const [row, button] = rowOf(found, label, choose);
    buttons.set(label, button);
    body.append(row);
  }
  return { table, buttons, best: order[0] };
};

const show = (name, canvas, found) => {
  const section = element("section", "result");
  const photo = element("div", "photo");
  const map = element("canvas", "map");
  [map.width, map.height] = [canvas.width, canvas.height];
  map.setAttribute("role", "img");
  let shown = -1;
  const draw = () => {
    const context = map.getContext("2d");
    context.clearRect(0, 0, map.width, map.height);
    if (shown < 0) {
      map.setAttribute("aria-label", "No heatmap is shown.");
      return;
    }
    const heatmap = found.maps[shown];
    drawMap(context, heatmap, found.grid, Number(opacity.value) / 100, colours);
    map.setAttribute("aria-label", describeMap(model.classes[shown], heatmap, found.grid));
  };
  const choose = (label) => {
    shown = label === shown ? -1 : label;
    buttons.forEach((button, own) => button.setAttribute("aria-pressed", String(own === shown)));
    draw();
  };
  const { table, buttons, best } = tableOf(found, choose);
  const scroll = element("div", "scroll");
  scroll.append(table);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `The photo ${name}`);
  photo.append(canvas, map);
  section.append(element("h2", "", name), photo, scroll);
  document.getElementById("results").prepend(section);
  shows.push(draw);
  choose(best);
};

const status = document.getElementById("status");
const failed = (text) => {
  document.getElementById("failures").append(element("p", "failed", text));
};
const takeOne = async (ready, file) => {
  status.textContent = `Looking at ${file.name}`;
  let photo;
  try {
    photo = await decoded(file);
  } catch (error) {
    failed(`${file.name}: cannot be read as a photo (${error.message})`);
    return;
  }
  try {
    show(file.name, photo.canvas, await predicted(ready, photo.pixels));
  } catch (error) {
    failed(`${file.name}: cannot be classified (${error.message})`);
  }
};

const READY = "Ready. Photos stay in this browser.";
const running = start();
const notStarted = (error) => {
  status.textContent = "";
  failed(`The model cannot be started; try a browser of 2023 or later (${error.message})`);
};
running.then(() => (status.textContent = READY), notStarted);
// One batch of files after the other.
let last = running;
const take = (files) => {
  document.getElementById("failures").replaceChildren();
  last = last.then(async (ready) => {
    for (const file of files) await takeOne(ready, file);
    status.textContent = READY;
    return ready;
  });
  last.catch(notStarted);
};

const drop = document.getElementById("drop");
const input = document.getElementById("files");
input.addEventListener("change", () => {
  take([...input.files]);
  input.value = ""; // so that the same photo can be chosen again
});
for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", over);
    if (name === "drop") take([...event.dataTransfer.files]);
  });
}
const scale = document.getElementById("scale").getContext("2d");
for (let level = 0; level < 256; level += 1) {
  scale.fillStyle = `rgb(${colours.subarray(3 * level, 3 * level + 3).join()})`;
  scale.fillRect(level, 0, 1, 1);
}
opacity.addEventListener("input", () => {
  document.getElementById("opacity-value").textContent = `${opacity.value}%`;
  shows.forEach((draw) => draw());
});
