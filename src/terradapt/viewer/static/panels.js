// Layers, classes, queue, figures, pixel: what stands left and right of the scene.

import { $, css, fill, make, number, percent } from "./dom.js";

export function showLayers(scene, onchange) {
  const rows = [...scene.layers.values()].reverse().map(({ about }) => {
    const shown = scene.shown.get(about.id);
    const box = make("input", { type: "checkbox", checked: shown.visible, onchange: (e) => onchange(about.id, { visible: e.target.checked }) });
    box.checked = shown.visible;
    const slide = make("input", {
      type: "range", min: 0, max: 100, value: Math.round(shown.opacity * 100), "aria-label": `Opacity of ${about.title}`,
      oninput: (e) => onchange(about.id, { opacity: e.target.value / 100 }),
    });
    return make("li", { "data-layer": about.id }, make("label", {}, box, make("span", { title: about.title }, about.title)), slide);
  });
  for (const extra of scene.extras ?? []) rows.unshift(extra());
  fill($("layers"), ...rows);
}

export function toggleRow(title, layer, note = "") {
  const box = make("input", { type: "checkbox", onchange: (e) => layer.setVisible(e.target.checked) });
  box.checked = layer.getVisible();
  return make("li", {}, make("label", {}, box, make("span", { title }, title)), make("span", { class: "aside" }, note));
}

export function showClasses(state, hectares, figures, choose) {
  $("classes-box").hidden = !state.classes.length;
  $("class-form").hidden = !state.correcting;
  const before = figures?.map;
  const after = figures?.new;
  const known = hectares && hectares.share > 0;
  const heads = ["Class"];
  if (known) heads.push(hectares.unit);
  if (before?.places) heads.push("IoU");
  if (after) heads.push("new");
  fill($("classes-head"), make("tr", {}, ...heads.map((h) => make("th", {}, h))));
  $("share").textContent = known ? (hectares.share < 1 ? `in ${percent(hectares.share)} of the scene` : "whole scene") : "";
  const rows = state.classes.map((entry, index) => {
    const cells = [
      make("td", {}, make("button", {
        type: "button", "aria-pressed": false, title: entry.name, onclick: () => choose(entry.name),
      }, make("span", { class: "digit" }, index < 9 ? index + 1 : ""), make("span", { class: "swatch", colour: css(entry.colour) }), make("span", { class: "name" }, entry.name))),
    ];
    if (known) cells.push(make("td", {}, number(hectares.classes[entry.name] ?? 0)));
    const was = before?.iou?.[index] ?? null;
    const is = after?.iou?.[index] ?? null;
    if (before?.places) cells.push(make("td", {}, was === null ? "–" : was.toFixed(2)));
    if (after) {
      const better = was !== null && is !== null && Math.abs(is - was) >= 0.005 ? (is > was ? "better" : "worse") : "";
      cells.push(make("td", { class: better }, is === null ? "–" : is.toFixed(2)));
    }
    const row = make("tr", { class: entry.name === state.chosen && state.correcting ? "chosen" : "" }, ...cells);
    row.querySelector("button").removeAttribute("aria-pressed");
    if (entry.name === state.chosen && state.correcting) row.querySelector("button").setAttribute("aria-current", "true");
    return row;
  });
  fill($("classes"), ...rows);
}

export function showQueue(places, scene, current, go) {
  $("queue-hint").hidden = places.length > 0;
  const rows = places.map((entry) => {
    const [row, col] = entry.place;
    const here = current && current.place[0] === row && current.place[1] === col;
    const picture = make("img", { class: "thumb", alt: "", src: `/tiles/${scene.number}/scene/0/${col}/${row}.png?v=`, width: 56, height: 56, loading: "lazy" });
    const what = entry.random
      ? make("span", { class: "tag" }, "drawn by chance")
      : make("span", {}, entry.uncertainty === null ? "not predicted yet" : `unsure ${percent(entry.uncertainty)}`);
    const text = make("span", {}, make("strong", {}, `Row ${row + 1}, column ${col + 1}`), what);
    return make("li", {}, make("button", { type: "button", "aria-current": here ? "true" : null, onclick: () => go(entry) }, picture, text));
  });
  fill($("queue"), ...rows);
}

/** Areas by the places drawn by chance: what there is, not what is mapped. */
function estimated({ unit, estimate }) {
  const rows = Object.entries(estimate.classes).filter(([, said]) => said.area > 0 || said.reach > 0).map(([name, said]) =>
    make("tr", {}, make("th", { scope: "row", title: name }, name), make("td", {}, number(said.area)),
      make("td", {}, said.reach === null ? "" : `± ${number(said.reach)}`)));
  const how = estimate.by_map ? "stratified by the whole map" : "without the map, which is not whole yet";
  return [make("h2", { class: "next" }, unit === "ha" ? "Hectares there are" : "Pixels there are"),
    make("table", { class: "estimate" }, make("tbody", {}, ...rows)),
    make("p", { class: "hint" }, `In the whole scene, 95 % interval, from the places drawn by chance, ${how}`)];
}

export function showFigures(figures, hectares) {
  const body = $("figures-body");
  const one = figures?.map;
  if (!one || !one.places) {
    fill(body, make("p", { class: "hint" }, one?.waiting
      ? "The places drawn by chance are being predicted."
      : "Answer some of the places drawn by chance: they are never learnt from, and say how good the map is."));
    return;
  }
  const figure = (title, f) => make("div", {}, make("span", {}, title),
    make("div", { class: "big" }, percent(f.oa), f.reach === null ? "" : make("small", {}, ` ± ${percent(f.reach)}`)));
  const pair = make("div", { class: "pair" }, figure(figures.new ? "Was" : "Right pixels", one));
  if (figures.new?.places) pair.append(figure("New model", figures.new));
  const parts = [pair, make("p", { class: "hint" }, `95 % interval from ${one.places} place${one.places > 1 ? "s" : ""} drawn by chance`)];
  if (figures.new?.waiting) parts.push(make("p", { class: "hint" }, `${figures.new.waiting} of them are being predicted by the new model.`));
  if (one.weak) parts.push(make("p", { class: "weak" }, "Weak: fewer than 20 places."));
  if (hectares?.estimate) parts.push(...estimated(hectares));
  fill(body, ...parts);
}

export function showPixel(answer, state) {
  $("pixel-box").hidden = false;
  const parts = [];
  for (const map of answer.maps) {
    const title = map.model ? `${map.title} · model ${map.model}` : map.title;
    parts.push(make("p", { class: "hint" }, title));
    if (!map.scores) { parts.push(make("div", {}, map.class ?? "no data")); continue; }
    const rows = Object.entries(map.scores).sort((a, b) => b[1] - a[1]).slice(0, 6).map(([name, share]) => {
      const known = state.classes.find((c) => c.name === name);
      return make("div", {}, make("span", { title: name }, name),
        make("span", { class: "meter" }, make("i", { share, colour: known ? css(known.colour) : "#888" })), make("span", {}, percent(share)));
    });
    parts.push(make("div", { class: "scores" }, ...rows));
  }
  const facts = [["Row, column", `${answer.row}, ${answer.col}`]];
  if (answer.corrected !== undefined) facts.unshift(["Corrected to", answer.corrected ?? "not corrected"]);
  if (answer.place) facts.push(["In the CRS", answer.place.map((v) => v.toFixed(2)).join(", ")]);
  if (answer.lonlat) facts.push(["Longitude, latitude", answer.lonlat.map((v) => v.toFixed(6)).join(", ")]);
  parts.push(make("dl", { class: "facts" }, ...facts.flatMap(([k, v]) => [make("dt", {}, k), make("dd", {}, v)])));
  fill($("pixel"), ...parts);
}

export function showWork(work) {
  const running = Boolean(work.doing);
  $("work").hidden = !running;
  if (!running) return;
  const names = { retrain: "Retraining", look: "Looking again", write: "Writing the map" };
  const parts = [names[work.doing] ?? work.doing];
  if (work.total) parts.push(`${work.done} of ${work.total} ${work.unit ?? ""}`.trim());
  else if (work.phase) parts.push(work.phase);
  if (work.seconds_left) parts.push(work.seconds_left > 90 ? `${Math.round(work.seconds_left / 60)} min left` : `${Math.round(work.seconds_left)} s left`);
  $("work-text").textContent = parts.join(" · ");
  if (work.total) { $("work-bar").value = work.done / work.total; } else { $("work-bar").removeAttribute("value"); }
}
