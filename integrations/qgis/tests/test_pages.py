"""What people see: the dialogs with their widgets, and the results on the map; `make test-qgis`.

The pictures lie in the folder of the tests. Those of docs/qgis.md are made from a finished demo:
``TERRADAPT_DEMO=FOLDER``.
"""

import os
import sys
import time
import unittest
from pathlib import Path
from unittest import mock

import qgis.utils
import qgis_session as session
from qgis.core import QgsApplication, QgsLayerTreeModel, QgsProject, QgsRasterLayer
from qgis.gui import (
    QgsBrowserGuiModel,
    QgsLayerTreeMapCanvasBridge,
    QgsLayerTreeView,
    QgsMapCanvas,
)
from qgis.PyQt.QtCore import QSize, Qt
from qgis.PyQt.QtWidgets import QSplitter
from terradapt.engine_dialog import EngineDialog

DEMO = os.environ.get("TERRADAPT_DEMO")
if DEMO:
    os.chdir(DEMO)  # so that no picture shows where it was made
    RUN, SCENE, ROADS = Path("run"), Path("scene.tif").resolve(), Path("roads.tif").resolve()
else:
    RUN, DATA = session.FOLDER / "run", session.FOLDER / "data"
    SCENE, ROADS = DATA / "images" / "city3_0.tif", DATA / "roads" / "city3_0.tif"
ROAD = "road" if DEMO else "1"


class Window:
    """As much of QGIS's window as its dialogs ask for."""

    def __init__(self, canvas):
        self.canvas, self.browser = canvas, QgsBrowserGuiModel()

    def mapCanvas(self):
        return self.canvas

    def browserModel(self):
        return self.browser

    def mainWindow(self):
        return None

    messageBar = activeLayer = statusBarIface = mainWindow

    def __getattr__(self, name):
        return mock.MagicMock()


def picture(widget, name):
    """Keep a picture of a widget and return its path."""
    widget.show()
    for _ in range(10):
        session.app.processEvents()
        time.sleep(0.02)
    path = session.FOLDER / f"{name}.png"
    widget.grab().save(str(path))
    return path


class Pages(unittest.TestCase):
    """Dialogs and map."""

    @classmethod
    def setUpClass(cls):
        from processing.gui import AlgorithmDialog, BatchAlgorithmDialog  # noqa: F401

        QgsProject.instance().clear()
        cls.scene = QgsRasterLayer(str(SCENE), "scene")
        QgsProject.instance().addMapLayer(cls.scene)
        QgsProject.instance().setCrs(cls.scene.crs())
        cls.canvas = QgsMapCanvas()
        cls.canvas.setDestinationCrs(cls.scene.crs())
        cls.canvas.setExtent(cls.scene.extent())
        cls.window = qgis.utils.iface = Window(cls.canvas)
        for name, module in list(sys.modules.items()):
            if name.startswith("processing") and hasattr(module, "iface"):
                module.iface = cls.window

    def dialog(self, name, **values):
        """Return an algorithm's dialog with values."""
        from processing.gui.AlgorithmDialog import AlgorithmDialog

        registry = QgsApplication.processingRegistry()
        dialog = AlgorithmDialog(registry.createAlgorithmById(f"terradapt:{name}"), False, None)
        dialog.setParameters(values)
        return dialog

    def test_1_the_list_of_classes_is_the_model_s(self):
        dialog = self.dialog("predict", MODEL=str(RUN), INPUT=self.scene, CLASSES="building, tree")
        widget = dialog.mainWidget().wrappers["CLASSES"].widget
        names = [widget.itemText(i) for i in range(widget.count())]
        self.assertEqual(names[:4], ["impervious", "building", "low vegetation", "tree"])
        given = dialog.createProcessingParameters()
        self.assertEqual(given["CLASSES"], "building, tree")
        dialog.mainWidget().wrappers["MODEL"].setParameterValue(
            "nowhere.onnx", session.QgsProcessingContext()
        )
        self.assertEqual(widget.count(), 0)
        dialog.mainWidget().wrappers["MODEL"].setParameterValue(
            str(RUN), session.QgsProcessingContext()
        )
        dialog.setParameters(
            {
                "MODEL": str(RUN),
                "INPUT": self.scene,
                "CLASSES": "building, tree",
                "CONFIDENCE": True,
            }
        )
        dialog.resize(900, 700)
        self.assertTrue(picture(dialog, "predict").is_file())

    def test_2_the_dialog_of_the_engine_tells_which_it_calls(self):
        dialog = EngineDialog()
        self.assertIn("terradapt 0.", dialog.found.text())
        self.assertTrue(picture(dialog, "engine").is_file())

    def test_3_all_dialogs_open_alone_and_as_a_batch(self):
        from processing.gui.BatchAlgorithmDialog import BatchAlgorithmDialog

        registry = QgsApplication.processingRegistry()
        for algorithm in session.provider.algorithms():
            self.dialog(algorithm.name()).close()
            BatchAlgorithmDialog(registry.createAlgorithmById(algorithm.id()), None).close()

    def test_4_the_map_shows_what_was_found(self):
        out = {"REPLACE": True, "OUTPUT": str(session.FOLDER / "shown.tif")}
        given = {"MODEL": str(RUN), "INPUT": str(SCENE), **out}  # relative paths too
        done, _, feedback = session.run("predict", given, load=True)
        self.assertTrue(done, feedback.errors)
        out["OUTPUT"] = str(session.FOLDER / "shown.gpkg")
        given = {"INPUT": str(ROADS), "ROAD": ROAD, **out}
        done, _, feedback = session.run("roads", given, load=True)
        self.assertTrue(done, feedback.errors)
        root = QgsProject.instance().layerTreeRoot()
        for node in root.findGroup("terradapt").findLayers():
            if isinstance(node.layer(), QgsRasterLayer):
                node.layer().setOpacity(0.55)
        splitter = QSplitter(Qt.Orientation.Horizontal)
        view = QgsLayerTreeView()
        model = QgsLayerTreeModel(root)
        view.setModel(model)
        view.expandAll()
        splitter.addWidget(view)
        splitter.addWidget(self.canvas)
        splitter.setSizes([300, 700])
        splitter.resize(QSize(1000, 640))
        bridge = QgsLayerTreeMapCanvasBridge(root, self.canvas)
        bridge.setAutoSetupOnFirstLayer(False)
        bridge.setCanvasLayers()
        splitter.show()
        session.app.processEvents()
        self.canvas.setExtent(self.scene.extent())
        self.canvas.refresh()
        self.canvas.waitWhileRendering()
        path = picture(splitter, "map")
        image = self.canvas.grab().toImage()
        points = [(x, y) for x in range(40, 600, 20) for y in range(40, 600, 20)]
        seen = {image.pixel(x % image.width(), y % image.height()) for x, y in points}
        self.assertGreater(len(seen), 100)  # a picture, not one colour
        self.assertTrue(path.is_file())


if __name__ == "__main__":
    unittest.main()
