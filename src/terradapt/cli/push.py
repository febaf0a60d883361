"""``terradapt push``: a checkpoint becomes a repository of the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from terradapt.cli._help import HAND_ON, add


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    examples = """
        # anyone opens it as hf://OWNER/NAME
        terradapt push run OWNER/NAME --license mit
        # only written here, to look at first
        terradapt push run OWNER/NAME --save folder
    """
    add(app, "push", push, HAND_ON, examples)


def push(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A run, or a checkpoint.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository.")],
    licence: Annotated[
        str | None, typer.Option("--license", help="Licence of the weights, for example mit.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="A new one is private.")] = False,
    bundle: Annotated[
        bool, typer.Option("--bundle", help="Store a frozen trunk inside the checkpoint.")
    ] = False,
    trunk: Annotated[
        Path | None, typer.Option(help="Weights of a trunk that the checkpoint only names.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--save", help="Write the repository here, publish nothing.")
    ] = None,
) -> dict[str, Any]:
    """Publish a checkpoint on the Hugging Face Hub, with a card.

    Log in first with `hf auth login`. Open it anywhere as hf://OWNER/NAME.
    """
    from terradapt import hub
    from terradapt.cli._require import require

    require("terradapt push", "train", "torch", "timm")
    if folder is not None:
        hub.save(checkpoint, folder, repo=repo, licence=licence, bundle=bundle, trunk=trunk)
        typer.echo(f"written: {folder / hub.CHECKPOINT} and {folder / hub.CARD}")
        return {"files": [folder / hub.CHECKPOINT, folder / hub.CARD]}
    address = hub.push(
        checkpoint, repo, private=private, licence=licence, bundle=bundle, trunk=trunk
    )
    typer.echo(f"published: {address}")
    return {"files": [], "address": address}
