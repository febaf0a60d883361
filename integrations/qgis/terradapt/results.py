"""Results as layers of the project: with their styles, in one group, under telling names."""

import os

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingLayerPostProcessorInterface,
    QgsProject,
    QgsVectorLayer,
)

GROUP = "terradapt"
_kept = set()  # QGIS keeps no reference of a Python object


class Finish(QgsProcessingLayerPostProcessorInterface):
    """Give a loaded layer the style of the engine, and move it into a group.

    Args:
        group: The group's name.
        style: A QML file; None for the style that the layer's own file carries.
    """

    def __init__(self, group, style=None):
        super().__init__()
        self.group, self.style = group, style

    def postProcessLayer(self, layer, context, feedback):
        """Do it; QGIS calls this in its main thread."""
        _kept.discard(self)
        if self.style and os.path.isfile(self.style):
            layer.loadNamedStyle(self.style)
        elif isinstance(layer, QgsVectorLayer):
            layer.loadDefaultStyle()
        layer.triggerRepaint()
        root = QgsProject.instance().layerTreeRoot()
        node = root.findLayer(layer.id())
        if node is None or node.parent() != root:
            return  # QGIS from 3.32 on puts it into the group itself
        group = root.findGroup(self.group) or root.insertGroup(0, self.group)
        place = 0
        if not isinstance(layer, QgsVectorLayer):  # rasters lie below lines and polygons
            shown = [isinstance(n.layer(), QgsVectorLayer) for n in group.findLayers()]
            place = shown.index(False) if False in shown else len(shown)
        group.insertChildNode(place, node.clone())
        root.removeChildNode(node)


def finish(context, path, name, *, style=None, shown=None, group=GROUP):
    """Tell QGIS how a result is loaded, where it is to be loaded at all.

    Args:
        context: Of the algorithm.
        path: What the destination parameter gave.
        name: Of the layer.
        style: A QML file.
        shown: What is loaded instead of ``path``: a layer inside the file.
        group: Of the project.

    Returns:
        ``shown`` or ``path``.
    """
    source = shown or path
    if not context.willLoadLayerOnCompletion(path):
        return source
    waiting = context.layersToLoadOnCompletion()
    details = waiting.pop(path)
    waiting[source] = _dressed(details, name, style, group)
    context.setLayersToLoadOnCompletion(waiting)
    return source


def also(context, beside, path, name, output, *, style=None, group=GROUP):
    """Load a further layer of the same result, where the result itself is loaded.

    Args:
        context: Of the algorithm.
        beside: A result that :func:`finish` returned.
        path: The further layer.
        name: Of the layer.
        output: Name of the algorithm's output.
        style: A QML file.
        group: Of the project.
    """
    if context.willLoadLayerOnCompletion(beside):
        project = context.layerToLoadOnCompletionDetails(beside).project
        details = QgsProcessingContext.LayerDetails(name, project, output)
        context.addLayerToLoadOnCompletion(path, _dressed(details, name, style, group))
    return path


def _dressed(details, name, style, group):
    details.name = name
    details.forceName = True  # else the file's where that is not temporary: "map"
    if hasattr(details, "groupName"):
        details.groupName = group
    processor = Finish(group, style)
    _kept.add(processor)
    details.setPostProcessor(processor)
    return details


def network_layers(path):
    """Return edges and nodes of a network's file, as QGIS opens them."""
    stem, suffix = os.path.splitext(path)
    if suffix.lower() == ".shp":
        return path, f"{stem}_nodes.shp"
    if suffix.lower() == ".gpkg":
        return f"{path}|layername=edges", f"{path}|layername=nodes"
    return f"{path}|geometrytype=LineString", f"{path}|geometrytype=Point"


def style_beside(path):
    """Return the QML file that the engine writes beside a file."""
    return os.path.splitext(path)[0] + ".qml"
