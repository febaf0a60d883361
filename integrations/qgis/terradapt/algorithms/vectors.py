"""Polygons and road networks from class rasters."""

from qgis.core import (
    QgsProcessingException,
    QgsProcessingOutputVectorLayer,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorDestination,
)

from .. import results
from ..enums import DOUBLE, advanced
from ..inputs import file_of
from ..widgets import class_list
from .base import EngineAlgorithm, option

GROUP = "Vectors"


class Polygons(EngineAlgorithm):
    """``terradapt vectorize``."""

    NAME, TITLE, GROUP = "polygons", "Vectorize polygons", GROUP
    TAGS = ("polygonize", "land cover", "buildings", "right angles", "simplify")
    HELP = (
        "Turns a class raster into polygons that share their borders, with areas in square metres "
        "on the ellipsoid; they lie in the raster's CRS, coloured by class."
    )

    def initAlgorithm(self, configuration=None):
        """Declare parameters and outputs."""
        self.addParameter(QgsProcessingParameterRasterLayer("INPUT", "Class raster"))
        self.addParameter(_metres("SIMPLIFY", "Deviation allowed, metres", 0.0))
        self.addParameter(
            _metres("MIN_AREA", "Smaller ones join their neighbour, square metres", 0.0)
        )
        self.addParameter(
            class_list("BUILDINGS", "Class with right angles", "INPUT", several=False)
        )
        self.addParameter(_replace())
        self.addParameter(QgsProcessingParameterVectorDestination("OUTPUT", "Polygons"))

    def processAlgorithm(self, parameters, context, feedback):
        """Vectorize."""
        raster, output, words = _words(self, parameters, context)
        words += ["--simplify", self.parameterAsDouble(parameters, "SIMPLIFY", context)]
        words += ["--min-area", self.parameterAsDouble(parameters, "MIN_AREA", context)]
        words += option("--buildings", self.text(parameters, "BUILDINGS", context))
        self.call(words, feedback)
        inside = f"{output}|layername=polygons" if output.lower().endswith(".gpkg") else output
        style = None if inside != output else results.style_beside(output)
        shown = results.finish(
            context, output, f"{raster.name()}: polygons", shown=inside, style=style
        )
        return {"OUTPUT": shown}


class Roads(EngineAlgorithm):
    """``terradapt vectorize --roads``."""

    NAME, TITLE, GROUP = "roads", "Vectorize roads", GROUP
    TAGS = ("network", "graph", "centreline", "centerline", "skeleton", "routing")
    HELP = (
        "Turns the road class of a raster into a network: centrelines with length and width, and "
        "nodes where they meet. Ends coincide exactly, so QGIS's network analysis works on it with "
        "a tolerance of 0.\n\n"
        "A probability raster of one class can be given instead of classes: choose class 1 and a "
        "threshold."
    )

    def initAlgorithm(self, configuration=None):
        """Declare parameters and outputs."""
        self.addParameter(QgsProcessingParameterRasterLayer("INPUT", "Class raster"))
        self.addParameter(
            class_list("ROAD", "Class that is road", "INPUT", several=False, default="road")
        )
        self.addParameter(
            QgsProcessingParameterRasterLayer(
                "SCORES", "Probability of road on the same grid", optional=True
            )
        )
        self.addParameter(_metres("MAX_GAP", "Longest gap closed, metres (0: none)", 25.0))
        self.addParameter(_replace())
        for parameter in (
            QgsProcessingParameterNumber(
                "THRESHOLD", "Threshold, where the raster holds probabilities", DOUBLE, 0.5,
                minValue=0.0, maxValue=1.0,
            ),
            _metres("MAX_WIDTH", "Widest road, metres", 40.0),
            _metres("MIN_SPUR", "Shortest dead end, metres", 8.0),
            QgsProcessingParameterNumber(
                "SIMPLIFY", "Deviation allowed, metres (half a pixel when empty)", DOUBLE,
                optional=True, minValue=0.0,
            ),
            QgsProcessingParameterString("MORE", "More options of the command", optional=True),
        ):  # fmt: skip
            self.addParameter(advanced(parameter))
        self.addParameter(QgsProcessingParameterVectorDestination("OUTPUT", "Roads"))
        self.addOutput(QgsProcessingOutputVectorLayer("NODES", "Junctions and ends"))

    def processAlgorithm(self, parameters, context, feedback):
        """Vectorize."""
        raster, output, words = _words(self, parameters, context)
        words += ["--roads", self.text(parameters, "ROAD", context)]
        scores = self.parameterAsRasterLayer(parameters, "SCORES", context)
        words += option("--scores", file_of(scores) if scores else None)
        for name in ("THRESHOLD", "MAX_GAP", "MAX_WIDTH", "MIN_SPUR"):
            value = self.parameterAsDouble(parameters, name, context)
            words += [f"--{name.lower().replace('_', '-')}", value]
        if self.given(parameters, "SIMPLIFY"):
            words += ["--simplify", self.parameterAsDouble(parameters, "SIMPLIFY", context)]
        words += self.text(parameters, "MORE", context).split()
        self.call(words, feedback)
        edges, nodes = results.network_layers(output)
        own = None if output.lower().endswith(".gpkg") else results.style_beside
        found = {
            "OUTPUT": results.finish(
                context, output, f"{raster.name()}: roads", shown=edges,
                style=own and own(output),
            )
        }  # fmt: skip
        found["NODES"] = results.also(
            context, edges, nodes, f"{raster.name()}: junctions", "NODES",
            style=own and own(nodes.split("|")[0]),
        )  # fmt: skip
        return found


def _words(algorithm, parameters, context):
    """Return the raster, the result's path and the command of both algorithms."""
    raster = algorithm.parameterAsRasterLayer(parameters, "INPUT", context)
    if raster is None:
        raise QgsProcessingException(algorithm.invalidRasterError(parameters, "INPUT"))
    output = algorithm.output(parameters, context)
    words = ["vectorize", file_of(raster), "-o", output]
    if algorithm.parameterAsBool(parameters, "REPLACE", context):
        words.append("--overwrite")
    return raster, output, words


def _metres(name, title, default):
    return QgsProcessingParameterNumber(name, title, DOUBLE, default, minValue=0.0)


def _replace():
    return QgsProcessingParameterBoolean("REPLACE", "Replace a result that is there", False)
