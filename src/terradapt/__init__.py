"""Maps of aerial and satellite images: train a model, map scenes of any size, use the result.

The whole way, in the order of work::

    import terradapt

    run = terradapt.train("landcover", "DIR", "RUN", epochs=20)  # DIR/images and DIR/labels
    report = terradapt.evaluate(run, "DIR")  # figures of the split test
    result = terradapt.predict(run, "scene.tif", confidence=True)  # in memory; with out=, a file
    result.classes, result.confidence, result.areas  # arrays (H, W), hectares by class
    polygons = terradapt.vectorize(result, "map.gpkg")  # QGIS opens it coloured
    network = terradapt.vectorize(result, "roads.gpkg", roads="road")

A notebook shows a run, a report and a map with their tables and pictures. ``run`` may be any model:
a run's folder, a ``checkpoint.safetensors``, a ``model.onnx`` or ``hf://owner/name``;
``terradapt.load`` opens one with another device or engine and keeps it open for many scenes.
``terradapt.build`` makes a bare torch module.

Every mistake of a user is a :class:`terradapt.errors.TerradaptError`: ``message`` says what is
wrong, ``fix`` what to do. The same verbs stand on the command line: ``terradapt --help``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from terradapt.version import __version__ as __version__

if TYPE_CHECKING:  # for type checkers and editors, what HOMES says at run time
    from terradapt.changes.run import compare as compare
    from terradapt.verbs import build as build
    from terradapt.verbs import evaluate as evaluate
    from terradapt.verbs import load as load
    from terradapt.verbs import predict as predict
    from terradapt.verbs import train as train
    from terradapt.verbs import vectorize as vectorize

HOMES = {
    "train": "terradapt.verbs",
    "evaluate": "terradapt.verbs",
    "load": "terradapt.verbs",
    "predict": "terradapt.verbs",
    "vectorize": "terradapt.verbs",
    "compare": "terradapt.changes.run",
    "build": "terradapt.verbs",
}
"""Public name to the module that defines it, imported when the name is first used."""
__all__ = ["__version__", *HOMES]  # noqa: PLE0604  one list, not two

if not TYPE_CHECKING:

    def __getattr__(name):
        from importlib import import_module

        if name not in HOMES:
            raise AttributeError(f"module 'terradapt' has no attribute '{name}'")
        found = globals()[name] = getattr(import_module(HOMES[name]), name)
        return found

    def __dir__():
        return sorted({*globals(), *HOMES})
