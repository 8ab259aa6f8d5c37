// The grid of fields: filters, order, and drawing what is in view.
const waiting = new Map(); // card -> place of its field
const MAX_NAMED = 6; // classes below a picture, in one line of it

const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    // Out of view a card gives its pixels back: hundreds of them would not fit a phone.
    if (isIntersecting) drawShot(target, waiting.get(target));
    else target.replaceChildren();
  }
}, { rootMargin: "400px" });

function classOptions() {
  const shown = CLASSES.map(({ index }) => DATA.fields.filter((field) => shows(field, index)).length);
  const options = CLASSES.map(({ index, name }) => [index, `${index} ${name} (${shown[index]})`]);
  return [[-1, `All classes (${DATA.fields.length})`], ...options];
}

function overlayOptions() {
  const options = [["none", "None"], ["scores", "Cell scores"]];
  return DATA.maps ? [...options, ["map", "Class map"]] : options;
}

function orderOptions() {
  const options = [["table", "Table"], ["score", "Highest score"], ["cells", "Most cells"]];
  return DATA.evidence ? [...options, ["errors", "Surest errors"]] : options;
}

const score = (field) => (state.class < 0 ? Math.max(0, ...Object.values(field.s)) : field.s[state.class] || 0);

const highestScore = (index) => Math.max(1e-9, ...DATA.fields.map((field) => field.s[index] || 0));

function surestErrors() {
  const surest = DATA.fields.map(() => 0);
  for (const [, index, place, , , surety] of DATA.evidence.errors) {
    if (state.class < 0 || index === state.class) surest[place] = Math.max(surest[place], surety);
  }
  return surest;
}

// Whether a cell of a field scores the class first, or truly shows it, or the image label names it.
const shows = (field, index) => field.f[index] > 0 || field.t[index] > 0 || Boolean(field.l && field.l.includes(index));

function choose() {
  const places = DATA.fields.map((_, place) => place);
  const wanted = state.find.trim().toLowerCase();
  const named = places.filter((place) => DATA.fields[place].id.toLowerCase().includes(wanted));
  state.shown = named.filter((place) => state.class < 0 || shows(DATA.fields[place], state.class));
  const keys = {
    score: (place) => -score(DATA.fields[place]),
    cells: (place) => -DATA.fields[place].n,
  };
  if (state.order === "errors") {
    const surest = surestErrors();
    keys.errors = (place) => -surest[place];
  }
  const key = keys[state.order];
  if (key) state.shown.sort((one, other) => key(one) - key(other) || one - other);
}

function drawGrid() {
  choose();
  watcher.disconnect();
  waiting.clear();
  $("count").textContent = `${count(state.shown.length)} of ${plural(DATA.fields.length, "field")}`;
  $("legend").replaceChildren(...legend());
  const cards = state.shown.map((place) => make("li", {}, card(place)));
  $("grid").replaceChildren(...cards);
  if (!cards.length) $("grid").append(make("li", { class: "empty" }, emptyReason()));
}

function emptyReason() {
  if (DATA.fields.length) return "No cell scores this first, and no label or truth names it; choose another class, or clear Find.";
  if (DATA.kind === "run") return "No fields: give --data, the folder that holds them, and the run predicts them.";
  return "No fields: the table has no rows, or --fields is 0.";
}

function legend() {
  if (!DATA.fields.length) return [];
  const line = (stroke, dash) =>
    svg('width="26" height="12"', `<path d="M0 6H26" stroke="${stroke}" stroke-width="2.5" stroke-dasharray="${dash}"/>`);
  const parts = CLASSES.filter(({ index }) => DATA.fields.some((field) => shows(field, index))).map(({ index, name }) =>
    make("button", { type: "button", class: "chip", "aria-pressed": String(state.class === index), title: `Outline colour of cells that score ${name} first`,
      onclick: () => { setClass(state.class === index ? -1 : index); $("legend").querySelector(`[data-chip="${index}"]`).focus(); }, "data-chip": index },
      swatch(index), ` ${name}`));
  if (state.overlay !== "none" && state.class >= 0) {
    const [what, most] = state.overlay === "map" ? ["class map", strongest(state.class)] : ["score", highestScore(state.class)];
    const box = svg('width="26" height="12"', `<rect width="26" height="12" fill="rgb(${HEAT})" opacity=".8"/>`);
    parts.push(make("span", {}, box, `${what} of ${className(state.class)}, full colour is ${number(most, 2)}`));
  }
  if (state.overlay !== "none" && state.class < 0) parts.push(make("span", {}, "choose a class to see its overlay"));
  if (DATA.evidence) {
    if (state.class >= 0) parts.push(make("span", {}, line("currentColor", "5 4"), "truly shows the class"));
    parts.push(make("span", {}, line("var(--heat)", "2 4"), "true cell that was not found"));
  }
  return parts;
}

function card(place) {
  const field = DATA.fields[place];
  const [width, height] = frame(field);
  const shot = make("span", { class: "shot", style: `aspect-ratio:${width}/${height}` });
  waiting.set(shot, place);
  watcher.observe(shot);
  const best = state.class < 0 ? plural(field.n, "cell") : number(score(field), 2);
  const firsts = firstClasses(field);
  const words = firsts.map((index) => `${field.f[index]} ${className(index)}`).join(", ");
  const label = `Field ${field.id}, ${plural(field.n, "cell")}${words ? `: ${words}` : ""}`;
  return make("button", { type: "button", "data-place": place, "aria-label": label, title: words, onclick: () => openViewer(place) },
    shot, make("span", { class: "caption" }, make("b", { title: field.id }, shortId(field.id)), make("span", { class: "soft" }, best)),
    firsts.length ? make("span", { class: "firsts" }, ...firsts.slice(0, MAX_NAMED).map(swatch),
      firsts.length > MAX_NAMED ? make("span", { class: "soft" }, `+${firsts.length - MAX_NAMED}`) : null) : null);
}

// Classes that cells of a field score first, most cells first.
const firstClasses = ({ f }) =>
  CLASSES.map(({ index }) => index).filter((index) => f[index]).sort((one, other) => f[other] - f[one] || one - other);

async function drawShot(shot, place) {
  const canvas = make("canvas", { width: 1, height: 1 });
  shot.replaceChildren(canvas, outlines(place));
  const found = await pixels(place);
  paint(canvas, found, state.picture);
  if (state.overlay === "map" && state.class >= 0) paintMap(canvas, found, state.class);
}

// Outlines of a field's cells as SVG; in the viewer they can be chosen.
function outlines(place, chosen = null, live = false) {
  const field = DATA.fields[place];
  const [width, height] = frame(field);
  const one = record(place);
  const most = highestScore(state.class);
  const paths = one.c.map((cell, k) => (cell ? outline(cell, k, chosen === k, live, most, width) : ""));
  if (state.outlines || live) {
    for (const cell of one.x) if (cell) paths.push(`<path class="missed" d="${cell.d}"/>`);
  }
  if (live && view.missed >= 0 && one.x[view.missed]) paths.push(`<path class="missed sought" d="${one.x[view.missed].d}"/>`);
  return svg(`viewBox="0 0 ${width} ${height}" preserveAspectRatio="none"`, paths.join(""));
}

// The number of a cell's first class inside of it: 19 colours cannot all be told apart. In a small picture it is
// as large as the cell lets it, so that what lies below can be seen.
function classNumber({ b: [left, top, wide, high] }, first, width) {
  const size = width && Math.max(0.042 * width, Math.min(0.06 * width, 0.5 * Math.min(wide, high)));
  const style = size ? ` style="font-size:${size.toFixed(1)}px;stroke-width:${(size / 5).toFixed(1)}px"` : "";
  return `<text x="${left + wide / 2}" y="${top + high / 2}"${style}>${first === NOTHING ? "-" : first}</text>`;
}

function outline(cell, k, chosen, live, most, width) {
  const first = cell.s.length ? cell.s[0][0] : NOTHING;
  const own = state.class < 0 ? 0 : (cell.s.find(([index]) => index === state.class) || [0, 0])[1];
  const opacity = state.overlay === "scores" && state.class >= 0 ? (0.75 * own) / most : 0;
  const stroke = state.outlines || chosen ? (first === NOTHING ? "#ffffff" : CLASSES[first].colour) : "none";
  const truly = state.outlines && state.class >= 0 && cell.t && cell.t.includes(state.class);
  const best = cell.s.length ? `, ${className(first)} ${number(cell.s[0][1], 2)}` : "";
  const how = live ? ` class="cell${chosen ? " chosen" : ""}" data-cell="${k}" tabindex="0" role="button" aria-label="Cell ${k + 1}${escaped(best)}"` : "";
  const halo = state.outlines || chosen ? `<path class="halo" d="${cell.d}"/>` : "";
  const name = state.outlines || live ? classNumber(cell, first, live ? null : width) : "";
  return halo + `<path${how} d="${cell.d}" stroke="${stroke}" style="fill:rgba(${HEAT},${opacity.toFixed(3)})"/>` +
    (truly ? `<path class="true" d="${cell.d}"/>` : "") + name;
}
