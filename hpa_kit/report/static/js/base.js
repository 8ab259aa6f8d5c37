// What all parts share: the index, the state, and small helpers.
const DATA = JSON.parse(document.getElementById("index").textContent);
const CLASSES = DATA.classes.map(([name, colour], index) => ({ index, name, colour }));
const NOTHING = CLASSES.length;
const HEAT = [255, 176, 0];
const CHANNELS = ["Microtubules", "Protein", "Nuclei", "ER"];
const PICTURES = [["all", "All channels"], ["1", "Protein"], ["0", "Microtubules"], ["2", "Nuclei"], ["3", "ER"]];

// `shown` is the list of fields that pass the filters, in order.
const state = { class: -1, picture: "all", overlay: "none", order: "table", find: "", outlines: true, shown: [] };

const $ = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

function escaped(text) {
  return String(text).replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
}

// SVG written as text: HTML gives it its namespace.
function svg(attributes, content) {
  const holder = document.createElement("div");
  holder.innerHTML = `<svg ${attributes}>${content}</svg>`;
  return holder.firstChild;
}

function number(value, digits = 3) {
  if (value === null || value === undefined) return "-";
  if (value !== 0 && Math.abs(value) < 10 ** -digits) return value.toExponential(1);
  return value.toFixed(digits);
}

const count = (value) => value.toLocaleString("en");

const plural = (value, word) => `${count(value)} ${word}${value === 1 ? "" : "s"}`;

function swatch(index) {
  if (index === NOTHING) return make("span", { class: "swatch", style: "background:var(--faint);color:inherit" }, "-");
  const { colour } = CLASSES[index];
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const ink = 0.3 * red + 0.59 * green + 0.11 * blue > 120 ? "#111" : "#fff";
  return make("span", { class: "swatch", style: `background:${colour};color:${ink}` }, String(index));
}

const className = (index) => (index === NOTHING ? "nothing" : CLASSES[index].name);

function fill(select, options, value) {
  select.replaceChildren(...options.map(([key, text]) => make("option", { value: key }, text)));
  select.value = value;
}

const shortId = (id) => (id.length > 13 ? `${id.slice(0, 12)}…` : id);
