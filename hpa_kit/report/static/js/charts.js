// Small charts as SVG text: a box of 0 to 1 by 0 to 1, and curves over epochs.
const CURVES = ["var(--blue)", "var(--orange)", "#009e73", "#cc79a7", "#999999", "#8f6b00"];
const DASHES = ["", "6 4", "2 3", "9 3 2 3"];
const LEFT = 34, TOP = 20, BOTTOM = 32;

function unitChart(label, across, up, content) {
  const width = 190, height = 160, inner = [width - LEFT - 8, height - TOP - BOTTOM];
  const x = (value) => (LEFT + value * inner[0]).toFixed(1);
  const y = (value) => (TOP + (1 - value) * inner[1]).toFixed(1);
  const ticks = [0, 0.5, 1].map((at) =>
    `<text x="${x(at)}" y="${height - 19}" text-anchor="middle">${at}</text>` +
    `<text x="${LEFT - 5}" y="${Number(y(at)) + 4}" text-anchor="end">${at}</text>`).join("");
  const box = `<path class="axis" d="M${x(0)} ${y(1)}V${y(0)}H${x(1)}"/>`;
  const names = `<text x="${x(0.5)}" y="${height - 5}" text-anchor="middle">${across}</text>` +
    `<text x="${LEFT - 22}" y="11">${up}</text>`;
  return svg(`class="chart" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escaped(label)}"`,
    box + ticks + content(x, y) + names);
}

function precisionChart(name, curve) {
  return unitChart(`Precision over recall of ${name}`, "recall", "precision", (x, y) => {
    if (!curve.length) return "";
    let path = `M${x(0)} ${y(curve[0][1])}`;
    for (const [recall, precision] of curve) path += `V${y(precision)}H${x(recall)}`;
    return `<path class="curve" stroke="var(--blue)" d="${path}"/>`;
  });
}

function calibrationChart(name, groups) {
  return unitChart(`How often scores of ${name} are right`, "confidence", "right", (x, y) => {
    const most = Math.max(1, ...groups.map(([, , size]) => size));
    const line = groups.map(([mean, right], k) => `${k ? "L" : "M"}${x(Math.min(1, mean))} ${y(right)}`).join("");
    const dots = groups.map(([mean, right, size]) =>
      `<circle cx="${x(Math.min(1, mean))}" cy="${y(right)}" r="${(2 + 3 * Math.sqrt(size / most)).toFixed(1)}" fill="var(--orange)">` +
      `<title>${plural(size, "score")} of about ${number(mean)}: ${number(right)} right</title></circle>`).join("");
    return `<path class="ideal" d="M${x(0)} ${y(0)}L${x(1)} ${y(1)}"/>` +
      `<path class="curve" stroke="var(--orange)" stroke-width="1.2" d="${line}"/>${dots}`;
  });
}

function niceTicks(low, high) {
  const rough = (high - low) / 4 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const ticks = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) ticks.push(at);
  return ticks;
}

// Lines: [{ name, epochs, values, colour, dash }].
function lineChart(title, lines) {
  const width = 330, height = 180, left = 46, top = 8;
  const values = lines.flatMap((line) => line.values.filter((value) => value !== null));
  const epochs = lines.flatMap((line) => line.epochs);
  if (!values.length) return make("p", { class: "soft" }, "no values");
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const [first, last] = [Math.min(...epochs), Math.max(...epochs)];
  const x = (epoch) => left + ((epoch - first) / (last - first || 1)) * (width - left - 10);
  const y = (value) => top + (1 - (value - low) / (high - low || 1)) * (height - top - 24);
  const grid = niceTicks(low, high).map((at) =>
    `<path class="axis" d="M${left} ${y(at).toFixed(1)}H${width - 10}"/>` +
    `<text x="${left - 5}" y="${(y(at) + 4).toFixed(1)}" text-anchor="end">${Number(at.toPrecision(3))}</text>`).join("");
  const ends = `<text x="${left}" y="${height - 6}">epoch ${first}</text>` +
    `<text x="${width - 10}" y="${height - 6}" text-anchor="end">${last}</text>`;
  const drawn = lines.map((line) => {
    const points = line.values.map((value, k) => (value === null ? null : [x(line.epochs[k]), y(value)]));
    const path = points.map((point, k) =>
      point ? `${k && points[k - 1] ? "L" : "M"}${point[0].toFixed(1)} ${point[1].toFixed(1)}` : "").join("");
    const only = points.filter(Boolean);
    const dot = only.length === 1 ? `<circle cx="${only[0][0]}" cy="${only[0][1]}" r="3" fill="${line.colour}"/>` : "";
    return `<path class="curve" stroke="${line.colour}" stroke-dasharray="${line.dash}" d="${path}"/>${dot}`;
  }).join("");
  return svg(`class="chart" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escaped(title)} by epoch"`,
    grid + ends + drawn);
}

function lineKey(lines) {
  return make("p", { class: "key" }, ...lines.map((line) => make("span", {},
    svg('width="26" height="12"', `<path d="M0 6H26" stroke="${line.colour}" stroke-width="2.5" stroke-dasharray="${line.dash}"/>`),
    line.name)));
}
