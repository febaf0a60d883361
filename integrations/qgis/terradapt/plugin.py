"""The plugin: provider, and the dialog of the engine in the menu."""

from qgis.core import QgsApplication

from . import viewer
from .provider import TerradaptProvider

MENU = "terradapt"


class TerradaptPlugin:
    """What QGIS loads.

    Args:
        iface: QGIS's window; None in ``qgis_process``.
    """

    def __init__(self, iface):
        self.iface = iface
        self.provider = None
        self.action = None

    def initProcessing(self):
        """Add the provider; all that ``qgis_process`` needs."""
        self.provider = TerradaptProvider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self):
        """Add the provider and the menu."""
        try:
            from qgis.PyQt.QtGui import QAction  # Qt 6
        except ImportError:
            from qgis.PyQt.QtWidgets import QAction

        self.initProcessing()
        self.action = QAction(self.provider.icon(), "Engine...", self.iface.mainWindow())
        self.action.triggered.connect(self.open_engine)
        self.iface.addPluginToMenu(MENU, self.action)

    def open_engine(self):
        """Open the dialog of the engine."""
        from .engine_dialog import EngineDialog

        EngineDialog(self.iface.mainWindow()).exec()

    def unload(self):
        """Leave no trace."""
        viewer.end_all()
        if self.action is not None:
            self.iface.removePluginMenu(MENU, self.action)
            self.action = None
        if self.provider is not None:
            QgsApplication.processingRegistry().removeProvider(self.provider)
            self.provider = None
