// What the truth says: per class, between classes, and the surest errors.
const errorFilter = { kind: "all" };

function needsTruth(what) {
  const reason = DATA.fields.length || DATA.total ? "Give --truth, the table with the classes of every cell" : "Give --data and --truth";
  return make("p", { class: "empty" }, `${what} need the truth. ${reason}, and they stand here.`);
}

function drawClasses() {
  const panel = $("panel-classes");
  if (!DATA.evidence) return panel.replaceChildren(needsTruth("Precision, recall and calibration"));
  const known = CLASSES.filter(({ index }) => DATA.evidence.classes[index].truth);
  const unknown = CLASSES.filter(({ index }) => !DATA.evidence.classes[index].truth);
  panel.replaceChildren(
    make("p", { class: "key" }, "Left: precision over recall, whose area is the AP. Right: of scores of about one confidence, the part that is right; on the dashed line a confidence is what it says. A score is right where its mask has IoU 0.6 or more with a cell that shows the class."),
    make("div", { class: "cards" }, overall(), ...known.map(({ index }) => classCard(index))),
    unknown.length ? make("p", { class: "key" }, "No cell truly shows, and so counts for nothing: ",
      ...unknown.map(({ index, name }) => make("span", { title: `${plural(DATA.evidence.classes[index].found, "score")} given` }, swatch(index), ` ${name}`))) : "");
}

function overall() {
  const { map, truth, matched, calibration } = DATA.evidence;
  return make("div", { class: "card" },
    make("div", { class: "head" }, make("h3", {}, "All classes"), make("span", { class: "big" }, number(map)), make("span", { class: "soft" }, "mAP")),
    make("div", { class: "pair" }, apBars(), calibrationChart("all classes", calibration)),
    make("p", { class: "soft" }, `${count(matched)} of ${plural(truth, "true cell")} found, in ${plural(DATA.evidence.fields, "field")}`));
}

function apBars() {
  const width = 190, height = 160, each = (height - 24) / CLASSES.length;
  const bars = DATA.evidence.classes.map((one, index) => {
    const y = 6 + index * each;
    const length = (one.ap || 0) * (width - 42);
    return `<rect x="34" y="${y.toFixed(1)}" width="${length.toFixed(1)}" height="${(each - 1.5).toFixed(1)}" fill="var(--blue)"><title>${index} ${escaped(className(index))}: ${number(one.ap)}</title></rect>` +
      (index % 3 ? "" : `<text x="29" y="${(y + 5).toFixed(1)}" text-anchor="end" style="font-size:8px">${index}</text>`);
  }).join("");
  return svg(`class="chart" viewBox="0 0 ${width} ${height}" role="img" aria-label="AP of each class"`,
    `${bars}<path class="axis" d="M34 4V${height - 18}H${width - 8}"/><text x="34" y="${height - 6}">0</text><text x="${width - 8}" y="${height - 6}" text-anchor="end">AP 1</text>`);
}

function classCard(index) {
  const one = DATA.evidence.classes[index];
  const name = className(index);
  return make("div", { class: "card" },
    make("div", { class: "head" }, swatch(index), make("h3", { title: name }, name), make("span", { class: "big" }, number(one.ap)), make("span", { class: "soft" }, "AP")),
    make("div", { class: "pair" }, precisionChart(name, one.curve), calibrationChart(name, one.calibration)),
    make("div", { class: "links" }, make("span", { class: "soft" }, `${count(one.truth)} true · ${plural(one.found, "score")}`),
      make("button", { type: "button", onclick: () => { setClass(index); showTab("fields"); } }, "Fields"),
      make("button", { type: "button", onclick: () => { setClass(index); showTab("errors"); } }, "Errors")));
}

function drawConfusion() {
  const panel = $("panel-confusion");
  if (!DATA.evidence) return panel.replaceChildren(needsTruth("Confusions"));
  const table = DATA.evidence.confusion;
  const used = CLASSES.map(({ index }) => index).filter((index) =>
    table[index].some(Boolean) || table.some((row) => row[index]));
  const columns = [...used, NOTHING];
  const head = make("tr", {}, make("td", {}), ...columns.map((index) => make("th", { scope: "col", title: className(index) }, swatch(index))), make("th", { scope: "col" }, "cells"));
  const rows = [...used, NOTHING].map((row) => {
    const total = table[row].reduce((sum, value) => sum + value, 0);
    const name = row === NOTHING ? "no true cell" : className(row);
    return make("tr", {}, make("th", { scope: "row", title: name }, swatch(row), ` ${name}`),
      ...columns.map((column) => confusionCell(row, column, table[row][column], total)),
      make("td", { class: "number", style: "padding:.15rem .4rem" }, count(Math.round(total))));
  });
  panel.replaceChildren(
    make("p", { class: "key" }, "Rows: what cells truly show. Columns: what they were given instead, in per cent of the row; a cell of k classes is compared with its k highest scores. The last column counts cells that were not found or got nothing else. Click a figure for the row's errors."),
    make("div", { class: "wide" }, make("table", { class: "grid-table card" }, make("thead", {}, head), make("tbody", {}, ...rows))));
}

function confusionCell(row, column, value, total) {
  const part = total ? value / total : 0;
  const text = part ? (100 * part).toFixed(part < 0.1 ? 1 : 0) : "";
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const turned = dark ? (part > 0.5 ? "color:#111" : "") : part > 0.75 ? "color:#fff" : "";
  const style = `background:rgba(var(--heat-rgb),${(0.9 * part).toFixed(2)});${turned}`;
  const words = `${row === NOTHING ? "No true cell" : className(row)} given ${className(column)}: ${number(value, 1)} cells`;
  const inside = part && row !== NOTHING ? make("button", { type: "button", title: words, "aria-label": words, onclick: () => { setClass(row); showTab("errors"); } }, text) : make("span", { title: words, style: "padding:.15rem .3rem" }, text);
  return make("td", { style, class: row === column ? "same" : null }, inside);
}

function drawErrors() {
  const panel = $("panel-errors");
  if (!DATA.evidence) return panel.replaceChildren(needsTruth("Errors"));
  const kinds = make("select", { id: "kind", onchange: (event) => { errorFilter.kind = event.target.value; drawErrors(); $("kind").focus(); } });
  fill(kinds, [["all", "Both kinds"], ["0", "Given, not there"], ["1", "There, not given"]], errorFilter.kind);
  const classes = make("select", { id: "error-class", onchange: (event) => { setClass(Number(event.target.value)); $("error-class").focus(); } });
  fill(classes, [[-1, "All classes"], ...CLASSES.map(({ index, name }) => [index, `${index} ${name}`])], state.class);
  const found = DATA.evidence.errors.filter(([kind, index]) =>
    (errorFilter.kind === "all" || kind === Number(errorFilter.kind)) && (state.class < 0 || index === state.class));
  const some = found.slice(0, 120);
  panel.replaceChildren(
    make("div", { class: "bar" }, make("label", {}, "Class ", classes), make("label", {}, "Kind ", kinds),
      make("output", { class: "soft" }, `${count(some.length)} of the ${count(found.length)} surest, surest first`)),
    make("p", { class: "key" }, "Given, not there: by the confidence given. There, not given: by 1 - the confidence given. At most 40 of each class and kind, of the fields in this page."),
    some.length ? make("ul", { class: "errors" }, ...some.map(errorItem)) : make("p", { class: "empty" }, "None."));
}

function errorItem([kind, index, place, cell, missed, surety]) {
  const field = DATA.fields[place];
  const open = () => openViewer(place, cell < 0 ? null : cell, missed);
  const holder = make("span", { class: "shot", style: "aspect-ratio:1" });
  errorShots.set(holder, () => {
    const shape = cell < 0 ? record(place).x[missed] : record(place).c[cell];
    if (shape) holder.replaceChildren(...cropShot(place, shape, (canvas, found) => paint(canvas, found, state.picture)).childNodes);
  });
  errorWatcher.observe(holder);
  const words = kind ? (cell < 0 ? "not found" : `given ${number(1 - surety, 2)}`) : `given ${number(surety, 2)}`;
  const tag = make("span", { class: `tag ${kind ? "right" : "wrong"}` }, kind ? "there" : "not there");
  return make("li", {}, make("button", { type: "button", onclick: open, title: field.id }, holder,
    make("span", { class: "words" }, swatch(index), ` ${className(index)}`, make("br"), tag, ` ${words}`)));
}

const errorShots = new WeakMap();
const errorWatcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) errorShots.get(target)();
    else target.replaceChildren();
  }
}, { rootMargin: "300px" });
