"""Write the map: the verb ``predict`` in a process of its own (``python -m``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from terradapt.export import fastest
from terradapt.files import digest
from terradapt.scene import PredictOptions, predict_scene
from terradapt.viewer.child import emitting, serve


def write_map_files(request: Mapping[str, Any]) -> dict[str, Any]:
    """Predict scenes into files; a stopped one goes on where it stopped.

    Args:
        request: ``checkpoint``, and ``scenes``: pairs of scene and map.

    Returns:
        The files.
    """
    path = Path(request["checkpoint"])
    predictor = fastest.load(path)
    name = f"{path.name} {digest(path)[:12]}"
    options = PredictOptions(resume=True, overwrite=True)
    written = []
    for scene, out in request["scenes"]:
        predict_scene(predictor, _scene(scene), Path(out), options, emitting, model=name)
        written.append(out)
    return {"files": written}


def _scene(given: Any) -> Any:
    return [Path(p) for p in given] if isinstance(given, list) else given


if __name__ == "__main__":
    serve(write_map_files)
