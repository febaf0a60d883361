"""The widget of a class list: it reads the names from the model or raster that was chosen."""

from qgis.core import QgsProcessingParameterString


def class_list(name, title, parent, *, several=True, default=None):
    """Return a parameter of class names.

    It is a text, in batch, in models and in ``qgis_process``: names with commas. In its own dialog
    the names can be ticked.

    Args:
        name: Of the parameter.
        title: For people.
        parent: The parameter with the model or raster that has the classes.
        several: Any number of classes, none at all meaning all; else one.
        default: Its text at first; the parameter is optional where there is none.
    """
    parameter = QgsProcessingParameterString(
        name, title, defaultValue=default, optional=default is None
    )
    wrapper = {"class": f"{__package__}.class_widget.ClassList", "parent": parent}
    parameter.setMetadata({"widget_wrapper": {**wrapper, "several": several}})
    return parameter
