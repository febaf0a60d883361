// The scene in its own pixels: x to the right, y upwards from 0, so rows are -y.
/* global ol */

import { post } from "./api.js";
import { $, css } from "./dom.js";

const HELD = "#d98a00";

export class SceneMap {
  constructor() {
    this.scene = null;
    this.layers = new Map(); // id -> {layer, about}
    this.version = 0;
    this.shown = new Map(); // id -> {visible, opacity}; kept when layers come and go
    this.swipe = null; // {left, right, at}
    this.classes = [];
    this.strokes = new ol.source.Vector();
    this.held = new ol.source.Vector();
    this.place = new ol.source.Vector();
    this.space = false;
    this.tool = "hand";
    this.onview = () => {};
    this.onstrokes = () => {};
    this.map = new ol.Map({
      target: "map",
      controls: [],
      interactions: this.#interactions(),
      moveTolerance: 2,
      maxTilesLoading: 8,
      keyboardEventTarget: $("map"),
    });
    this.strokeLayer = new ol.layer.Vector({
      source: this.strokes, style: (f) => this.#strokeStyle(f), updateWhileInteracting: true, zIndex: 90,
    });
    this.heldLayer = new ol.layer.Vector({
      source: this.held, zIndex: 80, minZoom: 0,
      style: new ol.style.Style({ stroke: new ol.style.Stroke({ color: HELD, width: 1.5, lineDash: [6, 5] }) }),
    });
    this.placeLayer = new ol.layer.Vector({
      source: this.place, zIndex: 95,
      style: [
        new ol.style.Style({ stroke: new ol.style.Stroke({ color: "rgba(0,0,0,.6)", width: 5 }) }),
        new ol.style.Style({ stroke: new ol.style.Stroke({ color: "#ffffff", width: 2.5 }) }),
      ],
    });
    for (const layer of [this.heldLayer, this.strokeLayer, this.placeLayer]) this.map.addLayer(layer);
    this.map.on("moveend", () => this.#moved());
    this.#swiping();
  }

  #interactions() {
    const pans = (event) => {
      const button = event.activePointers ? event.activePointers[0].button : event.originalEvent.button;
      return this.tool === "hand" || this.tool === "edit" || this.space || button === 1;
    };
    return [
      new ol.interaction.DragPan({ condition: pans, kinetic: new ol.Kinetic(-0.005, 0.05, 100) }),
      new ol.interaction.MouseWheelZoom({ duration: 120 }),
      new ol.interaction.PinchZoom(),
      new ol.interaction.KeyboardPan({ pixelDelta: 160 }),
    ];
  }

  /** Show a scene as the server describes it. */
  open(scene) {
    this.scene = scene;
    const extent = [0, -scene.height, scene.width, 0];
    this.projection = new ol.proj.Projection({ code: `scene-${scene.number}`, units: "pixels", extent });
    const coarsest = scene.levels.length - 1;
    this.grid = new ol.tilegrid.TileGrid({
      extent,
      origin: [0, 0],
      resolutions: scene.levels.map((_, i) => 2 ** (coarsest - i)),
      tileSizes: scene.levels.map((_, i) => scene.levels[coarsest - i][0]),
    });
    this.coarsest = coarsest;
    this.map.setView(new ol.View({
      projection: this.projection, center: [scene.width / 2, -scene.height / 2], extent,
      showFullExtent: true, constrainOnlyCenter: true, smoothExtentConstraint: false, smoothResolutionConstraint: false,
      minResolution: 1 / 16, maxResolution: Math.max(4, 2 ** (coarsest + 2)), enableRotation: false,
    }));
    for (const { layer } of this.layers.values()) this.map.removeLayer(layer);
    this.layers.clear();
    this.strokes.clear();
    this.place.clear();
    this.held.clear();
    for (const [row, col] of scene.held) this.held.addFeature(new ol.Feature(this.#blockShape(row, col)));
    this.setLayers(scene);
    this.fit();
  }

  /** Bring the layers up to what the server has. */
  setLayers(scene) {
    this.scene = scene;
    const wanted = new Map(scene.layers.map((about) => [about.id, about]));
    for (const [id, held] of [...this.layers]) {
      const about = wanted.get(id);
      if (!about || about.key !== held.about.key) { this.map.removeLayer(held.layer); this.layers.delete(id); }
    }
    scene.layers.forEach((about, index) => {
      if (!this.layers.has(about.id)) this.#addLayer(about, index);
    });
  }

  #addLayer(about, index) {
    const photo = about.kind === "photo";
    const start = {
      visible: about.kind !== "confidence" && about.id !== "new" && (about.kind !== "photo" || about.id === "scene"),
      opacity: photo || !this.layers.has("scene") ? 1 : 0.55,
    };
    if (!this.shown.has(about.id)) this.shown.set(about.id, start);
    const shown = this.shown.get(about.id);
    const source = new ol.source.XYZ({
      projection: this.projection, tileGrid: this.grid, tileUrlFunction: this.#address(about), wrapX: false,
      transition: 0, interpolate: photo, cacheSize: 256,
    });
    const layer = new ol.layer.Tile({ source, visible: shown.visible, opacity: shown.opacity, zIndex: index, preload: photo ? 1 : 0 });
    layer.on("prerender", (event) => this.#clip(about.id, event));
    layer.on("postrender", (event) => { if (this.#side(about.id)) event.context.restore(); });
    this.layers.set(about.id, { layer, about });
    this.map.addLayer(layer);
  }

  #address(about) {
    const made = about.kind !== "photo" && about.key;
    return ([z, x, y]) => {
      const level = this.coarsest - z;
      const turn = made ? `&t=${this.version}` : "";
      return `/tiles/${this.scene.number}/${about.id}/${level}/${x}/${y}.png?v=${about.key}${turn}`;
    };
  }

  /** Ask for the tiles of predicted layers again: blocks have become ready. */
  refresh() {
    this.version += 1;
    for (const { layer, about } of this.layers.values()) {
      if (about.kind !== "photo" && about.key) {
        layer.getSource().setTileUrlFunction(this.#address(about), String(this.version));
      }
    }
  }

  setShown(id, changes) {
    const shown = Object.assign(this.shown.get(id), changes);
    const { layer } = this.layers.get(id);
    layer.setVisible(shown.visible);
    layer.setOpacity(shown.opacity);
    this.#moved();
  }

  fit() {
    this.map.getView().fit([0, -this.scene.height, this.scene.width, 0], { padding: [8, 8, 8, 8] });
  }

  zoomBy(factor) {
    const view = this.map.getView();
    view.animate({ resolution: view.getConstrainedResolution(view.getResolution() / factor), duration: 120 });
  }

  zoomTo(resolution) { this.map.getView().setResolution(resolution); }

  goTo(row, col) {
    this.place.clear();
    const shape = this.#blockShape(row, col);
    this.place.addFeature(new ol.Feature(shape));
    const view = this.map.getView();
    const [left, bottom, right, top] = shape.getExtent();
    const [width, height] = this.map.getSize();
    view.setResolution(Math.min(1, Math.max((right - left) / width, (top - bottom) / height) * 1.15));
    view.setCenter([(left + right) / 2, (bottom + top) / 2]);
  }

  blockRing(row, col) {
    const side = 512;
    const right = Math.min(this.scene.width, (col + 1) * side);
    const bottom = Math.min(this.scene.height, (row + 1) * side);
    return [[col * side, row * side], [right, row * side], [right, bottom], [col * side, bottom]];
  }

  #blockShape(row, col) {
    const ring = this.blockRing(row, col).map(([x, y]) => [x, -y]);
    return new ol.geom.Polygon([[...ring, ring[0]]]);
  }

  /** The pixels in view, as the server wants them. */
  window() {
    const size = this.map.getSize();
    if (!size) return null;
    const [left, bottom, right, top] = this.map.getView().calculateExtent(size);
    const row = Math.max(0, Math.floor(-top));
    const col = Math.max(0, Math.floor(left));
    const height = Math.min(this.scene.height, Math.ceil(-bottom)) - row;
    const width = Math.min(this.scene.width, Math.ceil(right)) - col;
    return height > 0 && width > 0 ? [row, col, height, width] : null;
  }

  /** Whether one tile pixel is one pixel of the scene: only then the view predicts. */
  get full() { return this.grid.getZForResolution(this.map.getView().getResolution(), 0) === this.coarsest; }

  async #moved() {
    if (!this.scene) return;
    const window = this.window();
    this.onview();
    const predicted = [...this.layers.values()].filter(({ about }) => about.key);
    if (!window || !predicted.length) return;
    const visible = predicted.filter(({ layer }) => layer.getVisible()).map(({ about }) => about.id);
    const none = !this.full || !visible.length;
    try {
      const answer = await post("/look", { scene: this.scene.number, window: none ? [0, 0, 0, 0] : window, layers: visible });
      this.onwaiting?.(answer.waiting);
    } catch (error) { this.onproblem?.(error); }
  }

  look() { return this.#moved(); }

  // -- strokes ---------------------------------------------------------------------------------

  setStrokes(features) {
    this.strokes.clear();
    this.strokes.addFeatures(new ol.format.GeoJSON().readFeatures({ type: "FeatureCollection", features }));
    this.onstrokes();
  }

  addStroke(feature) {
    if (this.strokes.getFeatureById(feature.id)) return;
    this.strokes.addFeature(new ol.format.GeoJSON().readFeature(feature));
    this.onstrokes();
  }

  removeStroke(number) {
    const feature = this.strokes.getFeatureById(number);
    if (feature) { this.strokes.removeFeature(feature); this.onstrokes(); }
  }

  #strokeStyle(feature) {
    const known = this.classes.find((c) => c.name === feature.get("class"));
    const right = feature.get("kind") === "right";
    const pending = feature.get("pending");
    const colour = known ? known.colour : [40, 200, 120];
    const zIndex = feature.get("rank"); // a later stroke lies above an earlier one
    return [
      new ol.style.Style({
        zIndex,
        stroke: new ol.style.Stroke({ color: "rgba(0,0,0,.75)", width: 3, lineDash: pending ? [4, 4] : undefined }),
        fill: new ol.style.Fill({ color: right ? "rgba(40,200,120,.10)" : css(colour, 0.55) }),
      }),
      new ol.style.Style({
        zIndex,
        stroke: new ol.style.Stroke({ color: right ? "#35d08a" : "#ffffff", width: 1.4, lineDash: pending || right ? [4, 4] : undefined }),
      }),
    ];
  }

  // -- swipe -----------------------------------------------------------------------------------

  setSwipe(swipe) {
    this.swipe = swipe;
    $("swipe-bar").hidden = !swipe;
    if (swipe) {
      for (const id of [swipe.left, swipe.right]) this.layers.get(id)?.layer.setVisible(true);
      this.#placeBar();
    } else {
      for (const [id, { layer }] of this.layers) layer.setVisible(this.shown.get(id).visible);
    }
    this.map.render();
    this.#moved();
  }

  #placeBar() {
    const at = Math.round(this.swipe.at * this.map.getSize()[0]);
    $("swipe-bar").style.left = `${at}px`;
    $("swipe-grip").setAttribute("aria-valuenow", Math.round(this.swipe.at * 100));
    const title = (id) => this.layers.get(id)?.about.title ?? "";
    $("swipe-left-name").textContent = title(this.swipe.left);
    $("swipe-right-name").textContent = title(this.swipe.right);
  }

  #side(id) {
    if (!this.swipe || this.swipe.left === this.swipe.right) return null;
    return id === this.swipe.left ? "left" : id === this.swipe.right ? "right" : null;
  }

  #clip(id, event) {
    const side = this.#side(id);
    if (!side) return;
    const [width, height] = this.map.getSize();
    const at = Math.round(this.swipe.at * width);
    const [from, to] = side === "left" ? [0, at] : [at, width];
    const corner = ([x, y]) => ol.render.getRenderPixel(event, [x, y]);
    const context = event.context;
    context.save();
    context.beginPath();
    [[from, 0], [to, 0], [to, height], [from, height]].map(corner).forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.closePath();
    context.clip();
  }

  #swiping() {
    const grip = $("swipe-grip");
    const move = (share) => {
      this.swipe.at = Math.min(0.98, Math.max(0.02, share));
      this.#placeBar();
      this.map.render();
    };
    grip.addEventListener("pointerdown", (event) => grip.setPointerCapture(event.pointerId));
    grip.addEventListener("pointermove", (event) => {
      if (!grip.hasPointerCapture(event.pointerId)) return;
      const box = $("map").getBoundingClientRect();
      move((event.clientX - box.left) / box.width);
    });
    grip.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key];
      if (step) { move(this.swipe.at + step); event.preventDefault(); event.stopPropagation(); }
    });
    this.map.on("change:size", () => { if (this.swipe) this.#placeBar(); });
  }
}
