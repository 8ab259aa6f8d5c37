// A field's record and its pictures, read from the page when they are first needed.
const records = new Map();
const planes = new Map();
const MAX_KEPT = 40;

function remember(map, key, value) {
  map.delete(key);
  map.set(key, value);
  if (map.size > MAX_KEPT) map.delete(map.keys().next().value);
  return value;
}

function record(place) {
  const known = records.get(place);
  return remember(records, place, known || JSON.parse($(`field-${place}`).textContent));
}

// The pixels of a packed grey picture: { width, height, values: one byte per pixel }.
async function grey(base64) {
  const image = new Image();
  image.src = `data:image/webp;base64,${base64}`;
  await image.decode();
  const canvas = make("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const { data, width, height } = context.getImageData(0, 0, canvas.width, canvas.height);
  const values = new Uint8ClampedArray(width * height);
  for (let k = 0; k < values.length; k++) values[k] = data[4 * k];
  return { width, height, values };
}

function part(sheet, left, top, width, height) {
  const values = new Uint8ClampedArray(width * height);
  for (let y = 0; y < height; y++) {
    const start = (top + y) * sheet.width + left;
    values.set(sheet.values.subarray(start, start + width), y * width);
  }
  return values;
}

// The four channels of a field and its class maps; null for what the page does not have.
function pixels(place) {
  if (!planes.has(place)) remember(planes, place, unpacked(record(place), DATA.fields[place].k));
  return remember(planes, place, planes.get(place));
}

async function unpacked(one, highest) {
  const found = { channels: null, maps: null, highest, width: 0, height: 0 };
  if (one.p) {
    const sheet = await grey(one.p);
    const width = (found.width = sheet.width / 2);
    const height = (found.height = sheet.height / 2);
    const corners = [[0, 0], [width, 0], [0, height], [width, height]];
    found.channels = corners.map(([left, top]) => part(sheet, left, top, width, height));
  }
  if (one.m) {
    const sheet = await grey(one.m);
    const [side, columns] = DATA.map;
    found.maps = CLASSES.map(({ index }) =>
      part(sheet, side * (index % columns), side * Math.floor(index / columns), side, side));
  }
  return found;
}

// Draw a field into a canvas: all channels as people look at them, or one in grey.
function paint(canvas, found, picture) {
  if (!found.channels) return;
  canvas.width = found.width;
  canvas.height = found.height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(found.width, found.height);
  const [red, green, blue, yellow] = found.channels;
  const one = picture === "all" ? null : found.channels[Number(picture)];
  for (let k = 0, at = 0; k < red.length; k++, at += 4) {
    if (one) image.data[at] = image.data[at + 1] = image.data[at + 2] = one[k];
    else {
      image.data[at] = 0.7 * red[k] + 0.25 * yellow[k];
      image.data[at + 1] = green[k] + 0.2 * yellow[k];
      image.data[at + 2] = blue[k];
    }
    image.data[at + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

// The highest value of a class in the maps of all fields: full amber, so that faint maps can be compared too.
const strongest = (index) => Math.max(1e-6, ...DATA.fields.map((field) => (field.k ? field.k[index] : 0)));

// A class map as amber of its strength, stretched over the canvas.
function paintMap(canvas, found, index, alone = false) {
  if (!found.maps) return;
  const side = DATA.map[0];
  const small = make("canvas", { width: side, height: side });
  const image = new ImageData(side, side);
  const scale = ((alone ? 1 : 0.65) * found.highest[index]) / strongest(index);
  found.maps[index].forEach((value, k) => image.data.set([...HEAT, value * scale], 4 * k));
  small.getContext("2d").putImageData(image, 0, 0);
  if (!canvas.width || !found.channels) canvas.width = canvas.height = 4 * side;
  canvas.getContext("2d").drawImage(small, 0, 0, canvas.width, canvas.height);
}

// Box of a field in the units of its outlines.
function frame({ w, h }) {
  const scale = DATA.units / Math.max(w, h);
  return [w * scale, h * scale];
}
