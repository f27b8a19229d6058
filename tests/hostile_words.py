"""Words from outside that want to be a part of a page, a terminal or a table; and a corpus whose people say them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
from fault_server import good_answer

#: Run by a browser, it leaves ``data-owned="42"`` on the page's first element: a text that no payload holds.
OWN = "document.documentElement.setAttribute('data-owned',6*7);document.title='owned'"
SCRIPTS = (
    f"<script>{OWN}</script>",
    f'<img src=x onerror="{OWN}">',
    f'"><svg onload="{OWN}">',
    f'\'><details open ontoggle="{OWN}">',
    f"</script><script>{OWN}</script>",
    f"</style></pre></td></table><script>{OWN}</script>",
    f'<iframe srcdoc="<script>parent.{OWN.replace(";", ";parent.")}</script>"></iframe>',
    f'[see](javascript:{OWN}) ![x](x" onerror="{OWN})',
    f'<a href="javascript:{OWN}">see</a>',
    f"```\n</code></pre><script>{OWN}</script>\n```",
    f"$\\href{{javascript:{OWN}}}{{x}}$ $$ \\frac{{1$",
    f"&lt;script&gt;{OWN}&lt;/script&gt; &#60;script&#62;{OWN}&#60;/script&#62;",
    "<meta http-equiv=refresh content='0;url=https://evil.example/'><base href='https://evil.example/'>",
    "{{ 7*7 }} {% raw %} ${OWN} <%= OWN %>",
)
#: What a corpus refuses in a transcript, but another column or a file's name may hold.
SIGNS = ("\x1b[31mred\x1b]8;;javascript:x\x07link\x1b]8;;\x07", "\u202eevil\u202c \u2066x", "=1+1", "@SUM(A1)", "a\rb")
#: Allowed in an id: ids name files.
IDS = ("=1+1", "-2", "@a", "&lt;script&gt;", "a'b (x)", "$x_{$", "[a](b)", "`id`", "{{7+7}}", "%s%n", "+3", "a&amp;b")


def hostile_corpus(folder: Path, six_clips: Path) -> Path:
    """Two copies of each of six talking clips with hostile words, people and ids, and a clip that cannot be read."""
    shutil.copytree(six_clips / "video", folder / "video")
    clips = pd.read_csv(six_clips / "manifest.csv", keep_default_na=False, dtype=str)
    clips = pd.concat([clips, clips], ignore_index=True)
    n = len(clips)
    people = [SCRIPTS[0] + SIGNS[0], SCRIPTS[1] + SIGNS[1], SCRIPTS[2] + SIGNS[2], SCRIPTS[5] + SIGNS[4]]
    clips = clips.assign(
        id=IDS[:n],
        transcript=[f"{SCRIPTS[i % len(SCRIPTS)]} {SCRIPTS[(i + 7) % len(SCRIPTS)]}" for i in range(n)],
        language=["en", "<b>en"] * (n // 2),
        label=["happy", "sad"] * (n // 2),
        split="labelled",
        speaker=[people[i // 2 % len(people)] for i in range(n)],
    )
    clips.loc[n - 1, ["label", "split"]] = ["", "test"]
    odd = f"video/<img src=x onerror={OWN.split(';')[1]}>.mp4"
    (folder / odd).write_bytes(b"\0" * 400)
    bad = clips.iloc[:1].assign(id="bad", video=odd, label="", split="unlabelled")
    pd.concat([clips, bad]).to_csv(folder / "manifest.csv", index=False)
    return folder


def hostile_answer(messages: list[dict]) -> str:
    """A language model's answer in due form that holds scripts wherever it has words of its own."""
    data = json.loads(messages[1]["content"])
    answer = good_answer(data)
    answer["description"] = f"The speaker seems pleased and a little proud. {SCRIPTS[1]} {SCRIPTS[2]} {SIGNS[0]}"
    answer["wants"] = f"To be heard. {SCRIPTS[0]} {SIGNS[1]}"
    return json.dumps(answer)
