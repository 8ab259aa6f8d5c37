// Headline, tabs, filters and keys; then the first tab is drawn.
const TABS = [["fields", "Fields", drawGrid], ["classes", "Classes", drawClasses], ["confusion", "Confusion", drawConfusion],
  ["errors", "Errors", drawErrors], ["training", "Training", drawTraining], ["runs", "Runs and time", drawRuns]];
let currentTab = "fields";

function showTab(name, focus = false) {
  currentTab = name;
  for (const [key] of TABS) {
    const tab = $(`tab-${key}`);
    tab.setAttribute("aria-selected", key === name);
    tab.tabIndex = key === name ? 0 : -1;
    $(`panel-${key}`).hidden = key !== name;
  }
  if (focus) $(`tab-${name}`).focus();
  TABS.find(([key]) => key === name)[2]();
}

function setClass(index) {
  state.class = index;
  if (index >= 0 && state.overlay === "none") state.overlay = DATA.maps ? "map" : "scores";
  showState();
}

// One state, shown in the bar of the grid, in the viewer and in the list of errors.
function showState() {
  for (const name of ["class", "picture", "overlay"]) $(name).value = $(`viewer-${name}`).value = String(state[name]);
  TABS.find(([key]) => key === currentTab)[2]();
  if ($("viewer").open) {
    chooseCell(view.cell);
    repaint();
  }
}

function startFilters() {
  for (const prefix of ["", "viewer-"]) {
    fill($(`${prefix}class`), classOptions(), -1);
    fill($(`${prefix}picture`), PICTURES, state.picture);
    fill($(`${prefix}overlay`), overlayOptions(), state.overlay);
    $(`${prefix}class`).addEventListener("change", (event) => setClass(Number(event.target.value)));
    for (const name of ["picture", "overlay"]) {
      $(prefix + name).addEventListener("change", (event) => { state[name] = event.target.value; showState(); });
    }
  }
  fill($("order"), orderOptions(), state.order);
  $("order").addEventListener("change", (event) => { state.order = event.target.value; showState(); });
  $("find").addEventListener("input", (event) => { state.find = event.target.value; drawGrid(); });
  $("outlines").addEventListener("change", (event) => { state.outlines = event.target.checked; showState(); });
  $("filters").addEventListener("submit", (event) => event.preventDefault());
}

// Arrows move between tabs, and between the fields of the grid.
function startKeys() {
  $("tabs").addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    const at = TABS.findIndex(([key]) => key === currentTab);
    showTab(TABS[(at + by + TABS.length) % TABS.length][0], true);
    event.preventDefault();
  });
  $("grid").addEventListener("keydown", (event) => {
    const cards = [...$("grid").querySelectorAll("button")];
    const columns = getComputedStyle($("grid")).gridTemplateColumns.split(" ").length;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    const next = by && cards[cards.indexOf(document.activeElement) + by];
    if (!next) return;
    next.focus();
    event.preventDefault();
  });
}

function headline() {
  $("name").textContent = DATA.name;
  const cells = DATA.fields.reduce((sum, field) => sum + field.n, 0);
  const facts = [];
  if (DATA.evidence) facts.push(["mAP", number(DATA.evidence.map)]);
  if (DATA.total) {
    const some = DATA.fields.length < DATA.total ? `${count(DATA.fields.length)} of ${count(DATA.total)}` : count(DATA.total);
    facts.push(["fields", some], ["cells", count(cells)]);
  }
  if (DATA.training.runs.length) facts.push(["runs", count(DATA.training.runs.length)]);
  $("facts").replaceChildren(...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  $("kit").textContent = `hpa-kit ${DATA.version}, a ${DATA.kind}`;
}

headline();
$("tabs").append(...TABS.map(([key, text]) =>
  make("button", { type: "button", role: "tab", id: `tab-${key}`, "aria-controls": `panel-${key}`, onclick: () => showTab(key) }, text)));
startFilters();
startViewer();
startKeys();
showTab(DATA.fields.length || !DATA.training.runs.length ? "fields" : "training");
document.documentElement.dataset.ready = "yes";
