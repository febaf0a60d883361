"""Enums of QGIS that moved: 3.36 gathers them in ``Qgis``; 3.22 to 3.34 have the older places."""

from qgis.core import (
    Qgis,
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterFile,
    QgsProcessingParameterNumber,
)

if hasattr(Qgis, "ProcessingSourceType"):
    RASTER = Qgis.ProcessingSourceType.Raster
    POLYGONS = Qgis.ProcessingSourceType.VectorPolygon
    VECTOR = Qgis.ProcessingSourceType.VectorAnyGeometry
    MAP_LAYER = Qgis.ProcessingSourceType.MapLayer
    FOLDER = Qgis.ProcessingFileParameterBehavior.Folder
    FILE = Qgis.ProcessingFileParameterBehavior.File
    INTEGER = Qgis.ProcessingNumberParameterType.Integer
    DOUBLE = Qgis.ProcessingNumberParameterType.Double
    ADVANCED = Qgis.ProcessingParameterFlag.Advanced
else:
    RASTER = QgsProcessing.SourceType.TypeRaster
    POLYGONS = QgsProcessing.SourceType.TypeVectorPolygon
    VECTOR = QgsProcessing.SourceType.TypeVectorAnyGeometry
    MAP_LAYER = QgsProcessing.SourceType.TypeMapLayer
    FOLDER = QgsProcessingParameterFile.Behavior.Folder
    FILE = QgsProcessingParameterFile.Behavior.File
    INTEGER = QgsProcessingParameterNumber.Type.Integer
    DOUBLE = QgsProcessingParameterNumber.Type.Double
    ADVANCED = QgsProcessingParameterDefinition.Flag.FlagAdvanced

if hasattr(Qgis, "ProcessingAlgorithmFlag"):
    NO_THREADING = Qgis.ProcessingAlgorithmFlag.NoThreading
else:
    NO_THREADING = QgsProcessingAlgorithm.Flag.FlagNoThreading


def advanced(parameter):
    """Put a parameter under "Advanced Parameters", and return it."""
    parameter.setFlags(parameter.flags() | ADVANCED)
    return parameter
