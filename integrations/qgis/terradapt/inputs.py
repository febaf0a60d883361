"""Layers and extents of QGIS as files that the engine reads."""

import json
import os
import shutil
from pathlib import Path

from qgis.core import (
    QgsCoordinateTransform,
    QgsFeature,
    QgsFeatureSink,
    QgsFields,
    QgsGeometry,
    QgsProcessingException,
    QgsProcessingUtils,
    QgsProviderRegistry,
    QgsVectorFileWriter,
    QgsWkbTypes,
)

from .model_file import class_list


def file_of(layer):
    """Return the file of a layer.

    Raises:
        QgsProcessingException: It is none: a service, a database or a layer in memory.
    """
    provider = layer.dataProvider().name() if layer.dataProvider() else ""
    parts = QgsProviderRegistry.instance().decodeUri(provider, layer.source())
    path = parts.get("path", "")
    if provider not in ("gdal", "ogr") or not os.path.isfile(path):
        raise QgsProcessingException(
            f"{layer.name()}: is no file on this machine. Save it as one (right click > Export > "
            "Save As...) and choose that"
        )
    return os.path.abspath(path)


def write_polygons(geometries, crs, context, name="area"):
    """Write polygons as a temporary GeoPackage and return its path."""
    features = []
    for geometry in geometries:
        feature = QgsFeature(QgsFields())
        feature.setGeometry(geometry)
        features.append(feature)
    return _write(features, QgsFields(), QgsWkbTypes.Type.MultiPolygon, crs, context, name)


def write_source(source, context, name):
    """Write a vector layer as it is now, with edits that are not saved, and return its path.

    Only what is selected, where that was chosen.
    """
    kind = source.wkbType()
    return _write(source.getFeatures(), source.fields(), kind, source.sourceCrs(), context, name)


def _write(features, fields, kind, crs, context, name):
    path = QgsProcessingUtils.generateTempFilename(f"{name}.gpkg")
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = "GPKG"
    options.layerName = name
    # The layer's own fid may have doubles while it is edited; the file makes its own.
    keep = [i for i in range(fields.count()) if fields.at(i).name().lower() != "fid"]
    kept = QgsFields()
    for i in keep:
        kept.append(fields.at(i))
    writer = QgsVectorFileWriter.create(path, kept, kind, crs, context.transformContext(), options)
    if writer.hasError() != QgsVectorFileWriter.WriterError.NoError:
        raise QgsProcessingException(f"{path}: cannot be written ({writer.errorMessage()})")
    for feature in features:
        copy = QgsFeature(kept)
        copy.setGeometry(feature.geometry())
        values = feature.attributes()
        copy.setAttributes([values[i] for i in keep])
        if not writer.addFeature(copy, QgsFeatureSink.Flag.FastInsert):
            raise QgsProcessingException(f"{path}: cannot be written ({writer.errorMessage()})")
    del writer  # closes the file
    return path


def area_of_interest(extent, source, crs, context):
    """Return a file with the area of interest, or None for the whole scene.

    Args:
        extent: A rectangle in the scene's CRS, as geometry; empty for none.
        source: Polygons, or None.
        crs: The scene's.
        context: Of the algorithm.

    Raises:
        QgsProcessingException: The layer has no polygon within the rectangle.
    """
    has_extent = extent is not None and not extent.isEmpty()
    if source is None:
        return write_polygons([extent], crs, context) if has_extent else None
    move = QgsCoordinateTransform(source.sourceCrs(), crs, context.transformContext())
    pieces = []
    for feature in source.getFeatures():
        geometry = QgsGeometry(feature.geometry())
        if source.sourceCrs().isValid() and crs.isValid():
            geometry.transform(move)
        geometry = geometry.intersection(extent) if has_extent else geometry
        if not geometry.isEmpty() and geometry.area() > 0:
            geometry.convertToMultiType()
            pieces.append(geometry)
    if not pieces:
        raise QgsProcessingException(
            "the area of interest has no polygon here. Check its layer, the selection, and the "
            "extent"
        )
    return write_polygons(pieces, crs, context)


def lend_images(layers, folder):
    """Make a folder ``images`` with the layers' files, by hard links where the disk has them.

    Args:
        layers: Raster layers.
        folder: Where ``images`` is made.

    Raises:
        QgsProcessingException: A layer is no file, or two have the same name.
    """
    images = Path(folder) / "images"
    images.mkdir(parents=True, exist_ok=True)
    for layer in layers:
        path = Path(file_of(layer))
        if (images / path.name).exists():
            raise QgsProcessingException(f"{path.name}: two images have this name. Rename one")
        beside = [p for p in path.parent.glob(f"{path.stem}.*") if _belongs(p, path)]
        for file in [path, *beside]:
            try:
                os.link(str(file), str(images / file.name))
            except OSError:  # another disk, or one without links
                shutil.copy2(str(file), str(images / file.name))
    return str(folder)


def _belongs(file, image):
    """Tell whether a file says where an image lies."""
    worlds = (".tfw", ".tifw", ".wld", ".jgw", ".pgw", ".prj")
    return file != image and (file.suffix.lower() in worlds or file.name == f"{image.name}.aux.xml")


def raster_classes(path):
    """Return name and colour of each class that a raster's own metadata lists; none for others."""
    from osgeo import gdal

    if not os.path.isfile(path):
        return []
    dataset = gdal.Open(path)
    text = dataset.GetMetadataItem("TERRADAPT_CLASSES") if dataset else None
    try:
        return class_list(json.loads(text)) if text else []
    except (ValueError, KeyError, TypeError):
        return []
