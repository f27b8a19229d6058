"""Profiles side by side: what each takes to run, and what its encoders know of the corpus at hand."""

from __future__ import annotations

import pandas as pd
from joblib.externals.loky import get_reusable_executor

from ecmf_lib.config import ENRICHMENT, PROFILES, FuseSettings, cache_dir
from ecmf_lib.encoders import Encoder, EncoderError, encoders, get_encoder
from ecmf_lib.encoders.cards import CARDS
from ecmf_lib.evaluate import results_table
from ecmf_lib.extract import row_key
from ecmf_lib.project import Project, described, store_folder
from ecmf_lib.samples import DataError, FusionData
from ecmf_lib.shards import FileDigests
from ecmf_lib.store import FeatureSet, FeatureStore
from ecmf_lib.study import ALONE, MAJORITY
from ecmf_lib.train import ModelSpec, cross_validate
from ecmf_lib.workers import usable_cores

#: A profile's streams together; as notebook 03 calls it, so that finished folds are shared.
TOGETHER = "late fusion"
#: Marks profiles with weights that were never trained, as :func:`ecmf_lib.project.described` marks encoders.
RANDOM = " (random weights)"
#: With fewer clips than this, starting processes takes longer than the work.
FEW_CLIPS = 1000
#: Of a table of scores, in this order.
COLUMNS = "stream encoder numbers weighted_f1 low high difference p_holm n_clips n_speakers note".split()


def overview() -> pd.DataFrame:
    """Profiles: the encoder of each stream, and what all of them take.

    Returns
    -------
    DataFrame
        profile, a column a stream, download_mb (weights that two streams share counted once), memory_mb (of the weights
        in single precision, a copy for each stream).
    """
    rows = []
    for profile, chosen in PROFILES.items():
        cards = [CARDS[name] for name in chosen.values() if name in CARDS]
        download = sum({card.source: card.download for card in cards}.values())
        memory = sum(card.memory for card in cards)
        rows.append({"profile": profile} | chosen | {"download_mb": download, "memory_mb": memory})
    return pd.DataFrame(rows)


def choices() -> pd.DataFrame:
    """Every encoder that can be chosen, by stream.

    Returns
    -------
    DataFrame
        stream, encoder, profiles (that have it), numbers, download_mb, memory_mb, licence, choice ("ours", or who is
        known to use it), note.
    """
    table = encoders().rename(columns={"name": "encoder", "dim": "numbers"})
    table["profiles"] = [
        ", ".join(p for p, chosen in PROFILES.items() if name in chosen.values()) for name in table["encoder"]
    ]
    table["note"] = [CARDS[name].note if name in CARDS else "" for name in table["encoder"]]
    return table["stream encoder profiles numbers download_mb memory_mb licence choice note".split()]


def stored(project: Project) -> dict[str, list[FeatureSet]]:
    """Stream → sets that can be compared: the project's own first, then what other encoders made of the same clips.

    Others are those of profiles and pre-trained ones, not descriptors that serve other ends. Their sets must have the
    same content, sampled alike and with the same face detector, so that nothing but the encoder differs; of one encoder
    with one choice of settings, the set written last.
    """
    if not project.encoders:
        return {stream: [own] for stream, own in project.sets.items()}
    store = FeatureStore(store_folder(project.corpus))
    table = store.sets()
    others = [store.open(name) for name in table["name"][table["encoder"].isin(_rivals())]]
    others.sort(key=lambda other: -(other.folder / "set.json").stat().st_mtime)
    media = _media(project, store)
    found = {}
    for stream, own in project.sets.items():
        rivals = {label(own): own}
        for other in others:
            comparable = other.stream == stream and label(other) not in rivals and _input(other) == _input(own)
            if comparable and _is_current(other, project, media):
                rivals[label(other)] = other
        found[stream] = list(rivals.values())
    return found


def _rivals() -> set[str]:
    return set(CARDS).union(*(chosen.values() for chosen in PROFILES.values()))


def label(found: FeatureSet) -> str:
    """An encoder as tables name it: "random weights" where it has such, and settings that are not its usual ones."""
    own, usual = found.about["settings"].get("encoder", {}), _encoder(found)
    own = {key: value for key, value in own.items() if key != "reads"}  # the stream says that
    changed = [f"{key}={value}" for key, value in own.items() if usual and usual.settings.get(key) != value]
    return described(found) + (f" ({', '.join(changed)})" if changed else "")


def _encoder(found: FeatureSet) -> Encoder | None:
    """An encoder like the one that made a set, with its usual settings; None if its name is not known (any more)."""
    try:
        return get_encoder(found.encoder)
    except EncoderError:
        return None


def _input(found: FeatureSet) -> list:
    """How clips were sampled and faces found for a set, as far as its encoder uses them."""
    return [found.about["settings"].get(key) for key in ("n_frames", "detector")]


def _media(project: Project, store: FeatureStore) -> dict[str, list[str]]:
    """Clip → digests of its files, as the extraction remembers them."""
    known = FileDigests(store.root / ".cache" / "digests.jsonl")
    return {c.id: [known.of(path) if path else "" for path in (c.video, c.audio)] for c in project.corpus}


def _is_current(found: FeatureSet, project: Project, media: dict[str, list[str]]) -> bool:
    """Whether a set has a row for the present content of every clip."""
    encoder, settings = _encoder(found), found.about["settings"]
    if encoder is None:
        return False
    keys = dict(zip(found.index["id"], found.index["key"], strict=True))
    return all(keys.get(clip.id) == row_key(clip, media[clip.id], encoder.uses, settings) for clip in project.corpus)


def probe(project: Project) -> pd.DataFrame | None:
    """What every stored encoder knows of the labels by itself, and every stored profile with its streams together.

    Logistic regression for each stream; for a profile, the mean of its streams' log-probabilities. Folds hold speakers
    apart and regularisation is chosen on inner folds, as in notebook 03, with one seed.

    Returns
    -------
    DataFrame or None
        stream ("late fusion" for profiles, "" for guessing), encoder (or profile), numbers, weighted_f1, low, high
        (95 %, over speakers), difference from the project's own encoder, p_holm (over the rows of a stream), n_clips,
        n_speakers, note; best first in each stream. None where there are not labelled clips of two classes and groups.
    """
    data, _ = project.samples()
    groups = project.corpus.groups(data.ids)[0] if data is not None else []
    if len(set(groups)) < 2 or len(set(data.labels)) < 2:
        return None
    sets = {stream: rivals for stream, rivals in stored(project).items() if stream in data.streams}
    tables = []
    for stream, rivals in sets.items():
        spec = ModelSpec(stream + ALONE, "logistic", streams=(stream,))
        tables.append(_scores(project, data, groups, stream, spec, {label(one): {stream: one} for one in rivals}))
    own = {stream: rivals[0] for stream, rivals in sets.items()}
    if len(sets) > 1:
        spec = ModelSpec(TOGETHER, "late-logistic")
        tables.append(_scores(project, data, groups, TOGETHER, spec, _whole(own, sets)))
    tables.append(
        _scores(project, data, groups, "", ModelSpec(MAJORITY, "majority"), {MAJORITY: own}).assign(numbers=0)
    )
    get_reusable_executor().shutdown()  # else the kernel's end kills joblib's processes, and they complain
    return pd.concat(tables, ignore_index=True)


def _whole(own: dict[str, FeatureSet], sets: dict[str, list[FeatureSet]]) -> dict[str, dict[str, FeatureSet]]:
    """Profile → its sets: the project's own first, then profiles with all their streams stored."""
    whole = {}
    for name, chosen in PROFILES.items():
        members = {}
        for stream, rivals in sets.items():
            encoder = chosen.get("text" if stream == ENRICHMENT else stream)  # one encoder reads both
            usual = (one for one in rivals if one.encoder == encoder and label(one) == described(one))
            members[stream] = next(usual, None)
        if all(members.values()):
            whole[name + (RANDOM if any(one.about.get("stand_in") for one in members.values()) else "")] = members
    mine = next((name for name, members in whole.items() if members == own), "this run")
    return {mine: own} | whole


def _scores(
    project: Project,
    data: FusionData,
    groups: list[str],
    stream: str,
    spec: ModelSpec,
    lots: dict[str, dict[str, FeatureSet]],
) -> pd.DataFrame:
    """Scores of one kind of model on several lots of sets (by name), the first of which is the reference."""
    clips = project.corpus.clips[project.corpus.clips["id"].isin(data.ids)]
    usual = FuseSettings(seed=project.settings.seed)
    runs = {}
    for name, sets in lots.items():
        try:
            runs[name] = cross_validate(
                FusionData.from_sets(clips, sets, data.classes),
                spec,
                n_folds=usual.folds,
                seeds=[usual.seed],
                epochs=usual.epochs,
                groups=groups,
                folder=cache_dir() / "cache",
                workers=1 if len(data) < FEW_CLIPS else project.settings.workers or usable_cores(),
                progress=False,
            )
        except DataError:  # a rival that says nothing: the same numbers in all clips, or none
            continue
    table = results_table(runs, reference=next(iter(lots)), seed=usual.seed).rename(columns={"model": "encoder"})
    numbers = {name: sum(one.dim for one in sets.values()) for name, sets in lots.items()}
    return table.assign(stream=stream, numbers=table["encoder"].map(numbers))[COLUMNS]
