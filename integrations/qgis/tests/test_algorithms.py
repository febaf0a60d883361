"""Each algorithm in a real QGIS, on a synthetic city; `make test-qgis`."""

import json
import os
import re
import shutil
import subprocess
import time
import unittest
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import qgis_session as session
from osgeo import gdal
from qgis.core import (
    QgsApplication,
    QgsFeature,
    QgsGeometry,
    QgsPointXY,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsVectorLayer,
)
from terradapt.model_file import classes_of

from terradapt import results, settings, viewer

FOLDER = session.FOLDER
DATA, RUN = FOLDER / "data", FOLDER / "run"
SCENE, LABELS = DATA / "images" / "city3_0.tif", DATA / "labels" / "city3_0.tif"
ROADS = DATA / "roads" / "city3_0.tif"
MAP, NETWORK = FOLDER / "map.tif", FOLDER / "roads.gpkg"
QUICK = "train.steps_per_epoch=12 train.batch=4 data.workers=0 data.crop=128 optim.warmup=1"


def project():
    """Return the project, with nothing in it."""
    QgsProject.instance().clear()
    return QgsProject.instance()


def colours(renderer):
    """Return value, name and colour of each class that a renderer draws."""
    if renderer.type() == "paletted":
        return [(int(c.value), c.label, c.color.getRgb()[:3]) for c in renderer.classes()]
    categories = [c for c in renderer.categories() if c.value() is not None]
    return [(int(c.value()), c.label(), c.symbol().color().getRgb()[:3]) for c in categories]


class Algorithms(unittest.TestCase):
    """In the order of the work: each step takes what the one before made."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        if not DATA.exists():
            session.engine("data", "synthetic", "1-3", "-o", DATA, "size=512")
        cls.trained = None
        if not RUN.exists():
            done, found, feedback = session.run("train", cls.training(RUN))
            assert done, feedback.errors
            cls.trained = found, feedback
        cls.classes = classes_of(str(RUN))

    @staticmethod
    def training(run, **more):
        recipe = Path(os.environ["TERRADAPT_ROOT"]) / "src/terradapt/recipes/demo.yaml"
        given = {"DATA": str(DATA), "OWN": str(recipe), "EPOCHS": 1, "CHANGES": QUICK}
        return {**given, "RUN": str(run), "REPORT": False, **more}

    def ok(self, name, parameters, **more):
        """Run, and see that it worked."""
        done, found, feedback = session.run(name, parameters, **more)
        self.assertTrue(done, feedback.errors)
        self.assertFalse(feedback.errors)
        return found, feedback

    def fails(self, name, parameters, *words):
        """Run, and see that it says why not, and what to do."""
        done, _, feedback = session.run(name, parameters)
        self.assertFalse(done)
        text = "\n".join(feedback.errors)
        self.assertNotIn("Traceback", text)
        for word in words:
            self.assertIn(word, text)

    def test_1_checks_data_and_says_what_would_stop_a_run(self):
        found, feedback = self.ok("check", {"DATA": str(DATA), "PAGE": str(FOLDER / "page.html")})
        self.assertTrue(found["PASSED"])
        self.assertTrue(os.path.isfile(found["PAGE"]))
        self.assertTrue(any("building" in line for line in feedback.info))
        broken = FOLDER / "broken"
        shutil.copytree(str(DATA), str(broken), dirs_exist_ok=True)
        for name in ("dataset.json", "label-index.json"):
            (broken / name).unlink()
        (broken / "images" / "city1_0.tif").write_bytes(b"no image")
        done, found, feedback = session.run("check", {"DATA": str(broken)})
        self.assertTrue(done)  # the check itself worked
        self.assertFalse(found["PASSED"])
        self.assertIn("city1_0.tif", feedback.errors[0])
        self.fails("check", {"DATA": str(FOLDER / "nowhere")}, "nowhere: no such folder")

    def test_2_trains_and_tells_how_far_it_is(self):
        self.assertEqual([name for name, _ in self.classes][:2], ["impervious", "building"])
        if self.trained:
            found, feedback = self.trained
            self.assertTrue(os.path.isfile(found["CHECKPOINT"]))
            self.assertTrue(any("12 of 12" in text for text in feedback.texts), feedback.texts)
            self.assertIn(100.0, feedback.progress_seen)
        self.fails("train", self.training(RUN), "What to do")  # a run is there already

    def test_3_a_cancelled_training_goes_on(self):
        run = FOLDER / "stopped"
        shutil.rmtree(str(run), ignore_errors=True)
        feedback = session.Feedback(stop_in="train")
        long = self.training(run, CHANGES=QUICK.replace("epoch=12", "epoch=200"))
        done, _, feedback = session.run("train", long, feedback)
        self.assertFalse(done)
        self.assertIn("stopped. Run it again to the same folder", " ".join(feedback.errors))
        again = session.Feedback(stop_in="train")
        done, _, again = session.run("train", {**long, "RESUME": True}, again)
        left = int(re.search(r"0 of (\d+) steps", " ".join(again.texts)).group(1))
        self.assertLess(left, 200)  # it goes on where it stopped

    def test_4_predicts_with_style_and_confidence_in_a_group(self):
        project()
        found, _ = self.ok(
            "predict",
            {"MODEL": str(RUN), "INPUT": str(SCENE), "CONFIDENCE": True, "OUTPUT": str(MAP)},
            load=True,
        )
        group = QgsProject.instance().layerTreeRoot().findGroup("terradapt")
        names = [node.name() for node in group.findLayers()]
        self.assertEqual(sorted(names), ["city3_0: classes", "city3_0: confidence"])
        for node in group.findLayers():
            self.assertTrue(node.layer().isValid())
        (layer,) = QgsProject.instance().mapLayersByName("city3_0: classes")
        told = [(i, name, colour) for i, (name, colour) in enumerate(self.classes)]
        self.assertEqual(colours(layer.renderer()), told)
        (sure,) = QgsProject.instance().mapLayersByName("city3_0: confidence")
        self.assertEqual(sure.renderer().type(), "singlebandpseudocolor")
        figures = json.loads(Path(found["FIGURES"]).read_text("utf-8"))
        self.assertEqual([row["name"] for row in figures["classes"]], [n for n, _ in self.classes])
        # Again: what is there stays, with another setting it is not replaced unasked.
        self.ok("predict", {"MODEL": str(RUN), "INPUT": str(SCENE), "CONFIDENCE": True,
                            "OUTPUT": str(MAP)})  # fmt: skip
        other = {"MODEL": str(RUN), "INPUT": str(SCENE), "OUTPUT": str(MAP), "CLASSES": "building"}
        self.fails("predict", other, "map.tif", "What to do")

    def test_4_predicts_within_an_extent_and_drawn_polygons(self):
        scene = QgsRasterLayer(str(SCENE))
        box = scene.extent()
        quarter = QgsRectangle(box.xMinimum(), box.yMinimum(), box.center().x(), box.center().y())
        text = (
            f"{quarter.xMinimum()},{quarter.xMaximum()},{quarter.yMinimum()},{quarter.yMaximum()}"
        )
        out = FOLDER / "quarter.tif"
        given = {"MODEL": str(RUN), "INPUT": str(SCENE), "OUTPUT": str(out), "REPLACE": True}
        self.ok("predict", {**given, "EXTENT": f"{text} [EPSG:32633]"})
        figures = json.loads(out.with_suffix(".json").read_text("utf-8"))
        self.assertEqual(figures["valid_pixels"], 256 * 256)
        # A layer in memory, in another CRS, with edits that are not saved.
        layer = QgsVectorLayer("Polygon?crs=EPSG:3857&field=fid:integer", "drawn", "memory")
        project().addMapLayer(layer)
        from qgis.core import QgsCoordinateTransform

        move = QgsCoordinateTransform(scene.crs(), layer.crs(), QgsProject.instance())
        shape = QgsGeometry.fromRect(quarter).densifyByCount(64)
        shape.transform(move)
        layer.startEditing()
        feature = QgsFeature(layer.fields())
        feature.setGeometry(shape)
        layer.addFeature(feature)
        self.ok("predict", {**given, "AREA": layer.id()})
        figures = json.loads(out.with_suffix(".json").read_text("utf-8"))
        self.assertLess(abs(figures["valid_pixels"] - 256 * 256), 300)

    def test_5_polygons_are_valid_and_coloured(self):
        project()
        out = FOLDER / "polygons.gpkg"
        self.ok("polygons", {"INPUT": str(LABELS), "OUTPUT": str(out), "REPLACE": True}, load=True)
        (layer,) = QgsProject.instance().mapLayersByName("city3_0: polygons")
        self.assertGreater(layer.featureCount(), 20)
        self.assertEqual(layer.crs().authid(), "EPSG:32633")
        self.assertTrue(all(f.geometry().isGeosValid() for f in layer.getFeatures()))
        present = {f["class"] for f in layer.getFeatures()}
        drawn = colours(layer.renderer())
        told = {(i, name, colour) for i, (name, colour) in enumerate(self.classes)}
        self.assertEqual({row for row in drawn if row[0] in present}, {
            row for row in told if row[0] in present
        })  # fmt: skip
        area = sum(f["area_m2"] for f in layer.getFeatures())
        self.assertAlmostEqual(area / (512 * 512 * 0.09), 1, 2)
        os.chdir(str(FOLDER))
        for suffix in ("geojson", "shp"):
            project()
            path = f"polygons.{suffix}"  # relative: the engine runs in another folder
            given = {"INPUT": str(LABELS), "OUTPUT": str(path), "REPLACE": True}
            self.ok("polygons", given, load=True)
            (layer,) = QgsProject.instance().mapLayersByName("city3_0: polygons")
            self.assertEqual(layer.renderer().type(), "categorizedSymbol", suffix)

    def test_6_roads_are_a_network_whose_paths_are_networkx_s(self):
        project()
        given = {"INPUT": str(ROADS), "ROAD": "1", "OUTPUT": str(NETWORK), "REPLACE": True}
        self.ok("roads", given, load=True)
        (edges,) = QgsProject.instance().mapLayersByName("city3_0: roads")
        (nodes,) = QgsProject.instance().mapLayersByName("city3_0: junctions")
        self.assertGreater(edges.featureCount(), 5)
        self.assertEqual(edges.renderer().symbol().color().getRgb()[:3], (255, 140, 0))
        command = [os.environ["PYTHON"], str(session.HERE / "network.py"), str(NETWORK), "40"]
        told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        self.assertEqual(nodes.featureCount(), told["nodes"])
        lengths = self.paths(edges, [pair[:2] for pair in told["pairs"]])
        ways = 0
        for (first, last, metres), found in zip(told["pairs"], lengths):
            if metres is None:
                self.assertIsNone(found, (first, last))
            else:
                ways += 1
                self.assertIsNotNone(found, (first, last))
                self.assertLess(abs(found - metres), 1e-6 * metres + 1e-6)
        self.assertGreater(ways, 5)

    @staticmethod
    def paths(edges, pairs):
        """Return the shortest ways by QGIS's network analysis, tolerance 0; None for no way."""
        from qgis.analysis import (
            QgsGraphAnalyzer,
            QgsGraphBuilder,
            QgsNetworkDistanceStrategy,
            QgsVectorLayerDirector,
        )

        both = QgsVectorLayerDirector.Direction.DirectionBoth
        director = QgsVectorLayerDirector(edges, -1, "", "", "", both)
        director.addStrategy(QgsNetworkDistanceStrategy())
        builder = QgsGraphBuilder(edges.crs(), False, 0.0, "NONE")
        points = [QgsPointXY(*point) for pair in pairs for point in pair]
        tied = director.makeGraph(builder, points)
        graph = builder.graph()
        found = []
        for first, last in zip(tied[::2], tied[1::2]):
            start, end = graph.findVertex(first), graph.findVertex(last)
            tree, cost = QgsGraphAnalyzer.dijkstra(graph, start, 0)
            found.append(None if tree[end] == -1 else cost[end])
        return found

    def test_6_a_network_as_shapefile_and_geojson(self):
        for suffix in ("shp", "geojson"):
            project()
            path = FOLDER / f"network.{suffix}"
            given = {"INPUT": str(ROADS), "ROAD": "1", "OUTPUT": str(path), "REPLACE": True}
            self.ok("roads", given, load=True)
            (edges,) = QgsProject.instance().mapLayersByName("city3_0: roads")
            (nodes,) = QgsProject.instance().mapLayersByName("city3_0: junctions")
            self.assertGreater(nodes.featureCount(), edges.featureCount() // 2)
            self.assertEqual(int(nodes.geometryType()), 0, suffix)

    def test_7_exports_a_model_that_predicts_the_same(self):
        model = FOLDER / "model.onnx"
        found, _ = self.ok("export", {"MODEL": str(RUN), "FOR": 1, "OUTPUT": str(model)})
        self.assertEqual(classes_of(found["OUTPUT"]), self.classes)
        out = FOLDER / "from_onnx.tif"
        self.ok("predict", {"MODEL": str(model), "INPUT": str(SCENE), "OUTPUT": str(out)})
        self.fails("export", {"MODEL": str(RUN), "INT8": True, "OUTPUT": str(model)}, "folder")

    def test_8_draws_corrections_and_retrains(self):
        project()
        path = FOLDER / "corrections.gpkg"
        if path.exists():
            path.unlink()
        given = {"MODEL": str(RUN), "CRS": "EPSG:32633", "OUTPUT": str(path)}
        self.ok("newcorrections", given, load=True)
        (layer,) = QgsProject.instance().mapLayersByName("corrections")
        setup = layer.editorWidgetSetup(layer.fields().indexOf("class"))
        self.assertEqual(setup.type(), "ValueMap")
        offered = [next(iter(pair)) for pair in setup.config()["map"]]
        self.assertEqual(offered, [name for name, _ in self.classes])
        box = QgsRasterLayer(str(SCENE)).extent()
        layer.startEditing()
        for number, name in enumerate(("building", "tree", "pool")):  # one that is new
            feature = QgsFeature(layer.fields())
            corner = QgsPointXY(box.xMinimum() + 20 + 30 * number, box.yMinimum() + 20)
            feature.setGeometry(QgsGeometry.fromRect(QgsRectangle(corner, QgsPointXY(
                corner.x() + 20, corner.y() + 20))))  # fmt: skip
            feature["class"] = name
            self.assertTrue(layer.addFeature(feature))
        run = FOLDER / "retrained"
        shutil.rmtree(str(run), ignore_errors=True)
        found, _ = self.ok("retrain", {
            "MODEL": str(RUN / "checkpoint.safetensors"), "CORRECTIONS": layer.id(),
            "FIELD": "class", "IMAGES": [str(SCENE)], "EPOCHS": 1, "RUN": str(run),
            "CHANGES": "train.steps_per_epoch=2 train.batch=2 data.workers=0 data.crop=128",
        })  # fmt: skip
        names = [name for name, _ in classes_of(found["CHECKPOINT"])]
        self.assertEqual(names, [*(n for n, _ in self.classes), "pool"])
        layer.rollBack()
        given = {"MODEL": str(RUN), "CORRECTIONS": layer.id(), "FIELD": "class", "RUN": str(run)}
        self.fails("retrain", {**given, "IMAGES": [str(SCENE)]}, "Draw some first")

    def test_9_compares_two_maps(self):
        changed = FOLDER / "changed.tif"
        copy = gdal.GetDriverByName("GTiff").CreateCopy(str(changed), gdal.Open(str(MAP)))
        values = copy.ReadAsArray()
        values[100:200, 100:300] = 1
        copy.GetRasterBand(1).WriteArray(values)
        copy = None  # closes the file
        given = {"OLD": str(MAP), "NEW": str(changed), "OUTPUT": str(FOLDER / "update.gpkg")}
        if " compare " not in session.engine("--help"):
            return self.fails("compare", given, "needs a newer terradapt", "Engine...")
        project()
        found, _ = self.ok("compare", {**given, "REPLACE": True}, load=True)
        names = ["changed areas", "changed roads", "change"]
        group = QgsProject.instance().layerTreeRoot().findGroup("terradapt")
        self.assertEqual([node.name() for node in group.findLayers()][-1], "change")
        layers = [QgsProject.instance().mapLayersByName(name)[0] for name in names]
        self.assertTrue(all(layer.isValid() for layer in layers))
        self.assertEqual(layers[0].renderer().type(), "categorizedSymbol")
        self.assertGreater(layers[0].featureCount(), 0)
        self.assertTrue(os.path.isfile(found["REPORT_PAGE"]))

    def test_9_opens_the_viewer_and_ends_it(self):
        given = {"INPUT": str(MAP), "IMAGE": str(SCENE), "MORE": "--no-browser"}
        if " view " not in session.engine("--help"):
            return self.fails("view", {"INPUT": str(MAP)}, "needs a newer terradapt")
        found, _ = self.ok("view", given)
        status = None
        for _ in range(150):
            try:
                status = urlopen(found["ADDRESS"]).status
            except HTTPError as error:  # without the page's cookie
                status = error.code
            except OSError:
                time.sleep(0.2)
                continue
            break
        self.assertIsNotNone(status)
        viewer.end_all()
        self.assertRaises(OSError, urlopen, found["ADDRESS"])
        self.fails("view", {**given, "MODEL": str(RUN)}, "choose a folder")

    def test_9_without_an_engine_it_says_what_to_do(self):
        before = os.environ.pop("TERRADAPT_EXECUTABLE")
        try:
            settings.set_executable(str(FOLDER / "nowhere"))
            self.assertIsNone(settings.find_engine())
            good, why = (
                QgsApplication.processingRegistry().algorithmById("terradapt:predict").canExecute()
            )
            self.assertFalse(good)
            self.assertIn("nowhere", why)
        finally:
            settings.set_executable("")
            os.environ["TERRADAPT_EXECUTABLE"] = before

    def test_9_a_service_is_no_file(self):
        layer = QgsRasterLayer("type=xyz&url=https://localhost/{z}/{x}/{y}.png", "tiles", "wms")
        project().addMapLayer(layer)
        given = {"MODEL": str(RUN), "INPUT": layer.id(), "OUTPUT": str(FOLDER / "t.tif")}
        self.fails("predict", given, "Save it as one")

    def test_a_model_of_the_designer_and_a_batch_take_them(self):
        from qgis.core import (
            QgsProcessingContext,
            QgsProcessingModelAlgorithm,
            QgsProcessingModelChildAlgorithm,
            QgsProcessingModelChildParameterSource,
            QgsProcessingModelOutput,
        )

        model = QgsProcessingModelAlgorithm("scene to polygons", "test")
        source = QgsProcessingModelChildParameterSource
        first = QgsProcessingModelChildAlgorithm("terradapt:predict")
        first.setChildId("map")
        first.addParameterSources("MODEL", [source.fromStaticValue(str(RUN))])
        first.addParameterSources("INPUT", [source.fromStaticValue(str(SCENE))])
        model.addChildAlgorithm(first)
        second = QgsProcessingModelChildAlgorithm("terradapt:polygons")
        second.setChildId("polygons")
        second.addParameterSources("INPUT", [source.fromChildOutput("map", "OUTPUT")])
        output = QgsProcessingModelOutput("polygons")
        output.setChildOutputName("OUTPUT")
        second.setModelOutputs({"polygons": output})
        model.addChildAlgorithm(second)
        out = FOLDER / "model.gpkg"
        if out.exists():
            out.unlink()
        context, feedback = QgsProcessingContext(), session.Feedback()
        found, good = model.run({"polygons:polygons": str(out)}, context, feedback)
        self.assertTrue(good, feedback.errors)
        layer = QgsVectorLayer(found["polygons:polygons"], "polygons", "ogr")
        self.assertGreater(layer.featureCount(), 0)

    def test_a_results_group_survives_a_second_result(self):
        project()
        for name in ("a", "b"):
            path = FOLDER / f"group_{name}.gpkg"
            given = {"INPUT": str(LABELS), "OUTPUT": str(path), "REPLACE": True}
            self.ok("polygons", given, load=True)
        root = QgsProject.instance().layerTreeRoot()
        self.assertEqual([child.name() for child in root.children()], [results.GROUP])
        self.assertEqual(len(root.findGroup(results.GROUP).findLayers()), 2)


if __name__ == "__main__":
    unittest.main()
