"""Commands on this machine and its weights: doctor, fetch, stand-ins."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Annotated

import typer

from ecmf_lib.commands.options import EncoderOption, JsonOption, ProfileOption, WeightsOption
from ecmf_lib.commands.talk import answering, refusals
from ecmf_lib.commands.words import swaps


def doctor(
    profile: ProfileOption = "light",
    encoder: EncoderOption = None,
    weights: WeightsOption = "",
    asr: Annotated[str, typer.Option(help="speech recogniser that is to be used, e.g. whisper-small")] = "",
    offline: Annotated[bool, typer.Option("--offline", help="do not ask the hub about what is missing")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what this machine has, what each encoder of a profile needs, and whether the profile can run now.

    Exit status 0 if it can, 1 if not (the last lines say what to do), 2 for an unknown profile, encoder or setting.
    """
    with answering(as_json) as answer, refusals(answer):
        from ecmf_lib.doctor import devices, examine, memory_mb
        from ecmf_lib.encoders import profile as encoders_of

        chosen = swaps(encoder)
        found = examine(profile, chosen, weights=weights or None, asr=asr, online=not offline)
        typer.echo("\n".join(found.lines) + "\n")
        for problem in found.problems:
            typer.secho(problem, fg="red")
        answer |= {"profile": profile, "can_run": not found.problems, "problems": found.problems}
        made = encoders_of(profile, chosen, weights=weights or None)
        answer |= {"encoders": {stream: one.name for stream, one in made.items()}, "devices": devices()}
        answer |= {"memory_mb": memory_mb(), "cores": os.cpu_count(), "python": platform.python_version()}
        if found.problems:
            raise typer.Exit(1)
        typer.echo(f"profile {profile} can run on this machine")


def fetch(
    profile: Annotated[
        str | None, typer.Option(help="all encoders of it; default: base, or none with --encoder")
    ] = None,
    encoder: Annotated[
        list[str] | None, typer.Option(help="NAME of an encoder or speech recogniser, or STREAM=NAME; may be repeated")
    ] = None,
    weights: WeightsOption = "",
) -> None:
    """Download the weights of a profile ahead of time, for machines that then work without a network.

    They go to the hub's cache (HF_HOME); what lies in the weights folder is not downloaded. Exit status 1 if something
    could not be had; what has been downloaded stays.
    """
    with refusals():
        from ecmf_lib.fetch import cards_of
        from ecmf_lib.fetch import fetch as fetch_weights

        cards = cards_of(profile or (None if encoder else "base"), encoder or ())
        problems = fetch_weights(cards, weights or None, say=typer.echo)
    for problem in problems:
        typer.secho(problem, err=True, fg="red")
    if problems:
        raise typer.Exit(1)


def stand_ins(
    folder: Annotated[
        Path, typer.Argument(help="weights folder to write into; made if it is not there", metavar="FOLDER")
    ],
    profile: ProfileOption = "base",
    encoder: EncoderOption = None,
    real_size: Annotated[bool, typer.Option("--real-size", help="as large as the published, to measure speed")] = False,
) -> None:
    """Write random weights in the real formats, to rehearse a profile without a download.

    Then: ecmf report --profile base --weights FOLDER. The features mean nothing and reports call them random weights.
    """
    with refusals():
        from ecmf_lib.encoders import profile as encoders_of
        from ecmf_lib.encoders.stand_ins import write

        for made in encoders_of(profile, swaps(encoder)).values():
            if card := getattr(made, "card", None):
                typer.echo(f"{made.name}: {write(card, folder, size='real' if real_size else 'tiny')}")
