"""Predict a map, compare two dates, look at a map in the browser."""

import os

from qgis.core import (
    QgsProcessingException,
    QgsProcessingOutputFile,
    QgsProcessingOutputHtml,
    QgsProcessingOutputRasterLayer,
    QgsProcessingOutputString,
    QgsProcessingOutputVectorLayer,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFile,
    QgsProcessingParameterMapLayer,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorDestination,
)

from .. import results, settings, viewer
from ..enums import FILE, FOLDER, INTEGER, POLYGONS, RASTER, VECTOR, advanced
from ..inputs import area_of_interest, file_of, write_source
from ..widgets import class_list
from .base import MODELS, EngineAlgorithm, model_parameter, option

GROUP = "Map"
ENGINES = ["own", "auto", "torch", "onnxruntime", "openvino"]


class Predict(EngineAlgorithm):
    """``terradapt predict``."""

    NAME, TITLE, GROUP = "predict", "Predict", GROUP
    GOES_ON = "Run it again to the same file: it goes on where it stopped"
    TAGS = ("segmentation", "classification", "land cover", "roads", "onnx", "inference")
    HELP = (
        "Maps a scene of any size with a trained model: a class raster on the scene's own grid, "
        "with class names, colours and hectares per class. A model.onnx needs the edge engine "
        "only, a checkpoint the full one.\n\n"
        "Cancel keeps what is done: the same call goes on there. A result that is there is only "
        "replaced when you say so."
    )

    def initAlgorithm(self, configuration=None):
        """Declare parameters and outputs."""
        self.addParameter(model_parameter())
        self.addParameter(QgsProcessingParameterRasterLayer("INPUT", "Scene"))
        self.addParameter(
            QgsProcessingParameterExtent("EXTENT", "Only within this extent", optional=True)
        )
        self.addParameter(
            QgsProcessingParameterFeatureSource(
                "AREA", "Only within these polygons", [POLYGONS], optional=True
            )
        )
        self.addParameter(
            class_list("CLASSES", "Choose among these classes only (all when empty)", "MODEL")
        )
        self.addParameter(
            QgsProcessingParameterBoolean("CONFIDENCE", "Write the confidence too", False)
        )
        self.addParameter(
            QgsProcessingParameterBoolean("REPLACE", "Replace a result that is there", False)
        )
        for parameter in (
            QgsProcessingParameterBoolean("SCORES", "Write the probability of each class", False),
            QgsProcessingParameterBoolean(
                "TTA", "Mean over eight turned and mirrored views", False
            ),
            QgsProcessingParameterString(
                "RESOLUTION", "What the model sees: auto, native or metres per pixel", "auto"
            ),
            QgsProcessingParameterString(
                "BANDS", "Bands to use: numbers or names with commas", optional=True
            ),
            QgsProcessingParameterNumber(
                "WINDOW", "Side of a window, pixels", INTEGER, optional=True, minValue=1
            ),
            QgsProcessingParameterNumber(
                "BATCH", "Windows per call of the model", INTEGER, optional=True, minValue=1
            ),
            QgsProcessingParameterEnum("ENGINE", "What runs the model", ENGINES, defaultValue=0),
            QgsProcessingParameterString("DEVICE", "Device, for example cuda:0", optional=True),
            QgsProcessingParameterString("MORE", "More options of the command", optional=True),
        ):
            self.addParameter(advanced(parameter))
        self.addParameter(QgsProcessingParameterRasterDestination("OUTPUT", "Class map"))
        self.addOutput(QgsProcessingOutputRasterLayer("CONFIDENCE_RASTER", "Confidence"))
        self.addOutput(QgsProcessingOutputFile("FIGURES", "Pixels and hectares per class"))

    def processAlgorithm(self, parameters, context, feedback):
        """Predict."""
        scene = self.parameterAsRasterLayer(parameters, "INPUT", context)
        if scene is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, "INPUT"))
        path = file_of(scene)
        extent = None
        if self.given(parameters, "EXTENT"):
            extent = self.parameterAsExtentGeometry(parameters, "EXTENT", context, scene.crs())
        source = self.parameterAsSource(parameters, "AREA", context)
        area = area_of_interest(extent, source, scene.crs(), context)
        output = self.output(parameters, context)
        yes = {
            name: self.parameterAsBool(parameters, name, context)
            for name in ("CONFIDENCE", "SCORES", "TTA", "REPLACE")
        }
        words = ["predict", self.path(parameters, "MODEL", context), path, "-o", output]
        words += ["--overwrite" if yes["REPLACE"] else "--resume"]
        words += [f"--{n.lower()}" for n in ("CONFIDENCE", "SCORES", "TTA") if yes[n]]
        words += option("--aoi", area)
        for name in ("CLASSES", "BANDS", "DEVICE", "RESOLUTION"):
            words += option(f"--{name.lower()}", self.text(parameters, name, context))
        for name in ("WINDOW", "BATCH"):
            if self.given(parameters, name):
                words += [f"--{name.lower()}", self.parameterAsInt(parameters, name, context)]
        words += ["--engine", ENGINES[self.parameterAsEnum(parameters, "ENGINE", context)]]
        words += self.text(parameters, "MORE", context).split()
        self.call(words, feedback)
        stem = os.path.splitext(output)[0]
        found = {"FIGURES": f"{stem}.json"}
        name = f"{scene.name()}: classes"
        found["OUTPUT"] = results.finish(context, output, name, style=results.style_beside(output))
        if yes["CONFIDENCE"]:
            raster = f"{stem}_confidence.tif"
            style = f"{stem}_confidence.qml"
            found["CONFIDENCE_RASTER"] = results.also(
                context, output, raster, f"{scene.name()}: confidence", "CONFIDENCE_RASTER",
                style=style,
            )  # fmt: skip
        return found


class Compare(EngineAlgorithm):
    """``terradapt compare``."""

    NAME, TITLE, GROUP = "compare", "Compare", GROUP
    GOES_ON = "Run it again to the same file: it goes on where it stopped"
    TAGS = ("change detection", "two dates", "update", "cadastre")
    HELP = (
        "Shows what is new, gone or changed between two dates: two maps, two scenes (which the "
        "model maps first), or a map and vectors such as a cadastre or a road network."
    )

    def initAlgorithm(self, configuration=None):
        """Declare parameters and outputs."""
        kinds = [RASTER, VECTOR]
        self.addParameter(QgsProcessingParameterMapLayer("OLD", "Older date", types=kinds))
        self.addParameter(QgsProcessingParameterMapLayer("NEW", "Newer date", types=kinds))
        self.addParameter(
            QgsProcessingParameterFile(
                "MODEL", "Model, where a date is a scene", FILE, optional=True, fileFilter=MODELS
            )
        )
        self.addParameter(
            QgsProcessingParameterBoolean("REPLACE", "Replace a result that is there", False)
        )
        self.addParameter(
            advanced(
                QgsProcessingParameterString("MORE", "More options of the command", optional=True)
            )
        )
        self.addParameter(QgsProcessingParameterVectorDestination("OUTPUT", "Changes"))
        self.addOutput(QgsProcessingOutputVectorLayer("EDGES", "Changed roads"))
        self.addOutput(QgsProcessingOutputRasterLayer("CHANGE", "Probability of change"))
        self.addOutput(QgsProcessingOutputHtml("REPORT_PAGE", "Report"))

    def processAlgorithm(self, parameters, context, feedback):
        """Compare."""
        dates = [
            file_of(self.parameterAsLayer(parameters, name, context)) for name in ("OLD", "NEW")
        ]
        output = self.output(parameters, context)
        words = ["compare", *dates, "-o", output]
        words += option("--model", self.path(parameters, "MODEL", context))
        words.append(
            "--overwrite" if self.parameterAsBool(parameters, "REPLACE", context) else "--resume"
        )
        words += self.text(parameters, "MORE", context).split()
        self.call(words, feedback)
        shown = f"{output}|layername=polygons"
        found = {"OUTPUT": results.finish(context, output, "changed areas", shown=shown)}
        edges = f"{output}|layername=edges"
        found["EDGES"] = results.also(context, shown, edges, "changed roads", "EDGES")
        stem = os.path.splitext(output)[0]
        if os.path.isfile(f"{stem}_change.tif"):
            raster = f"{stem}_change.tif"
            found["CHANGE"] = results.also(context, shown, raster, "change", "CHANGE")
        return {**found, "REPORT_PAGE": f"{stem}.html"} if os.path.isfile(f"{stem}.html") else found


class OpenViewer(EngineAlgorithm):
    """``terradapt view``."""

    NAME, TITLE, GROUP = "view", "Open viewer", GROUP
    TAGS = ("browser", "corrections", "look", "active learning")
    HELP = (
        "Opens a page in your browser, served by your own machine alone: a scene and what the "
        "model makes of it, or a map that is there. It shows where the model is least sure, takes "
        "corrections and retrains on them.\n\n"
        "With a model, corrections and new models go into a folder of yours; corrections that "
        "you drew in QGIS can be taken along. Without one a map is looked at.\n\n"
        "The page stays until QGIS closes or the plugin is switched off."
    )

    def initAlgorithm(self, configuration=None):
        """Declare parameters and outputs."""
        self.addParameter(
            QgsProcessingParameterRasterLayer("INPUT", "Scene; without a model, a class map")
        )
        for parameter in (
            QgsProcessingParameterFile(
                "MODEL", "Model (none to look at a map)", FILE, optional=True, fileFilter=MODELS
            ),
            QgsProcessingParameterFile(
                "FOLDER", "With a model: folder of corrections and new models", FOLDER,
                optional=True,
            ),
            QgsProcessingParameterFeatureSource(
                "CORRECTIONS", "With a model: corrections drawn in QGIS", [VECTOR], optional=True
            ),
            QgsProcessingParameterRasterLayer(
                "IMAGE", "Without a model: the scene under the map", optional=True
            ),
            QgsProcessingParameterMultipleLayers(
                "VECTORS", "Vectors to show", VECTOR, optional=True
            ),
        ):  # fmt: skip
            self.addParameter(parameter)
        self.addParameter(
            advanced(
                QgsProcessingParameterString("MORE", "More options of the command", optional=True)
            )
        )
        self.addOutput(QgsProcessingOutputString("ADDRESS", "Address of the page"))

    def processAlgorithm(self, parameters, context, feedback):
        """Start the page."""
        layer = self.parameterAsRasterLayer(parameters, "INPUT", context)
        if layer is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, "INPUT"))
        possible, why = self.canExecute()
        if not possible:
            raise QgsProcessingException(why)
        model = self.path(parameters, "MODEL", context)
        folder = self.path(parameters, "FOLDER", context)
        words = ["view", *([model] if model else []), file_of(layer)]
        if model:
            if not folder:
                raise QgsProcessingException("choose a folder for corrections and new models")
            words += ["-o", folder]
            source = self.parameterAsSource(parameters, "CORRECTIONS", context)
            words += option("--labels", source and write_source(source, context, "corrections"))
        else:
            image = self.parameterAsRasterLayer(parameters, "IMAGE", context)
            words += option("--image", file_of(image) if image else None)
        for vectors in self.parameterAsLayerList(parameters, "VECTORS", context) or []:
            words += ["--vectors", file_of(vectors)]
        words += self.text(parameters, "MORE", context).split()
        command = [settings.find_engine(), *words, "--progress", "json"]
        address, outcome = viewer.open_page(command, settings.clean_environment(), feedback)
        if address is None:
            self.fail(outcome)
        return {"ADDRESS": address}
