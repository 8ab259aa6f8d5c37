// How runs were trained, which there are, and where the time went.
// Losses stand first, what only the training itself needs last.
const rank = (name) => (name.includes("loss") ? 0 : name === "lr" || name === "seconds per epoch" ? 2 : 1);

function drawTraining() {
  const panel = $("panel-training");
  const { runs } = DATA.training;
  if (!runs.length) {
    return panel.replaceChildren(make("p", { class: "empty" }, "No training curves: report a run, or give --members with a submission."));
  }
  const groups = new Map(); // losses share a chart, every other metric has its own
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.metrics)))];
  for (const name of names.sort((one, other) => rank(one) - rank(other))) {
    const group = name.includes("loss") ? "loss" : name;
    groups.set(group, [...(groups.get(group) || []), name]);
  }
  const cards = [...groups].map(([group, names]) => {
    const lines = runs.flatMap((run, r) => names.filter((name) => run.metrics[name]).map((name) => ({
      name: `${runs.length > 1 ? `${run.name} ` : ""}${name.replaceAll("_", " ")}`,
      epochs: run.epochs,
      values: run.metrics[name],
      colour: CURVES[(runs.length > 1 ? r : names.indexOf(name)) % CURVES.length],
      dash: DASHES[names.indexOf(name) % DASHES.length],
    })));
    return make("div", { class: "card" }, make("h3", {}, group.replaceAll("_", " ")), lineChart(group, lines),
      lines.length > 1 ? lineKey(lines) : "");
  });
  panel.replaceChildren(make("div", { class: "cards" }, ...cards));
}

function table(heads, body) {
  return make("div", { class: "wide card" }, make("table", { class: "plain" },
    make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text.replaceAll("_", " "))))),
    make("tbody", {}, ...body.map((row) => make("tr", {}, ...row.map((text) => make("td", {}, text)))))));
}

// Some cells as a network of crops saw them: neighbours faded or gone, brightness by their field.
function cropsSeen() {
  if (!DATA.crops) return [];
  return [make("h2", {}, "Crops"),
    make("img", { id: "crops", style: "max-width:100%", alt: "Crops of cells as the network saw them",
      src: `data:image/webp;base64,${DATA.crops}` }),
    make("p", { class: "key" }, "Cells as the network of crops saw them: red, green and blue, from two spreads below their field's mean to four above.")];
}

// What a field took when the submission was made, as it was kept beside it.
function inferenceTimes() {
  if (!DATA.inference.length) return [];
  const most = Math.max(...DATA.inference.map(([, seconds]) => seconds)) || 1;
  const rows = DATA.inference.map(([part, seconds, fields]) => [part, `${number(seconds)} s`,
    make("span", { class: "track" }, make("i", { style: `width:${(100 * seconds) / most}%` })), count(fields)]);
  return [
    make("h2", { style: "margin-top:1rem" }, "Time of inference"),
    make("div", { id: "inference" }, table(["part", "per field", "", "fields"], rows)),
    make("p", { class: "key" }, "Parts overlap: where one is much longer than the others, a field takes about as long as that one.")];
}

function drawRuns() {
  const panel = $("panel-runs");
  const { header, rows, runs } = DATA.training;
  const times = Object.entries(DATA.seconds).map(([what, seconds]) => [what, `${number(seconds)} s per field`]);
  for (const run of runs) {
    const seconds = (run.metrics["seconds per epoch"] || []).filter((value) => value !== null);
    const mean = seconds.reduce((sum, value) => sum + value, 0) / (seconds.length || 1);
    if (seconds.length) times.push([`training ${run.name}`, `${number(mean, 1)} s per epoch, ${number(mean * seconds.length / 60, 1)} min in all`]);
  }
  panel.replaceChildren(
    ...cropsSeen(),
    make("h2", {}, "Runs"),
    rows.length ? table(header, rows) : make("p", { class: "empty" }, "No runs: report a run, or give --members with a submission."),
    make("h2", { style: "margin-top:1rem" }, "Time"),
    times.length ? table(["step", "time"], times) : make("p", { class: "empty" }, "No times were kept."),
    ...inferenceTimes());
}
