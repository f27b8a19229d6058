"""The page about the command, docs/command.md: ``python -m ecmf_lib.commands.page > docs/command.md`` makes it."""

from __future__ import annotations

import re

import typer
from typer.cli import get_docs_for_click

from ecmf_lib.commands.options import EXITS

_HEAD = """# The command

Made by `python -m ecmf_lib.commands.page` from the program itself; a test compares them.

Every command calls what the notebooks call, with the same settings and caches: what one has computed, the other reads. A corpus is `demo`, a folder, or `ADAPTER:FOLDER`. An option is called the same and means the same in all commands that have it; `--set NAME=VALUE` gives any parameter of the notebooks, as in their first cell. `ecmf --install-completion` teaches the shell (bash, zsh, fish, PowerShell) commands, options, profiles and names for `--set`. A name that is nearly right is answered with the one that was meant.

## Exit status

| status | meaning |
|---|---|
{exits}

A clip that cannot be decoded is no failure of `ecmf extract`: it is listed with its reason. `ecmf predict` ends with 1 if no clip could be predicted, `ecmf submit --check` if the file has a problem, `ecmf doctor` if the profile cannot run here, `ecmf fetch` if something could not be had, `ecmf enrich` if a language model's answers failed, `ecmf report` if a notebook failed.

## For scripts

With `--json`, stdout has one JSON object and nothing else; messages and progress go to stderr. If the work was refused (status 2), it is `{{"error": "…"}}`; for an unknown command or option nothing is written. Numbers that do not exist are `null`, and all but ASCII is escaped. No command asks questions.

```sh
ecmf train demo --rival LMF --json | jq '.scores[] | {{model, weighted_f1, low, high}}'
```
"""  # noqa: E501


def page() -> str:
    """The whole page, as markdown."""
    from ecmf_lib.run import app

    command = typer.main.get_command(app)
    parts = []
    with typer.Context(command, info_name="ecmf") as context:
        for name in command.list_commands(context):
            one = command.get_command(context, name)
            told = get_docs_for_click(obj=one, ctx=context, name=name, call_prefix="ecmf", indent=1)
            parts.append(re.sub(r"\*\*Usage\*\*:\n\n```console\n\$ (.*)\n```\n", r"`\1`\n", told))
    told = re.sub(r"^\$ (ecmf .*)$", r"```sh\n\1\n```", "".join(parts), flags=re.M)
    told = told.replace("```\n\n```sh\n", "")  # examples of one command in one block
    exits = "\n".join(f"| {status} | {meaning} |" for status, meaning in EXITS.items())
    return _HEAD.format(exits=exits) + "\n" + told.rstrip() + "\n"


if __name__ == "__main__":
    print(page(), end="")
