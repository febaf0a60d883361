"""Export a checkpoint as one ONNX file."""

import os

from qgis.core import (
    QgsProcessingException,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
)

from ..enums import FOLDER, INTEGER, advanced
from ..inputs import file_of
from .base import EngineAlgorithm, model_parameter, option

CONSUMERS = ["terradapt", "deepness"]


class Export(EngineAlgorithm):
    """``terradapt export``."""

    NAME, TITLE, GROUP = "export", "Export", "Hand on"
    TAGS = ("onnx", "int8", "quantize", "deepness", "model")
    HELP = (
        "Turns a checkpoint into one model.onnx, proved to give the same map. It predicts with the "
        "edge engine, on machines without torch; made for Deepness it loads in that plugin too. "
        "Needs the full engine."
    )

    def initAlgorithm(self, configuration=None):
        """Declare parameters and outputs."""
        self.addParameter(model_parameter(title="Checkpoint, or a run's folder"))
        self.addParameter(
            QgsProcessingParameterEnum(
                "FOR", "Made for", ["terradapt", "the QGIS plugin Deepness"], defaultValue=0
            )
        )
        self.addParameter(
            QgsProcessingParameterRasterLayer(
                "SCENE", "Scene on which file and checkpoint are compared", optional=True
            )
        )
        self.addParameter(
            QgsProcessingParameterBoolean("INT8", "8 bit integers: a smaller file", False)
        )
        self.addParameter(
            QgsProcessingParameterFile(
                "CALIBRATE", "Folder of scenes or data to find their range on", FOLDER,
                optional=True,
            )
        )  # fmt: skip
        self.addParameter(
            advanced(
                QgsProcessingParameterNumber(
                    "WINDOW", "Side of a window, pixels", INTEGER, optional=True, minValue=1
                )
            )
        )
        self.addParameter(
            QgsProcessingParameterFileDestination("OUTPUT", "Model file", "ONNX (*.onnx)")
        )

    def processAlgorithm(self, parameters, context, feedback):
        """Export."""
        output = os.path.abspath(self.parameterAsFileOutput(parameters, "OUTPUT", context))
        int8 = self.parameterAsBool(parameters, "INT8", context)
        folder = self.path(parameters, "CALIBRATE", context)
        if int8 and not folder:
            raise QgsProcessingException(
                "8 bit integers need a folder of typical scenes to find their range on"
            )
        scene = self.parameterAsRasterLayer(parameters, "SCENE", context)
        words = ["export", self.path(parameters, "MODEL", context), "-o", output]
        words += ["--for", CONSUMERS[self.parameterAsEnum(parameters, "FOR", context)]]
        words += ["--int8", "--calibrate", folder] if int8 else []
        words += option("--scene", file_of(scene) if scene and not int8 else None)
        if self.given(parameters, "WINDOW"):
            words += ["--window", self.parameterAsInt(parameters, "WINDOW", context)]
        self.call(words, feedback)
        return {"OUTPUT": output}
