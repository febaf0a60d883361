"""A new layer to draw corrections on, with the model's classes as a list to choose from."""

import os

from qgis.core import (
    Qgis,
    QgsCategorizedSymbolRenderer,
    QgsEditorWidgetSetup,
    QgsField,
    QgsFields,
    QgsFillSymbol,
    QgsLineSymbol,
    QgsProcessingException,
    QgsProcessingParameterCrs,
    QgsProcessingParameterEnum,
    QgsProcessingParameterVectorDestination,
    QgsRendererCategory,
    QgsVectorFileWriter,
    QgsVectorLayer,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QVariant

from .. import results
from ..model_file import classes_of
from .base import EngineAlgorithm, model_parameter
from .training import GROUP

LAYER = "corrections"
FIELD = "class"


class NewCorrections(EngineAlgorithm):
    """An empty GeoPackage; it needs no engine."""

    NAME, TITLE, GROUP = "newcorrections", "New corrections layer", GROUP
    TAGS = ("draw", "labels", "digitize", "edit")
    HELP = (
        "Makes an empty layer with a field 'class' that offers the classes of a model, in their "
        "colours. Draw over what is wrong in a map, then run 'Retrain with corrections'."
    )

    def initAlgorithm(self, configuration=None):
        """Declare parameters."""
        self.addParameter(model_parameter())
        self.addParameter(
            QgsProcessingParameterEnum(
                "GEOMETRY", "Draw", ["polygons", "lines (roads)"], defaultValue=0
            )
        )
        self.addParameter(QgsProcessingParameterCrs("CRS", "CRS", "ProjectCrs"))
        self.addParameter(QgsProcessingParameterVectorDestination("OUTPUT", "Corrections"))

    def canExecute(self):
        """It runs without an engine."""
        return True, ""

    def processAlgorithm(self, parameters, context, feedback):
        """Make the layer."""
        classes = classes_of(self.path(parameters, "MODEL", context))
        if not classes:
            raise QgsProcessingException(
                "no classes found in this model. Choose a checkpoint.safetensors or model.onnx "
                "that terradapt wrote"
            )
        lines = self.parameterAsEnum(parameters, "GEOMETRY", context) == 1
        output = self.output(parameters, context)
        if not output.lower().endswith(".gpkg"):
            raise QgsProcessingException(f"{output}: corrections are a GeoPackage, name it .gpkg")
        if os.path.exists(output):
            raise QgsProcessingException(
                f"{output}: is there already, and may hold what you drew. Give another name"
            )
        fields = QgsFields()
        fields.append(QgsField(FIELD, _text_type()))
        options = QgsVectorFileWriter.SaveVectorOptions()
        options.driverName, options.layerName = "GPKG", LAYER
        kind = QgsWkbTypes.Type.MultiLineString if lines else QgsWkbTypes.Type.MultiPolygon
        crs = self.parameterAsCrs(parameters, "CRS", context)
        writer = QgsVectorFileWriter.create(
            output, fields, kind, crs, context.transformContext(), options
        )
        if writer.hasError() != QgsVectorFileWriter.WriterError.NoError:
            raise QgsProcessingException(f"{output}: cannot be written ({writer.errorMessage()})")
        del writer  # closes the file
        source = f"{output}|layername={LAYER}"
        _dress(QgsVectorLayer(source, LAYER, "ogr"), classes, lines)
        shown = results.finish(context, output, LAYER, shown=source)
        return {"OUTPUT": shown}


def _text_type():
    """Return the type of a text field: QGIS 3.38 and newer have it elsewhere."""
    if Qgis.QGIS_VERSION_INT < 33800:
        return QVariant.String
    from qgis.PyQt.QtCore import QMetaType

    return QMetaType.Type.QString


def _dress(layer, classes, lines):
    """Give the layer its list of classes and their colours, kept inside the file."""
    index = layer.fields().indexOf(FIELD)
    choices = {"map": [{name: name} for name, _ in classes]}
    layer.setEditorWidgetSetup(index, QgsEditorWidgetSetup("ValueMap", choices))
    categories = []
    for name, (red, green, blue) in classes:
        if lines:
            drawn = {"line_color": f"{red},{green},{blue},255", "line_width": "0.8"}
            symbol = QgsLineSymbol.createSimple(drawn)
        else:
            drawn = {"color": f"{red},{green},{blue},120", "outline_color": "40,40,40,255"}
            symbol = QgsFillSymbol.createSimple(drawn)
        categories.append(QgsRendererCategory(name, symbol, name))
    layer.setRenderer(QgsCategorizedSymbolRenderer(FIELD, categories))
    layer.saveStyleToDatabase(LAYER, "made by terradapt", True, "")
