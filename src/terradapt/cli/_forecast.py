"""What ``predict`` says before it begins: windows, time, memory."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from terradapt.cli._progress import say
from terradapt.progress import duration_text

if TYPE_CHECKING:
    from terradapt.raster import ScenePath
    from terradapt.scene import PredictOptions, Predictor
    from terradapt.scene.cluster import Cluster
    from terradapt.scene.embedded import Embedded


def tell_forecasts(
    scenes: list[ScenePath], predictor: Predictor, options: PredictOptions, workers: int | None
) -> dict[str, Any]:
    """Say what each scene will take, here and with workers like this machine; predict nothing.

    Returns:
        ``plans``, one a scene.
    """
    from terradapt.scene.forecast import forecast
    from terradapt.scene.job import open_job

    plans = []
    for scene in scenes:
        with ExitStack() as stack:
            told = forecast(open_job(predictor, scene, options, "", stack), _name(scene))
        plans.append(told.to_dict(workers))
        typer.echo(told.line())
        hours = plans[-1]["hours"]
        if not hours:
            typer.echo("  no sample of the scene had data: the time is not known")
        for count, time in hours.items():
            if workers in (None, count):
                named = "worker " if count == 1 else "workers"
                typer.echo(f"  {count:2} {named} like this machine: {duration_text(3600 * time)}")
    return {"files": [], "plans": plans}


def tell_before(
    scene: ScenePath,
    predictor: Predictor,
    options: PredictOptions,
    pool: Cluster | Embedded | None,
) -> None:
    """Say what a big scene will take."""
    from terradapt.scene.embedded import Embedded
    from terradapt.scene.forecast import BIG, forecast
    from terradapt.scene.job import open_job

    with ExitStack() as stack:
        job = open_job(predictor, scene, options, "", stack)
        windows = len(job.grid)
        if windows < BIG:
            return
        told = forecast(job, _name(scene))
    workers = pool.sharing(windows) if isinstance(pool, Embedded) else pool.workers if pool else 1
    say(told.line(workers))


def _name(scene: ScenePath) -> str:
    return Path(scene).name if isinstance(scene, (str, Path)) else f"mosaic of {len(scene)} files"
