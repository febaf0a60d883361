"""A combo box of the classes that the chosen model or raster has."""

import os

from processing.gui.wrappers import WidgetWrapper
from qgis.core import QgsProject, QgsProviderRegistry, QgsRasterLayer
from qgis.gui import QgsCheckableComboBox, QgsProcessingGui
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtGui import QColor, QIcon, QPixmap
from qgis.PyQt.QtWidgets import QComboBox, QLineEdit

from .inputs import raster_classes
from .model_file import classes_of


class ClassList(WidgetWrapper):
    """The widget; in batch and in models it is a line of text."""

    def createWidget(self, parent="", several=True):
        """Return the widget, as QGIS asks."""
        self.parent_name, self.several = parent, several
        self.is_text = self.dialogType != QgsProcessingGui.WidgetType.Standard
        if self.is_text:
            return QLineEdit()
        box = QgsCheckableComboBox() if several else QComboBox()
        if several:
            box.setDefaultText("all")
            box.setSeparator(", ")
        else:
            box.setEditable(True)
        return box

    def postInitialize(self, wrappers):
        """Follow the parameter that has the classes."""
        if self.is_text:
            return
        for wrapper in wrappers:
            if wrapper.parameterDefinition().name() == self.parent_name:
                wrapper.widgetValueHasChanged.connect(self.refresh_classes)
                self.refresh_classes(wrapper)

    def refresh_classes(self, wrapper):
        """Offer the classes of what is chosen now; what was ticked stays where it exists."""
        value = wrapper.value() if hasattr(wrapper, "value") else wrapper.parameterValue()
        before = self.value()
        self.widget.clear()
        for name, colour in found_classes(value):
            pixmap = QPixmap(16, 16)
            pixmap.fill(QColor(*colour))
            self.widget.addItem(QIcon(pixmap), name)
        self.setValue(before)

    def setValue(self, value):
        """Show a text."""
        text = "" if value is None else str(value)
        if self.is_text:
            self.widget.setText(text)
        elif self.several:
            names = [part.strip() for part in text.split(",")]
            self.widget.setCheckedItems([n for n in names if n])
        else:
            self.widget.setCurrentIndex(self.widget.findText(text))
            self.widget.setEditText(text)

    def value(self):
        """Return the text."""
        if self.is_text:
            return self.widget.text()
        if not self.several:
            return self.widget.currentText()
        ticked = Qt.CheckState.Checked
        boxes = range(self.widget.count())
        names = [self.widget.itemText(i) for i in boxes if self.widget.itemCheckState(i) == ticked]
        return ", ".join(names)


def found_classes(value):
    """Return name and colour of each class of a model's file, a raster layer or a raster's file."""
    if not value:
        return []
    layer = (
        value if isinstance(value, QgsRasterLayer) else QgsProject.instance().mapLayer(str(value))
    )
    if layer is not None:
        parts = QgsProviderRegistry.instance().decodeUri("gdal", layer.source())
        return raster_classes(parts.get("path", ""))
    text = str(value)
    if os.path.isdir(text) or text.lower().endswith((".onnx", ".safetensors")):
        return classes_of(text)
    return raster_classes(text)
