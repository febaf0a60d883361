// Editing: vertices are moved; the journal gets a stroke that takes the old one's place.
/* global ol */

import { newKey } from "./api.js";
import { $ } from "./dom.js";

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

/** The vertices of a drawing, (x, -y); a polygon's first one once. */
function vertices(feature) {
  const geometry = feature.getGeometry();
  const found = geometry.getCoordinates();
  return geometry.getType() === "Polygon" ? found[0].slice(0, -1) : found;
}

function place(feature, corners) {
  const polygon = feature.get("kind") === "polygon";
  feature.setGeometry(polygon ? new ol.geom.Polygon([[...corners, corners[0]]]) : new ol.geom.LineString(corners));
}

export class Editing {
  constructor(tools) {
    this.tools = tools;
    this.map = tools.scene.map;
    this.source = new ol.source.Vector();
    this.mark = new ol.Feature(); // the vertex that the keyboard moves
    this.at = null; // {feature, index}
    this.modify = null;
    const dot = (radius, colour) => new ol.style.Circle({
      radius, fill: new ol.style.Fill({ color: colour }), stroke: new ol.style.Stroke({ color: "#000", width: 1.5 }),
    });
    this.map.addLayer(new ol.layer.Vector({
      source: this.source, zIndex: 97,
      style: [
        new ol.style.Style({ stroke: new ol.style.Stroke({ color: "#fff", width: 2 }) }),
        new ol.style.Style({ image: dot(4, "#fff"), geometry: (f) => new ol.geom.MultiPoint(vertices(f)) }),
      ],
    }));
    this.map.addLayer(new ol.layer.Vector({
      source: new ol.source.Vector({ features: [this.mark] }), zIndex: 98, style: new ol.style.Style({ image: dot(7, "#ffd21f") }),
    }));
  }

  show(on) {
    if (on === (this.modify !== null)) return;
    if (!on) {
      this.map.removeInteraction(this.modify);
      this.modify = null;
      this.#choose(null);
      this.source.clear();
      return;
    }
    this.modify = new ol.interaction.Modify({
      source: this.source, pixelTolerance: 10,
      condition: (event) => event.originalEvent.button === 0 && !this.tools.scene.space,
    });
    this.modify.on("modifyend", ({ features }) => features.forEach((feature) => this.#save(feature)));
    this.map.addInteraction(this.modify);
    this.sync();
  }

  /** Bring the drawings up to the strokes that are there. */
  sync() {
    if (!this.modify) return;
    const strokes = this.tools.scene.strokes;
    for (const feature of this.source.getFeatures()) {
      if (!strokes.getFeatureById(feature.getId()) && !feature.get("sent")) this.source.removeFeature(feature);
    }
    for (const stroke of strokes.getFeatures().filter((f) => f.get("points"))) {
      let feature = this.source.getFeatureById(stroke.getId());
      if (!feature) {
        feature = new ol.Feature();
        feature.setId(stroke.getId());
        this.source.addFeature(feature);
      }
      feature.unset("sent");
      if (feature.get("points") === stroke.get("points")) continue;
      feature.setProperties({ kind: stroke.get("kind"), class: stroke.get("class"), points: stroke.get("points"), wide: stroke.get("width") });
      this.#reset(feature);
    }
    if (this.at && !this.source.hasFeature(this.at.feature)) this.#choose(null);
    else if (this.at) this.#choose(this.at);
  }

  #reset(feature) { place(feature, feature.get("points").map(([x, y]) => [x, -y])); }

  /** Send a drawing whose vertices were moved; it stays as it is until the disk has it. */
  async #save(feature) {
    const points = vertices(feature).map(([x, y]) => [x, -y]);
    if (String(points) === String(feature.get("points"))) return;
    const kind = feature.get("kind");
    const shown = feature.clone();
    shown.setProperties({ tool: kind });
    const answer = await this.tools.send({
      scene: this.tools.scene.scene.number, kind, class: feature.get("class"), points, width: feature.get("wide"), key: newKey(),
      square: kind === "polygon" && $("square").checked, replaces: feature.getId(),
    }, shown);
    if (!answer) { this.#reset(feature); return; }
    feature.setProperties({ points: answer.points, sent: true }); // until the stroke itself comes
    if (this.source.hasFeature(feature)) {
      feature.setId(answer.stroke);
      this.#reset(feature);
    }
    this.sync();
  }

  // -- keyboard ----------------------------------------------------------------------------------

  /** Choose a vertex, move it, save it; returns whether the key was meant for that. */
  key(event) {
    if (!this.modify || event.target.matches?.("button, input, select")) return false;
    if (event.key === "," || event.key === ".") { this.#next(event.key === "." ? 1 : -1); return true; }
    if (!this.at) return false;
    const { feature, index } = this.at;
    if (event.key === "Enter") { this.#save(feature); return true; }
    if (event.key === "Escape") { this.#reset(feature); this.#choose(null); return true; }
    const step = STEPS[event.key];
    if (!step) return false;
    const far = event.shiftKey ? 10 : 1;
    const corners = vertices(feature);
    corners[index] = [corners[index][0] + step[0] * far, corners[index][1] + step[1] * far];
    place(feature, corners);
    this.#choose(this.at);
    return true;
  }

  #next(by) {
    const inView = this.map.getView().calculateExtent(this.map.getSize());
    const all = this.source.getFeatures().sort((a, b) => a.getId() - b.getId()).flatMap((feature) => vertices(feature)
      .map((corner, index) => ({ feature, index, corner }))).filter(({ corner }) => ol.extent.containsCoordinate(inView, corner));
    if (!all.length) { this.#choose(null); return; }
    const now = all.findIndex(({ feature, index }) => feature === this.at?.feature && index === this.at.index);
    const next = now < 0 ? (by > 0 ? 0 : all.length - 1) : (now + by + all.length) % all.length;
    if (this.at && this.at.feature !== all[next].feature) this.#save(this.at.feature);
    this.#choose(all[next]);
  }

  #choose(at) {
    const corners = at && vertices(at.feature);
    this.at = at && at.index < corners.length ? at : null;
    this.mark.setGeometry(this.at ? new ol.geom.Point(corners[at.index]) : undefined);
    if (!this.at) return;
    const [x, y] = corners[at.index];
    $("at-place").textContent = `corner ${at.index + 1} of ${corners.length}: row ${Math.floor(-y)}, column ${Math.floor(x)}`;
  }
}
