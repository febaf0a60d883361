// Tools: a stroke is sent when it is drawn, and counts when the server has it on disk.
/* global ol */

import { newKey, post } from "./api.js";
import { $, css, notice, told } from "./dom.js";
import { Editing } from "./edit.js";

const KIND = { brush: "LineString", line: "LineString", polygon: "Polygon", right: "Polygon" };

export class Tools {
  constructor(scene, state) {
    this.scene = scene; // SceneMap
    this.state = state; // {classes, chosen}
    this.tool = "hand";
    this.width = 24;
    this.draw = null;
    this.pending = new ol.source.Vector();
    this.cursor = new ol.Feature();
    this.cursorSource = new ol.source.Vector({ features: [this.cursor] });
    scene.map.addLayer(new ol.layer.Vector({ source: this.pending, style: (f) => this.#style(f), zIndex: 96 }));
    scene.map.addLayer(new ol.layer.Vector({
      source: this.cursorSource, zIndex: 99,
      style: () => [
        new ol.style.Style({ stroke: new ol.style.Stroke({ color: "rgba(0,0,0,.8)", width: 3 }) }),
        new ol.style.Style({ stroke: new ol.style.Stroke({ color: "#fff", width: 1.5 }) }),
      ],
    }));
    scene.map.on("pointermove", (event) => this.#follow(event.coordinate));
    $("map").addEventListener("pointerleave", () => this.cursor.setGeometry(null));
    $("width").addEventListener("input", () => this.setWidth(Number($("width").value)));
    this.editing = new Editing(this);
    scene.onstrokes = () => this.editing.sync();
    this.sending = Promise.resolve();
    this.waiting = 0;
    this.setWidth(this.width);
  }

  choose(tool) {
    if (!this.state.correcting && tool !== "hand") return;
    this.tool = this.scene.tool = tool;
    for (const button of document.querySelectorAll("[data-tool]")) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
    }
    $("width-box").hidden = !["brush", "line"].includes(tool);
    $("square-box").hidden = !["polygon", "edit"].includes(tool);
    $("map").classList.toggle("drawing", !["hand", "edit"].includes(tool));
    this.editing.show(tool === "edit");
    $("map").classList.toggle("brushing", tool === "brush");
    if (tool !== "brush") this.cursor.setGeometry(null);
    if (this.draw) { this.scene.map.removeInteraction(this.draw); this.draw = null; }
    if (tool === "hand" || tool === "edit") return;
    this.draw = new ol.interaction.Draw({
      type: KIND[tool],
      source: null,
      freehand: tool === "brush",
      stopClick: true,
      condition: (event) => event.originalEvent.button === 0 && !this.scene.space,
      freehandCondition: (event) => tool === "brush" && event.originalEvent.button === 0 && !this.scene.space,
      style: (feature) => this.#style(feature),
      snapTolerance: 10,
      minPoints: tool === "polygon" || tool === "right" ? 3 : 2,
    });
    this.draw.on("drawend", (event) => this.#drawn(event.feature));
    this.scene.map.addInteraction(this.draw);
  }

  /** Leave a drawing, then the tool. */
  leave() {
    const sketch = this.draw && this.draw.getOverlay().getSource().getFeatures().some((f) => f.getGeometry().getType() !== "Point");
    if (sketch) this.draw.abortDrawing();
    else this.choose("hand");
  }

  setWidth(width) {
    this.width = Math.round(Math.min(200, Math.max(1, width)));
    $("width").value = this.width;
    const metres = this.scene.scene?.resolution;
    $("width-text").textContent = `${this.width} px${metres ? ` · ${(this.width * metres).toFixed(1)} m` : ""}`;
    if (this.at) this.#follow(this.at);
  }

  #follow(coordinate) {
    this.at = coordinate;
    if (this.tool === "brush") this.cursor.setGeometry(new ol.geom.Circle(coordinate, this.width / 2));
  }

  #style(feature) {
    const tool = feature.get("tool") ?? this.tool;
    const width = feature.get("wide") ?? this.width;
    const known = this.state.classes.find((c) => c.name === (feature.get("class") ?? this.state.chosen));
    const colour = tool === "right" ? [40, 200, 120] : known ? known.colour : [255, 0, 255];
    const type = feature.getGeometry().getType();
    if (type === "Point") return null;
    if (["brush", "line"].includes(tool)) {
      if (type !== "LineString") return null;
      const wide = Math.max(1.5, width / this.scene.map.getView().getResolution());
      const cap = tool === "line" ? "butt" : "round";
      return new ol.style.Style({ stroke: new ol.style.Stroke({ color: css(colour, 0.6), width: wide, lineCap: cap, lineJoin: "round" }) });
    }
    return [
      new ol.style.Style({ stroke: new ol.style.Stroke({ color: "rgba(0,0,0,.75)", width: 3.5 }), fill: new ol.style.Fill({ color: css(colour, 0.4) }) }),
      new ol.style.Style({ stroke: new ol.style.Stroke({ color: "#fff", width: 1.5, lineDash: tool === "right" ? [5, 4] : undefined }) }),
    ];
  }

  #drawn(feature) {
    const geometry = feature.getGeometry();
    const tool = this.tool;
    let points = geometry.getType() === "Polygon" ? geometry.getCoordinates()[0].slice(0, -1) : geometry.getCoordinates();
    points = points.map(([x, y]) => [x, -y]);
    if (tool === "brush" && points.every(([x, y]) => x === points[0][0] && y === points[0][1])) points = [points[0]];
    const body = {
      scene: this.scene.scene.number, kind: tool, class: tool === "right" ? "" : this.state.chosen,
      points, width: ["brush", "line"].includes(tool) ? this.width : 0, key: newKey(),
      square: tool === "polygon" && $("square").checked,
    };
    feature.setProperties({ tool, wide: this.width, class: body.class });
    this.send(body, feature);
  }

  /** Send a stroke after those before it; it stays in the page until the disk has it. */
  send(body, feature = null) {
    if (feature) this.pending.addFeature(feature);
    this.waiting += 1;
    this.#told();
    const job = this.sending.then(() => post("/strokes", body));
    this.sending = job.catch(() => {});
    return job.then(
      (answer) => { if (feature) this.pending.removeFeature(feature); return answer; },
      (error) => {
        if (error.status === 507 || error.status === 0) {
          notice(`Not saved: ${error.message}. ${error.fix}.`, { again: () => this.send(body, feature) });
        } else {
          if (feature) this.pending.removeFeature(feature);
          told(error);
        }
        return null;
      },
    ).finally(() => { this.waiting -= 1; this.#told(); });
  }

  async undo() {
    await this.sending;
    try {
      const answer = await post("/undo");
      if (answer.stroke === null) notice("There is nothing to undo.", { good: true });
    } catch (error) { told(error); }
  }

  #told() { this.onsaving?.(this.waiting); }
}
