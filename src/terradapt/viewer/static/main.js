// The page: wires the scene, the tools and the panels to the server.
/* global ol */

import { get, listen, newKey, post } from "./api.js";
import { $, fill, make, notice, told } from "./dom.js";
import { Tools } from "./draw.js";
import { SceneMap } from "./map.js";
import { showClasses, showFigures, showLayers, showPixel, showQueue, showWork, toggleRow } from "./panels.js";

const state = { classes: [], chosen: "", correcting: false, scene: null, work: { doing: null } };
const scene = new SceneMap();
const tools = new Tools(scene, state);
let hectares = null;
let figures = null;
let queue = [];
let place = null; // the queue's entry that is being answered
let soon = {}; // timers by name

function later(name, wait, action) {
  if (soon[name]) return;
  soon[name] = setTimeout(() => { delete soon[name]; action(); }, wait);
}

async function attempt(action) {
  try { return await action(); } catch (error) { told(error); return null; }
}

// -- what the server has ---------------------------------------------------------------------

async function load(number = null) {
  const session = await attempt(() => get("/session"));
  if (!session) return;
  const before = state.scene;
  const wanted = number ?? before?.number ?? 0;
  Object.assign(state, { session, classes: session.classes, correcting: session.correcting, scene: session.scenes[wanted] });
  scene.classes = state.classes;
  if (!state.classes.some((c) => c.name === state.chosen)) state.chosen = state.classes[0]?.name ?? "";
  fill($("scene-pick"), ...session.scenes.map((s) => make("option", { value: s.number, selected: s.number === wanted }, s.name)));
  document.title = `${state.scene.name} – terradapt`;
  chips(session);
  for (const id of ["queue-side", "making"]) $(id).hidden = !session.correcting;
  for (const button of document.querySelectorAll("[data-tool]:not([data-tool=hand]), #undo")) button.hidden = !session.correcting;
  if (!before || before.number !== wanted || before.height !== state.scene.height) {
    scene.open(state.scene);
    if (!before) scene.map.once("rendercomplete", () => attempt(() => post("/shown")));
    vectors();
    await strokes();
  } else {
    const fresh = session.candidate && !scene.layers.has("new");
    scene.setLayers(state.scene);
    if (fresh) startSwipe("map", "new");
    if (!session.candidate && scene.swipe && !(scene.layers.has(scene.swipe.left) && scene.layers.has(scene.swipe.right))) stopSwipe();
    scene.look();
  }
  tools.setWidth(tools.width);
  work(session.work);
  layers();
  saved(session.strokes);
  pages(session.pages);
  await sums();
}

function chips(session) {
  $("model-chip").hidden = !session.model;
  if (session.model) {
    $("model-chip").textContent = `${session.model.name} · ${session.model.hash}`;
    $("model-chip").title = `confidence: ${session.model.confidence}`;
  }
  $("trial-chip").hidden = !session.candidate;
  if (session.candidate) $("trial-chip").textContent = `new model · ${session.candidate.hash}`;
  $("decide").hidden = !session.candidate;
}

async function strokes() {
  if (!state.correcting) return;
  const all = `/features/${state.scene.number}/0/0/${state.scene.height}/${state.scene.width}`;
  const found = await attempt(() => get(all));
  if (found) scene.setStrokes(found.features);
}

/** Vector files of the user: fetched for the part in view. */
function vectors() {
  for (const layer of scene.vectorLayers ?? []) scene.map.removeLayer(layer);
  scene.vectorLayers = [];
  scene.extras = [];
  if (state.correcting) {
    scene.extras.push(() => toggleRow("Corrections", scene.strokeLayer));
    if (state.scene.held.length) scene.extras.push(() => toggleRow("Held-out places", scene.heldLayer, "dashed"));
  }
  for (const { title, count } of state.scene.vectors) {
    const source = new ol.source.Vector({
      format: new ol.format.GeoJSON(),
      url: (extent) => {
        const [left, bottom, right, top] = extent;
        const row = Math.max(0, Math.floor(-top)); const col = Math.max(0, Math.floor(left));
        const height = Math.max(0, Math.ceil(-bottom) - row); const width = Math.max(0, Math.ceil(right) - col);
        return `/features/${state.scene.number}/${row}/${col}/${height}/${width}?layer=${encodeURIComponent(title)}`;
      },
      strategy: ol.loadingstrategy.bbox,
    });
    const layer = new ol.layer.Vector({
      source, zIndex: 70,
      style: [
        new ol.style.Style({ stroke: new ol.style.Stroke({ color: "rgba(0,0,0,.7)", width: 3.5 }) }),
        new ol.style.Style({ stroke: new ol.style.Stroke({ color: "#ffd21f", width: 1.7 }), image: new ol.style.Circle({ radius: 4, fill: new ol.style.Fill({ color: "#ffd21f" }) }) }),
      ],
    });
    scene.map.addLayer(layer);
    scene.vectorLayers.push(layer);
    scene.extras.push(() => toggleRow(title, layer, `${count}`));
  }
}

async function sums() {
  if (state.session.model) hectares = await attempt(() => get(`/hectares/${state.scene.number}`));
  if (state.correcting) {
    figures = await attempt(() => get("/figures"));
    queue = (await attempt(() => get(`/queue/${state.scene.number}`))) ?? [];
    showFigures(figures, hectares);
    showQueue(queue, state.scene, place, goTo);
  }
  classes();
}

function classes() { showClasses(state, hectares, figures, chooseClass); }

function layers() {
  showLayers(scene, (id, changes) => { scene.setShown(id, changes); });
  const options = (chosen) => [...scene.layers.values()].map(({ about }) => make("option", { value: about.id, selected: about.id === chosen }, about.title));
  if (scene.swipe) {
    fill($("swipe-left"), ...options(scene.swipe.left));
    fill($("swipe-right"), ...options(scene.swipe.right));
  }
  $("swipe-box").hidden = !scene.swipe;
  $("swipe").hidden = scene.layers.size < 2;
}

function chooseClass(name) {
  state.chosen = name;
  classes();
  if (state.correcting && (tools.tool === "hand" || tools.tool === "right")) tools.choose("brush");
}

// -- swipe -----------------------------------------------------------------------------------

function startSwipe(left, right) {
  const ids = [...scene.layers.keys()];
  scene.setSwipe({ left: left ?? ids[0], right: right ?? (ids.includes("map") ? "map" : ids[1]), at: 0.5 });
  $("swipe").setAttribute("aria-pressed", "true");
  layers();
}

function stopSwipe() {
  scene.setSwipe(null);
  $("swipe").setAttribute("aria-pressed", "false");
  layers();
}

// -- places ----------------------------------------------------------------------------------

function goTo(entry) {
  place = entry;
  scene.goTo(...entry.place);
  $("place-box").hidden = false;
  $("place-title").textContent = `Row ${entry.place[0] + 1}, column ${entry.place[1] + 1}`;
  $("place-hint").textContent = entry.random
    ? "Drawn by chance: correct all that is wrong in the frame, then say that the rest is right. It is never learnt from."
    : "Correct what is wrong in the frame, then say that the rest is right, or go on.";
  showQueue(queue, state.scene, place, goTo);
}

async function placeIsRight() {
  if (!place) return;
  const answered = place;
  const body = {
    scene: state.scene.number, kind: "right", class: "", points: scene.blockRing(...answered.place), width: 0,
    key: newKey(), place: answered.place,
  };
  const answer = await tools.send(body);
  if (answer) { await sums(); nextPlace(); }
}

function nextPlace() {
  const rest = queue.filter((e) => !place || e.place[0] !== place.place[0] || e.place[1] !== place.place[1]);
  if (rest.length) goTo(rest[0]);
  else { place = null; $("place-box").hidden = true; scene.place.clear(); }
}

// -- work ------------------------------------------------------------------------------------

function work(now) {
  state.work = now;
  showWork(now);
  for (const id of ["look", "retrain", "write-map"]) $(id).disabled = Boolean(now.doing);
  const trial = state.session?.candidate;
  $("retrain").hidden = Boolean(trial);
  $("look").hidden = Boolean(trial && !trial.look);
  $("keep").disabled = Boolean(now.doing);
  if (now.doing || !now.ended) return;
  const failed = { write: "The map was not written", look: "The model did not look again", retrain: "Retraining ended" };
  const stopped = { write: "Writing was stopped; it goes on from there next time.", look: "Looking again was stopped; the old model stays.", retrain: "Retraining was stopped; the old model stays." };
  if (now.error && now.error !== "stopped") notice(`${failed[now.ended]}: ${now.error}. ${now.fix}.`);
  else if (now.error) notice(stopped[now.ended], { good: true });
  else if (now.files) notice(`Written: ${now.files.join(", ")}`, { good: true });
  else notice("The new model is shown beside the old one: compare, then keep it or throw it away.", { good: true });
}

const acting = (path) => () => attempt(() => post(path));

// -- status line -----------------------------------------------------------------------------

function saved(count) { if (state.correcting) $("saved").textContent = tools.waiting ? `saving ${tools.waiting} …` : `${count ?? scene.strokes.getFeatures().length} corrections saved`; }
function pages(count) { $("pages").textContent = count > 1 ? `${count} pages are open` : ""; }

tools.onsaving = () => saved();
scene.onproblem = told;
scene.onwaiting = (count) => { $("blocks").textContent = count ? `predicting ${count} block${count > 1 ? "s" : ""}` : ""; };
scene.onview = () => {
  const resolution = scene.map.getView().getResolution();
  $("zoom").textContent = resolution >= 1 ? `1 : ${resolution.toFixed(resolution < 10 ? 1 : 0)}` : `${(1 / resolution).toFixed(1)} : 1`;
  if (!state.session?.model) return;
  if (state.session.opening) $("blocks").textContent = "the model opens";
  else if (!scene.full) $("blocks").textContent = "zoom in to predict";
};
let asked = null;
scene.map.on("pointermove", (event) => {
  const [x, y] = event.coordinate;
  const inside = x >= 0 && y <= 0 && x < state.scene.width && -y < state.scene.height;
  $("at-place").textContent = inside ? `row ${Math.floor(-y)}, column ${Math.floor(x)}` : "outside the scene";
});
scene.map.on("singleclick", async (event) => {
  if (tools.tool !== "hand") return;
  const [x, y] = event.coordinate;
  if (x < 0 || y > 0 || x >= state.scene.width || -y >= state.scene.height) return;
  asked?.abort();
  asked = new AbortController();
  const place = `/pixel/${state.scene.number}/${Math.floor(-y)}/${Math.floor(x)}`;
  try {
    const answer = await get(place, asked.signal);
    showPixel(answer, state);
    $("at-lonlat").textContent = answer.lonlat ? `${answer.lonlat[0].toFixed(6)}, ${answer.lonlat[1].toFixed(6)}` : "";
  } catch (error) { if (error.name !== "AbortError") told(error); }
});

// -- buttons and keys ------------------------------------------------------------------------

for (const button of document.querySelectorAll("[data-tool]")) button.addEventListener("click", () => tools.choose(button.dataset.tool));
const buttons = {
  undo: () => tools.undo(),
  swipe: () => (scene.swipe ? stopSwipe() : startSwipe()),
  "zoom-in": () => scene.zoomBy(2),
  "zoom-out": () => scene.zoomBy(0.5),
  "zoom-one": () => scene.zoomTo(1),
  "zoom-all": () => scene.fit(),
  look: acting("/look-again"),
  retrain: acting("/retrain"),
  stop: acting("/stop"),
  keep: acting("/keep"),
  throw: acting("/throw-away"),
  "write-map": acting("/write-map"),
  "place-right": placeIsRight,
  "place-skip": nextPlace,
  help: () => $("keys").showModal(),
  theme: () => {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    localStorage.setItem("theme", next);
  },
};
for (const [id, action] of Object.entries(buttons)) $(id).addEventListener("click", action);
$("scene-pick").addEventListener("change", (event) => { place = null; $("place-box").hidden = true; load(Number(event.target.value)); });
for (const side of ["left", "right"]) {
  $(`swipe-${side}`).addEventListener("change", (event) => scene.setSwipe({ ...scene.swipe, [side]: event.target.value }));
}
$("class-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = $("class-name").value;
  if (await attempt(() => post("/classes", { name }))) {
    $("class-name").value = "";
    await load();
    chooseClass(name.trim().replace(/\s+/g, " "));
  }
});

const keys = {
  b: () => tools.choose("brush"), p: () => tools.choose("polygon"), l: () => tools.choose("line"), r: () => tools.choose("right"),
  e: () => tools.choose("edit"), q: () => { $("square").checked = !$("square").checked; },
  h: () => tools.choose("hand"), u: () => tools.undo(), s: buttons.swipe, n: nextPlace, g: () => { if (state.correcting && !$("look").hidden && !$("look").disabled) buttons.look(); }, a: buttons["zoom-all"], 0: buttons["zoom-one"],
  "+": buttons["zoom-in"], "=": buttons["zoom-in"], "-": buttons["zoom-out"], "[": () => tools.setWidth(tools.width * 0.8 - 0.5), "]": () => tools.setWidth(tools.width * 1.25 + 0.5),
  "?": buttons.help, escape: () => tools.leave(),
  m: () => { const shown = scene.shown.get("map"); if (shown) { scene.setShown("map", { visible: !shown.visible }); layers(); } },
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  const typing = event.target.matches?.("input:not([type=range]):not([type=checkbox]), select");
  if (typing) return;
  const key = event.key.toLowerCase();
  if (tools.editing.key(event)) { event.preventDefault(); event.stopPropagation(); return; }
  const onButton = event.target.matches?.("button");
  if (key === " " && !onButton) { scene.space = true; event.preventDefault(); return; }
  if (key === "enter" && !onButton) { placeIsRight(); return; }
  if (/^[1-9]$/.test(key) && state.classes[key - 1]) { chooseClass(state.classes[key - 1].name); return; }
  if (keys[key]) { if (!(event.repeat && !"[]+-=".includes(key))) keys[key](); event.preventDefault(); }
}, true); // before the scene takes the arrows
document.addEventListener("keyup", (event) => { if (event.key === " ") scene.space = false; });

// -- what the server tells -------------------------------------------------------------------

listen({
  block: (event) => {
    if (event.scene !== state.scene?.number) return;
    $("blocks").textContent = event.waiting ? `predicting ${event.waiting} block${event.waiting > 1 ? "s" : ""}` : "";
    later("tiles", event.waiting ? 300 : 60, () => scene.refresh());
    later("sums", event.waiting ? 2500 : 400, sums);
  },
  stroke: (event) => {
    if (event.scene === state.scene?.number) {
      if (event.replaces !== null) scene.removeStroke(event.replaces);
      scene.addStroke(event.stroke);
    }
    saved();
    later("sums", 800, sums);
  },
  undo: (event) => { if (event.scene === state.scene?.number) scene.removeStroke(event.stroke); saved(); later("sums", 400, sums); },
  session: () => later("session", 50, () => load()),
  work: (event) => work(event),
  pages: (event) => pages(event.count),
  problem: (event) => told({ message: event.error, fix: event.fix }),
  lost: () => notice("terradapt view does not answer. What was acknowledged is safe; look at the terminal."),
  back: () => { notice(""); load(); },
});

window.terradapt = Object.freeze({ scene, tools, state });
load();
