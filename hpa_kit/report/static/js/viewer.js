// One field, large: a cell can be chosen by a click, by Tab and Enter, or by the arrows up and down.
// `missed` is a true cell that was not found and is to be seen.
const view = { place: 0, cell: null, missed: -1, canvas: null, opener: null };

function openViewer(place, cell = null, missed = -1) {
  view.opener = document.activeElement;
  showField(place, cell, missed);
  if (!$("viewer").open) $("viewer").showModal();
  $("viewer").focus();
}

function showField(place, cell = null, missed = -1) {
  view.place = place;
  view.missed = missed;
  view.cell = null;
  const field = DATA.fields[place];
  $("viewer-name").textContent = field.id;
  $("viewer-name").title = `${field.id}, ${field.w} x ${field.h} px`;
  view.canvas = make("canvas", { width: 1, height: 1 });
  const [width, height] = frame(field);
  const shot = make("div", { class: "shot", id: "shot", "data-ratio": width / height });
  $("stage").replaceChildren(shot);
  fit();
  chooseCell(cell);
  repaint();
}

// As large as the stage allows, in the field's own proportions.
function fit() {
  const shot = $("shot");
  if (!shot) return;
  const { clientWidth, clientHeight } = $("stage");
  const ratio = Number(shot.dataset.ratio);
  const width = Math.min(clientWidth || 600, (clientHeight || 600) * ratio);
  shot.style.width = `${width}px`;
  shot.style.height = `${width / ratio}px`;
}

async function repaint() {
  const { canvas, place } = view;
  const found = await pixels(place);
  if (canvas !== view.canvas) return;
  paint(canvas, found, state.picture);
  if (state.overlay === "map" && state.class >= 0) paintMap(canvas, found, state.class);
}

function chooseCell(cell, focus = false) {
  const before = view.cell;
  view.cell = cell;
  $("shot").replaceChildren(view.canvas, outlines(view.place, cell, true));
  $("panel").replaceChildren(...(cell === null ? fieldPanel(view.place) : cellPanel(view.place, cell)));
  $("panel").scrollTop = 0;
  // What had the focus may be gone with what was replaced; keys must not get lost with it.
  const lost = $("viewer").open && !$("viewer").contains(document.activeElement);
  if (focus || lost) ($("shot").querySelector(`[data-cell="${cell ?? before}"]`) || $("viewer")).focus();
}

function step(by) {
  const at = state.shown.indexOf(view.place);
  const list = at < 0 ? DATA.fields.map((_, place) => place) : state.shown;
  const next = list[(list.indexOf(view.place) + by + list.length) % list.length];
  showField(next);
}

function stepCell(by) {
  const cells = record(view.place).c;
  const real = cells.map((_, k) => k).filter((k) => cells[k]);
  if (!real.length) return;
  const at = real.indexOf(view.cell);
  chooseCell(real[at < 0 ? (by > 0 ? 0 : real.length - 1) : (at + by + real.length) % real.length], true);
}

// Escape leaves the cell first, then the field.
function back() {
  if (view.cell !== null) chooseCell(null);
  else $("viewer").close();
}

function viewerKeys(event) {
  if (event.target.matches("select, input")) return;
  const moves = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => stepCell(-1), ArrowDown: () => stepCell(1) };
  const cell = event.target.dataset && event.target.dataset.cell;
  if (moves[event.key]) moves[event.key]();
  else if (cell !== undefined && (event.key === "Enter" || event.key === " ")) chooseCell(Number(cell), true);
  else return;
  event.preventDefault();
}

function startViewer() {
  $("viewer").addEventListener("cancel", (event) => { event.preventDefault(); back(); });
  $("viewer").addEventListener("keydown", (event) => {
    // Chromium closes a dialog on a second Escape whatever "cancel" says, so the key itself is taken.
    if (event.key !== "Escape") return viewerKeys(event);
    event.preventDefault();
    event.stopPropagation();
    back();
  });
  $("viewer").addEventListener("close", () => {
    const again = $("grid").querySelector(`[data-place="${view.place}"]`);
    (view.opener && view.opener.isConnected && view.opener !== document.body ? view.opener : again || document.body).focus();
  });
  $("stage").addEventListener("click", (event) => {
    const path = event.target.closest("[data-cell]");
    chooseCell(path ? Number(path.dataset.cell) : null, Boolean(path));
  });
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("close").addEventListener("click", () => $("viewer").close());
  window.addEventListener("resize", fit);
  new ResizeObserver(fit).observe($("stage"));
}
