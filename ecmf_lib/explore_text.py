"""Looking closely at enrichment: one clip from its words to its embedding, cues by label, answers and their cost."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from ecmf_lib import evaluate
from ecmf_lib.config import EMOTIONS, ENRICHMENT
from ecmf_lib.cues import Cues
from ecmf_lib.cues_measures import FACE, USUAL, VOICE
from ecmf_lib.enrich import Bill, CuesEnricher, LLMEnricher, estimate, spent
from ecmf_lib.enrich_cache import Replies
from ecmf_lib.enrich_talk import Setup, Talk
from ecmf_lib.enriching import make_enricher
from ecmf_lib.project import Project, store_folder

#: Attribute of :class:`Cues` → what a table calls it.
PARTS = {"voice": "voice", "face": "face", "words": "words", "context": "said before"}
LONGEST_SHOWN = 4000  # characters of an answer


def worked_example(project: Project) -> Cues | None:
    """Cues of the clip that the settings name, else of a good one with most kinds of cue, then most cues; or None."""
    named = getattr(project.settings, "clip", "")
    if named and project.cues:
        project.corpus.clip(named)  # says what ids look like if there is none such
        return next(cues for cues in project.cues if cues.id == named)
    good = set(project.ledger.loc[project.ledger["status"] == "done", "id"])
    there = [cues for cues in project.cues if cues.id in good]
    return max(there, key=lambda cues: (bool(cues.transcript.strip()), *_known(cues)), default=None)


def _known(cues: Cues) -> tuple[int, int]:
    """Kinds of cue that a clip has, and how many cues."""
    counts = [len(getattr(cues, part)) for part in PARTS]
    return sum(map(bool, counts)), sum(counts)


def labelled(project: Project) -> list[str]:
    """Ids of the clips with a label that may be looked at: those of split "labelled"."""
    clips = project.corpus.clips
    return clips.loc[(clips["split"] == "labelled") & (clips["label"] != ""), "id"].tolist()


def cue_table(cues: Cues) -> pd.DataFrame:
    """All that is known of a clip, one row a cue: kind, cue."""
    rows = [("transcript", cues.transcript or "(none)")]
    for part, name in PARTS.items():
        told = [f"{who or 'somebody'}: {said}" for who, said in cues.context] if part == "context" else None
        rows += [(name, cue) for cue in told or getattr(cues, part)] or [(name, "(nothing)")]
    return pd.DataFrame(rows, columns=["kind", "cue"])


def conversation(project: Project, cues: Cues) -> list[tuple[str, str]]:
    """What a language model is sent about a clip, and what it answered as far as the cache of answers has it.

    Returns
    -------
    list of (who, text)
        "system" and "user" are sent, "assistant" is an answer, "no answer" says why there is none. Without a model,
        what one would be sent. Empty for a clip of which nothing at all is known: there is nothing to ask.
    """
    enricher = make_enricher(project.settings)
    talk = Talk(cues, getattr(enricher, "setup", None) or Setup("", "", "v1"))
    said = []
    with Replies(_cache(project)) as replies:
        while talk.request:
            sent = [(one["role"], one["content"]) for one in talk.request.messages]
            said += sent[len(said) :]
            reply = replies.get([talk.request.key]).get(talk.request.key)
            if reply is None:
                break
            said.append(("no answer", reply.failure) if reply.failure else ("assistant", _shown(reply.text)))
            talk.hear(reply)
    return said


def _shown(answer: str) -> str:
    """An answer as a page can hold it: without control characters, which could hide a part, and not endless."""
    visible = "".join(sign if sign.isprintable() or sign == "\n" else "\ufffd" for sign in answer[:LONGEST_SHOWN])
    return visible + "…" * (len(answer) > LONGEST_SHOWN)


def _cache(project: Project):
    """The project's answers; None where no model ever answered."""
    path = store_folder(project.corpus) / "enrichment.sqlite"
    return path if path.is_file() else None


def result_table(project: Project, clip_id: str) -> pd.DataFrame:
    """What became of one clip: what, value; scores with their class."""
    row = project.enriched.set_index("id").loc[clip_id]
    rows = [(name, row[name]) for name in ("state", "by", "reason", "tone", "wants", "evidence", "text") if row[name]]
    scores = [(name, row[f"score_{name}"]) for name in EMOTIONS if not np.isnan(row[f"score_{name}"])]
    if scores:
        rows.append(("scores, kept apart", ", ".join(f"{name} {score:.2f}" for name, score in scores)))
    return pd.DataFrame(rows, columns=["what", "value"])


def nearest(project: Project, clip_id: str, *, n: int = 3) -> pd.DataFrame:
    """The clips whose embeddings are most like that of one clip, by its transcript and by its enrichment.

    Returns
    -------
    DataFrame
        read (the stream), numbers (of the embedding), rank, id, similarity (cosine), label, transcript. Streams that
        the clip lacks are left out.
    """
    clips = project.corpus.clips.set_index("id")
    labels = clips.loc[labelled(project), "label"].to_dict()
    ids, rows = clips.index.tolist(), []
    at = ids.index(clip_id)
    for stream in ("text", ENRICHMENT):
        if stream not in project.sets:
            continue
        matrix, present = project.sets[stream].matrix(ids)
        if not present[at]:
            continue
        unit = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)
        like = np.where(present, unit @ unit[at], -np.inf)
        like[at] = -np.inf
        for rank, other in enumerate(np.argsort(-like, kind="stable")[: min(n, present.sum() - 1)], 1):
            row = {
                "read": stream,
                "numbers": matrix.shape[1],
                "rank": rank,
                "id": ids[other],
                "similarity": like[other],
            }
            rows.append(row | {"label": labels.get(ids[other], ""), "transcript": clips["transcript"].iloc[other]})
    return pd.DataFrame(rows, columns="read numbers rank id similarity label transcript".split())


def unlike_usual(phrase: str) -> str:
    """A phrase without what it is compared with: "louder than usual for this speaker" → "louder"."""
    for end in USUAL.values():
        phrase = phrase.removesuffix(end)
    return phrase


def cue_kinds(cues: Cues) -> set[str]:
    """Kinds of cues of a clip: without how much, compared with what, and which words."""
    kinds = {unlike_usual(phrase).replace("much ", "") for phrase in (*cues.voice, *cues.face)}
    words = (re.sub(r" ?\(.*|:.*|clearly ", "", cue) for cue in cues.words)
    return kinds | {"said: " + word.removeprefix("words sound ") for word in words}


def _place(kind: str) -> tuple[int, str]:
    """Order of kinds: voice, face, words, each as its measures are ordered."""
    order = [phrase.replace("{}", "") for one in (*VOICE, *FACE) for phrase in (one.more, one.less)]
    order.insert(2 * len(VOICE), "pitch rises at the end")
    return (order.index(kind) if kind in order else len(order)), kind


def cue_shares(project: Project, *, least: float = 0.02) -> pd.DataFrame:
    """How often each kind of cue is there, label by label.

    Parameters
    ----------
    least : float
        Share of clips below which a kind is left out.

    Returns
    -------
    DataFrame
        Index kind of cue; column "all clips", and one for each label that labelled clips have: shares, 0…1.
    """
    columns: dict[str, list[set[str]]] = {"all clips": []}
    labels = project.corpus.clips.set_index("id").loc[labelled(project), "label"].to_dict()
    columns |= {label: [] for label in project.corpus.classes if label in labels.values()}
    for one in project.cues:
        kinds = cue_kinds(one)
        columns["all clips"].append(kinds)
        if one.id in labels:
            columns[labels[one.id]].append(kinds)
    names = sorted(set().union(*columns["all clips"]), key=_place)
    table = pd.DataFrame(
        {name: [np.mean([kind in one for one in there]) for kind in names] for name, there in columns.items()}, names
    )
    return table[table["all clips"] >= least].rename_axis("cue")


def states(enriched: pd.DataFrame, *, n: int = 10) -> pd.DataFrame:
    """How many clips ended in which state, by whom and why: state, by, reason, clips; the commonest reasons first."""
    counts = enriched.groupby(["state", "by", "reason"], sort=False).size().rename("clips").reset_index()
    counts = counts.sort_values("clips", ascending=False, kind="stable", ignore_index=True)
    if len(counts) <= n:
        return counts
    rest = {"state": "", "by": "", "reason": f"{len(counts) - n} other reasons", "clips": counts["clips"][n:].sum()}
    return pd.concat([counts.head(n), pd.DataFrame([rest])], ignore_index=True)


def bill(project: Project) -> Bill:
    """What the language model's answers took; where none was asked, what asking one would take."""
    enricher = make_enricher(project.settings)
    if isinstance(enricher, CuesEnricher):
        nobody = LLMEnricher("http://127.0.0.1/v1", "any")  # never asked: counts what would be sent
        return estimate(project.cues, nobody, cache=None)
    return spent(project.cues, enricher, cache=_cache(project))


def scores_against_labels(project: Project) -> pd.DataFrame | None:
    """A language model's scores as predictions, beside the labels: a table for :mod:`ecmf_lib.evaluate`.

    Returns
    -------
    DataFrame or None
        seed (0), id, speaker (what folds hold apart), label, predicted (the class with the highest score),
        ``p_<class>``. None where no labelled clip has scores.
    """
    scored = project.enriched.dropna(subset=[f"score_{name}" for name in EMOTIONS])
    labels = project.corpus.clips.set_index("id").loc[labelled(project), "label"]
    scored = scored[scored["id"].isin(labels.index[labels.isin(EMOTIONS)])]
    if scored.empty:
        return None
    ids = scored["id"].tolist()
    table = pd.DataFrame({"seed": 0, "id": ids, "speaker": project.corpus.groups(ids)[0]})
    table["label"] = labels[ids].to_numpy()
    scores = scored[[f"score_{name}" for name in EMOTIONS]].to_numpy()
    table["predicted"] = np.array(EMOTIONS)[scores.argmax(axis=1)]
    return table.join(pd.DataFrame(scores, columns=[f"p_{name}" for name in EMOTIONS]))


def agreement_with_labels(table: pd.DataFrame, *, n_boot: int = 2000, seed: int = 0) -> pd.DataFrame:
    """One row: how well scores fit labels, with an interval over speakers and the calibration error."""
    row = evaluate.results_table({"scores of the language model": table}, n_boot=n_boot, seed=seed)
    calibration = evaluate.calibration_error(table)
    columns = ["model", "weighted_f1", "low", "high", "accuracy", "n_clips", "n_speakers", "note"]
    return row[columns].assign(calibration_error=calibration)
