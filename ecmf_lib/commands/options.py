"""Options that several commands have: they are called the same and mean the same in all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ecmf_lib.config import ENGINES, NOTEBOOKS, PROFILES, Settings

#: Exit status → what it says of a run, for every command; docs/command.md is made from it.
EXITS = {
    0: "done",
    1: "something failed or is incomplete: its output says what",
    2: "wrong use: an option, a parameter, a file or a corpus that cannot be used; the message names the mend",
    130: "interrupted by Ctrl-C; run again, commands go on where they stopped",
}


def examples(*lines: str) -> str:
    """Examples as the end of a command's help; each is a paragraph, or they would be run together."""
    return "\n\n".join(f"$ {line}" for line in lines)


def _parameters() -> list[str]:
    apart = ("corpus", "output", "profile", "encoders", "weights", "llm")  # have options of their own
    names = {name for model in NOTEBOOKS.values() for name in model.model_fields}
    return sorted(f"{name}=" for name in names.difference(apart))


CorpusArgument = Annotated[str, typer.Argument(help="demo, a folder, or ADAPTER:FOLDER", metavar="CORPUS")]
WeightsOption = Annotated[
    str, typer.Option(help="folder with weights (detectors, encoders by name), or the name of an insightface pack")
]
ProfileOption = Annotated[
    str, typer.Option(help=f"encoders of the streams: {', '.join(PROFILES)}", autocompletion=lambda: list(PROFILES))
]
EncoderOption = Annotated[
    list[str] | None,
    typer.Option(help="STREAM=NAME[:SETTING=VALUE,…], in place of the profile's, e.g. audio=wavlm-large:layers=last4"),
]
LLMOption = Annotated[
    list[str] | None, typer.Option(help="NAME=VALUE of the language model, e.g. base_url=… (enricher llm) or folder=…")
]
EngineOption = Annotated[
    str,
    typer.Option(
        help="local, or ray: a Ray cluster at RAY_ADDRESS, or one started here; default: ECMF_ENGINE",
        autocompletion=lambda: list(ENGINES),
    ),
]
ShareOption = Annotated[
    str, typer.Option(help="URL at which the nodes of the cluster keep the store; default: ECMF_SHARE, or its folder")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="NAME=VALUE of a notebook parameter, e.g. seeds=5, streams=face,audio",
        autocompletion=_parameters,
    ),
]
WorkersOption = Annotated[int, typer.Option(help="processes; 0 = one a core", min=0, max=256)]
DeviceOption = Annotated[str, typer.Option(help=Settings.model_fields["device"].description)]
JsonOption = Annotated[
    bool, typer.Option("--json", help="one JSON object on stdout; messages and progress go to stderr")
]
SourceOption = Annotated[
    list[str] | None,
    typer.Option(help="csv that says more about the labels; STREAM=FILE if it looks at one stream only; repeatable"),
]
ReviewOption = Annotated[
    Path | None, typer.Option(help="csv of a human's decisions, as ecmf refine and notebook 04 write it")
]
BundleOption = Annotated[Path, typer.Option(help="folder of a trained bundle: of ecmf train --bundle, or notebook 05")]
