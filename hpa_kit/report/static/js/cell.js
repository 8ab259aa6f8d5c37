// Beside the field: what is known of it, or of the cell that was chosen.
function fieldPanel(place) {
  const field = DATA.fields[place];
  const one = record(place);
  const facts = [`${field.w} x ${field.h} px`, plural(field.n, "cell")];
  const missed = one.x.filter(Boolean).length;
  if (DATA.evidence && missed) facts.push(`${plural(missed, "true cell")} not found`);
  const items = one.c.map((cell, k) => (cell ? cellItem(cell, k) : null)).filter(Boolean);
  return [
    make("p", { class: "facts" }, facts.join(" · ")),
    field.l ? make("p", {}, "Image label: ", ...field.l.flatMap((index) => [swatch(index), ` ${className(index)} `])) : null,
    one.p ? null : make("p", { class: "soft" }, DATA.pictures ? "Its picture could not be read." : "No picture: give --data, the folder that holds the fields."),
    make("h3", {}, "Cells"),
    items.length ? make("ul", { class: "cells" }, ...items) : make("p", { class: "soft" }, "No cell was found."),
    make("p", { class: "key" }, "Arrows: left and right change the field, up and down the cell; Escape goes back."),
  ].filter(Boolean);
}

function cellItem(cell, k) {
  const [first, confidence] = cell.s.length ? cell.s[0] : [NOTHING, 0];
  return make("li", {}, make("button", { type: "button", title: className(first), onclick: () => chooseCell(k, true) },
    make("span", { class: "soft number" }, `${k + 1}`), swatch(first), make("span", { class: "number" }, number(confidence, 2))));
}

function cellPanel(place, k) {
  const cell = record(place).c[k];
  const facts = [`${count(cell.a)} px`];
  if (cell.e) facts.push("cut by the border");
  if (DATA.evidence) facts.push(cell.t ? `IoU ${number(cell.u, 2)} with a true cell` : "no true cell");
  const back = make("button", { type: "button", onclick: () => chooseCell(null) }, "All cells");
  return [
    make("div", { class: "head" }, make("h2", { id: "cell-name" }, `Cell ${k + 1}`), back),
    make("p", { class: "facts" }, facts.join(" · ")),
    scoreTable(cell),
    make("h3", {}, "Crops"),
    crops(place, cell),
    ...(DATA.maps ? [make("h3", {}, "Class maps"), mapCrops(place, cell), make("p", { class: "key" }, "Full amber: as strong as the class is anywhere in these fields.")] : []),
  ];
}

// Scores from high to low, and true classes that got none.
function scoreTable(cell) {
  const given = new Set(cell.s.map(([index]) => index));
  const lacking = (cell.t || []).filter((index) => !given.has(index)).map((index) => [index, 0]);
  const rows = [...cell.s, ...lacking].map(([index, confidence]) => {
    const truly = cell.t && cell.t.includes(index);
    const mark = truly ? make("span", { class: "tag right" }, "true") : "";
    return make("tr", { "data-class": index },
      make("td", {}, swatch(index)), make("td", {}, className(index), " ", mark),
      make("td", { class: "bar-cell" }, make("span", { class: "track" }, make("i", { style: `width:${Math.min(100, 100 * Math.max(0, confidence))}%` }))),
      make("td", { class: "number" }, number(confidence)));
  });
  if (!rows.length) return make("p", { class: "soft" }, "No class was given.");
  return make("table", { class: "scores", id: "scores" }, make("tbody", {}, ...rows));
}

// The square around a cell, with some room, inside the field, in units.
function square(place, cell) {
  const [width, height] = frame(DATA.fields[place]);
  const [left, top, w, h] = cell.b;
  const side = Math.min(Math.max(w, h) * 1.25, Math.max(width, height));
  return [left + w / 2 - side / 2, top + h / 2 - side / 2, side];
}

function crops(place, cell) {
  const all = PICTURES.map(([picture, name]) => crop(place, cell, name, (canvas, found) => paint(canvas, found, picture)));
  return make("div", { class: "crops" }, ...all);
}

function mapCrops(place, cell) {
  const wanted = [...new Set([...(state.class >= 0 ? [state.class] : []), ...(cell.t || []), ...cell.s.map(([index]) => index)])];
  const some = wanted.slice(0, 6).map((index) => crop(place, cell, `${index} ${className(index)}`, (canvas, found) => {
    paint(canvas, found, "1");
    paintMap(canvas, found, index, !found.channels);
  }));
  return make("div", { class: "crops" }, ...some);
}

function crop(place, cell, name, draw) {
  const shot = cropShot(place, cell, draw);
  return make("figure", {}, shot, make("figcaption", { title: name }, name));
}

function cropShot(place, cell, draw) {
  const [left, top, side] = square(place, cell);
  const canvas = make("canvas", { width: 1, height: 1 });
  const lines = svg(`viewBox="${left} ${top} ${side} ${side}"`,
    `<path class="halo" d="${cell.d}"/><path d="${cell.d}" stroke="#fff" style="stroke-width:1.2"/>`);
  pixels(place).then((found) => {
    const whole = make("canvas", { width: 1, height: 1 });
    draw(whole, found);
    const scale = whole.width / frame(DATA.fields[place])[0];
    canvas.width = canvas.height = Math.max(1, Math.round(side * scale));
    canvas.getContext("2d").drawImage(whole, -left * scale, -top * scale);
  });
  return make("span", { class: "shot", style: "aspect-ratio:1" }, canvas, lines);
}
