"""Speech recognition for clips without a transcript, marked as such in the manifest.

Whisper (Radford et al., ICML 2023) through transformers, greedy, so that the same sound always gives the same words.
What has been heard is remembered in a file, line by line: a run that is stopped at any moment goes on where it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm import tqdm

from ecmf_lib.config import SAMPLE_RATE
from ecmf_lib.encoders.cards import Card
from ecmf_lib.encoders.checkpoint import load_model, load_part
from ecmf_lib.encoders.model import choose_device
from ecmf_lib.encoders.weights import find
from ecmf_lib.media import MediaError, read_media
from ecmf_lib.shards import FileDigests, digest_of
from ecmf_lib.workers import LIMIT, Died, Lost, TimedOut, run_jobs, usable_cores

if TYPE_CHECKING:
    from ecmf_lib.corpus import Clip, Corpus

WINDOW = 30 * SAMPLE_RATE  # samples that Whisper hears at once
CHUNK = 16  # clips between two writes to the memory; the most whose work an interruption can cost
VERSION = 1  # raised whenever the same sound could get other words

NO_SOUND, SILENT, NOTHING = "no audio track", "audio is silent", "no words recognised"


class Heard(NamedTuple):
    """What was heard in one clip.

    Attributes
    ----------
    text : str
        One line; "" if there is nothing.
    language : str
        Code of the language that it was taken for, "" without words.
    reason : str
        Why there is no text, else "".
    """

    text: str = ""
    language: str = ""
    reason: str = ""


def transcribe(
    corpus: Corpus,
    asr: Card,
    cache: Path,
    *,
    root: Path | str | None = None,
    device: str = "auto",
    workers: int = 0,
    progress: bool = True,
) -> Corpus:
    """Fill empty transcripts with what is said; the others stay as they are.

    Parameters
    ----------
    corpus : Corpus
    asr : Card
        One of :data:`ecmf_lib.encoders.cards.ASR_CARDS`.
    cache : Path
        Folder in which what has been heard is remembered, by the content of the sound and the fingerprint of the model.
    root : path, optional
        Weights folder, as for encoders.
    device : str
        As for :meth:`ecmf_lib.encoders.model.ModelEncoder.ready`.
    workers : int
        Processes that decode; 0 = one a core.

    Returns
    -------
    Corpus
        With a column ``transcript_source``: "manifest", "asr:<name>", or "" where there is still no transcript. The
        reasons for that are in ``clips.attrs["asr"]``, clip id → text: a clip that cannot be decoded ends no run.

    Raises
    ------
    WeightsError
        If there are clips to transcribe and the model is missing or unfit; before any of them is touched.
    """
    clips = [clip for clip in corpus if not clip.transcript.strip() and clip.needs_files]
    heard = _hear(corpus, clips, Recogniser(asr, root), Path(cache), device, workers, progress) if clips else {}
    table = corpus.clips.copy()
    given = table["transcript_source"] if "transcript_source" in table else table["id"].map(lambda id: "")
    texts = table["id"].map(lambda id: heard.get(id, Heard()).text)
    written = table["transcript"].str.strip() != ""
    table["transcript_source"] = given.where(given != "", "manifest").where(written, "")
    table.loc[texts != "", "transcript_source"] = f"asr:{asr.name}"
    table["transcript"] = table["transcript"].where(written, texts)
    table.attrs["asr"] = {id: found.reason for id, found in heard.items() if found.reason}
    return replace(corpus, clips=table)


class Recogniser:
    """Whisper with its decoder, from a local checkpoint.

    Parameters
    ----------
    card : Card
    root : path, optional
        Weights folder.
    """

    libraries = ("torch", "transformers")

    def __init__(self, card: Card, root: Path | str | None = None):
        self.card, self.root = card, root
        self._model = None

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change whenever the same sound could get other words; WeightsError without weights."""
        versions = {name: import_module(name).__version__ for name in self.libraries}
        return digest_of("asr", VERSION, self.card.name, find(self.card, self.root).digest, versions)[:16]

    def ready(self, device: str = "auto") -> None:
        """Load the model, if it is not there; raises WeightsError."""
        if self._model is not None:
            return
        import torch

        device, folder, name = choose_device(device), find(self.card, self.root).path, self.card.name
        dtype = torch.float16 if device.startswith("cuda") else torch.float32
        self._extractor = load_part("WhisperFeatureExtractor", folder, name)
        self._tokenizer = load_part("WhisperTokenizer", folder, name)
        self._model = load_model("WhisperForConditionalGeneration", folder, name, device=device, dtype=dtype)
        self._batch = 32 if device.startswith("cuda") else 4

    def listen(self, sounds: Sequence[np.ndarray], languages: Sequence[str]) -> list[Heard]:
        """What is said.

        Parameters
        ----------
        sounds : list of float32 [samples]
            16 kHz. What is longer than 30 s goes through by Whisper's own method: the next window begins where the
            last words of the one before ended, so that no word is cut.
        languages : list of str
            Tags or English names ("zh-CN", "Chinese"); "" or one that the model does not know: found out.
        """
        self.ready()
        heard: list[Heard] = [Heard()] * len(sounds)
        short = [place for place, sound in enumerate(sounds) if len(sound) <= WINDOW]
        long = [[place] for place, sound in enumerate(sounds) if len(sound) > WINDOW]
        for places in [*_batched(short, self._batch), *long]:
            found = self._together([sounds[place] for place in places], [languages[place] for place in places])
            for place, one in zip(places, found, strict=True):
                heard[place] = one
        return heard

    def _together(self, sounds: list[np.ndarray], languages: list[str]) -> list[Heard]:
        import torch

        long = len(sounds[0]) > WINDOW
        padding = {"truncation": False, "padding": "longest"} if long else {}
        inputs = self._extractor(
            sounds, sampling_rate=SAMPLE_RATE, return_tensors="pt", return_attention_mask=True, **padding
        )
        mel = inputs.input_features.to(self._model.device, self._model.dtype)
        options = {"num_beams": 1, "do_sample": False, "return_timestamps": long}
        with torch.inference_mode():
            if getattr(self._model.generation_config, "is_multilingual", False):
                languages = self._languages(mel, languages)
                options |= {"language": languages, "task": "transcribe"}
            else:
                languages = ["en"] * len(sounds)
            ids = self._model.generate(mel, attention_mask=inputs.attention_mask.to(self._model.device), **options)
        texts = [" ".join(text.split()) for text in self._tokenizer.batch_decode(ids, skip_special_tokens=True)]
        pairs = zip(texts, languages, strict=True)
        return [Heard(text, language) if text else Heard(reason=NOTHING) for text, language in pairs]

    def _languages(self, mel, languages: list[str]) -> list[str]:
        """Codes of the languages, found out where they are not given; one code a sound."""
        known = self._model.generation_config.lang_to_id  # "<|zh|>" → token
        codes = [_code(language, known) for language in languages]
        if not all(codes):
            names = {number: token.strip("<|>") for token, number in known.items()}
            found = [names[number] for number in self._model.detect_language(mel).tolist()]
            codes = [code or detected for code, detected in zip(codes, found, strict=True)]
        return codes


def _code(language: str, known: dict[str, int]) -> str:
    """A language tag or name as the model's code; "" if the model does not know it."""
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    name = language.strip().lower().replace("_", "-").partition("-")[0]
    code = TO_LANGUAGE_CODE.get(name, name)
    return code if f"<|{code}|>" in known else ""


# ------------------------------------------------------------------------------------------------ many clips


def _hear(
    corpus: Corpus, clips: list[Clip], recogniser: Recogniser, cache: Path, device: str, workers: int, progress: bool
) -> dict[str, Heard]:
    """Clip id → what was heard, from the memory where it is there."""
    memory, fingerprint = _Memory(cache / f"{recogniser.card.name}.jsonl"), recogniser.fingerprint
    digests = FileDigests(cache / "digests.jsonl")
    keys = {clip.id: digest_of(digests.of(_file(clip)), clip.language, fingerprint)[:32] for clip in clips}
    digests.save()
    # A chunk is heard as a whole or not at all: who shares a batch then never depends on where a run was stopped.
    chunks = [chunk for chunk in _batched(clips, CHUNK) if any(keys[clip.id] not in memory.known for clip in chunk)]
    heard = {clip.id: memory.known[keys[clip.id]] for clip in clips if keys[clip.id] in memory.known}
    if not chunks:
        return heard
    recogniser.ready(device)
    total = sum(map(len, chunks))
    with tqdm(total=total, desc=f"{corpus.name}: {recogniser.card.name}", unit="clip", disable=not progress) as bar:
        for chunk, sounds in _decoded(chunks, _Decode(str(corpus.root)), workers or usable_cores()):
            found = _chunk_heard(recogniser, chunk, sounds)
            heard |= found
            # a process that died may have been killed for memory: that says nothing lasting about the clip
            lasting = [clip.id for clip in chunk if not isinstance(sounds[clip.id], Lost)]
            memory.add({keys[id]: found[id] for id in lasting})
            bar.update(len(chunk))
    return heard


def _chunk_heard(recogniser: Recogniser, chunk: Sequence[Clip], sounds: dict[str, object]) -> dict[str, Heard]:
    audible = [clip for clip in chunk if isinstance(sounds[clip.id], np.ndarray)]
    found = recogniser.listen([sounds[clip.id] for clip in audible], [clip.language for clip in audible])
    heard = dict(zip([clip.id for clip in audible], found, strict=True))
    why = {Died: "worker process died while decoding this clip, also when tried alone", TimedOut: "decoding hangs"}
    for clip in chunk:
        problem = sounds[clip.id]
        if clip.id not in heard:
            heard[clip.id] = Heard(reason=f"{why[type(problem)]} ({problem})" if isinstance(problem, Lost) else problem)
    return heard


def _decoded(
    chunks: Sequence[Sequence[Clip]], decode: _Decode, workers: int
) -> Iterator[tuple[Sequence[Clip], dict[str, object]]]:
    """Chunks with the sounds of their clips, or why there is none; decoded by worker processes."""
    number_of = {clip.id: number for number, chunk in enumerate(chunks) for clip in chunk}
    waiting: dict[int, dict[str, object]] = {}
    with closing(
        run_jobs((clip for chunk in chunks for clip in chunk), decode, workers=workers, limit=LIMIT)
    ) as answers:
        for clip, sound in answers:
            number = number_of[clip.id]
            waiting.setdefault(number, {})[clip.id] = sound
            if len(waiting[number]) == len(chunks[number]):
                yield chunks[number], waiting.pop(number)


@dataclass(frozen=True)
class _Decode:
    """The sound of a clip, or why there is none. Goes to worker processes."""

    root: str

    def __call__(self, clip: Clip) -> np.ndarray | str:
        try:
            media = read_media(None, _file(clip))  # a video is read for its sound only
        except MediaError as error:
            return str(error).replace(self.root + os.sep, "")
        except Exception as error:
            return f"decoding failed with {type(error).__name__}: {error}".replace(self.root + os.sep, "")
        if media.audio_state == "ok":
            return media.audio
        return SILENT if media.audio_state == "silent" else NO_SOUND


def _batched(items: Sequence, size: int) -> list[Sequence]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _file(clip: Clip) -> Path:
    return clip.audio or clip.video


class _Memory:
    """Key → what was heard: a file with a line of JSON each, only ever added to; a torn last line is ignored."""

    def __init__(self, path: Path):
        self.path = path
        self.known: dict[str, Heard] = {}
        if path.is_file():
            for line in path.read_bytes().splitlines():
                try:
                    key, *heard = json.loads(line)
                    self.known[key] = Heard(*heard)
                except (ValueError, TypeError):
                    continue

    def add(self, heard: dict[str, Heard]) -> None:
        lines = "".join(json.dumps([key, *found], ensure_ascii=False) + "\n" for key, found in heard.items())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab+") as file:
            file.seek(max(0, file.tell() - 1))
            torn = file.read(1) not in (b"", b"\n")
            file.write(b"\n" * torn + lines.encode())
            file.flush()
            os.fsync(file.fileno())
        self.known |= heard
