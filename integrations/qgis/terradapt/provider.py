"""The Processing provider."""

from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithms.base import ICON
from .algorithms.corrections import NewCorrections
from .algorithms.exporting import Export
from .algorithms.mapping import Compare, OpenViewer, Predict
from .algorithms.training import CheckData, Retrain, Train
from .algorithms.vectors import Polygons, Roads
from .settings import EXECUTABLE

ALGORITHMS = (
    CheckData, Train, NewCorrections, Retrain, Predict, Compare, OpenViewer, Polygons, Roads,
    Export,
)  # fmt: skip


class TerradaptProvider(QgsProcessingProvider):
    """All algorithms, and the setting *terradapt executable*."""

    def load(self):
        """Declare the setting and load the algorithms."""
        try:
            from processing.core.ProcessingConfig import ProcessingConfig, Setting

            ProcessingConfig.settingIcons[self.name()] = self.icon()
            ProcessingConfig.addSetting(
                Setting(
                    self.name(), EXECUTABLE, "terradapt executable (empty: found by itself)", "",
                    valuetype=Setting.FILE,
                )
            )  # fmt: skip
            ProcessingConfig.readSettings()
        except ImportError:  # QGIS without its plugin Processing: settings are read all the same
            pass
        self.refreshAlgorithms()
        return True

    def unload(self):
        """Take the setting away."""
        try:
            from processing.core.ProcessingConfig import ProcessingConfig

            ProcessingConfig.removeSetting(EXECUTABLE)
        except ImportError:
            pass

    def loadAlgorithms(self):
        """Add each algorithm."""
        for algorithm in ALGORITHMS:
            self.addAlgorithm(algorithm())

    def id(self):
        """Return the id, the first part of an algorithm's name in ``qgis_process``."""
        return "terradapt"

    def name(self):
        """Return the name in the toolbox."""
        return "terradapt"

    def icon(self):
        """Return the icon."""
        return QIcon(ICON)

    def svgIconPath(self):
        """Return the icon for the modeler."""
        return ICON

    def supportedOutputRasterLayerExtensions(self):
        """Return what the engine writes."""
        return ["tif"]

    def supportedOutputVectorLayerExtensions(self):
        """Return what the engine writes."""
        return ["gpkg", "geojson", "shp"]

    def supportsNonFileBasedOutput(self):
        """Layers in memory and in databases cannot be written by another program."""
        return False
