"""Names everybody shares, and run settings that are checked instead of trusted.

Each notebook has one ``parameters`` cell and one frozen model here. papermill only warns about a parameter that
the notebook does not know; :func:`check_parameters` refuses it, and refuses a value of the wrong type or range.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

#: The six classes of MER2025-SEMI, in the challenge's index order.
EMOTIONS = ("neutral", "angry", "happy", "sad", "worried", "surprise")

#: The four streams of ECMF, in the order in which tables and plots show them.
STREAMS = ("global", "face", "audio", "text")

#: A fifth stream for those who ask for it: what a language model wrote about the words, apart from the words.
ENRICHMENT = "enrichment"

#: Profile → the encoder of each stream; ``ecmf doctor`` says what each needs. All of it is our choice: the paper names
#: no encoder. "Ranked" is the official baseline's comparison (MER2024), the only measurement of these on such clips.
PROFILES: dict[str, dict[str, str]] = {
    # no download, a laptop
    "light": {"global": "hog-colour-motion", "face": "hog-lbp-face", "audio": "egemaps", "text": "char-ngram"},
    # about 1 GB to download, fine on a CPU, and for more than one language
    "base": {
        "global": "siglip2-b32",  # of the CLIP class, 64 patches an image: a quarter of the work of a /16 model
        "face": "siglip2-b32-face",  # the same weights on crops, downloaded once; CLIP is ranked above networks for FER
        "audio": "mhubert-147",  # HuBERT is ranked first; this one knows 147 languages (non-commercial licence)
        "text": "granite-embedding",  # the smallest that reads Chinese and English: 229 MB
    },
    # a GPU, the strongest
    "paper": {
        "global": "clip-l14",  # our addition, as the baseline sees crops only; the same weights as for faces
        "face": "clip-l14-face",  # ranked first
        "audio": "hubert-large-zh",  # ranked first
        "text": "roberta-zh",  # ranked first, before its large version
    },
}

#: Audio is brought to this rate on decoding: what speech models expect, in Hz.
SAMPLE_RATE = 16_000


class SettingsError(ValueError):
    """A parameter that is unknown, ill-typed or out of range; the message names each of them and the mend."""


#: The checkout: relative paths in parameters are relative to it, so that a report names no machine's folders.
REPO = Path(__file__).resolve().parents[1]


def resolve(path: str) -> Path:
    """A parameter's path: absolute as it is, relative to the checkout otherwise."""
    return (REPO / Path(path).expanduser()).resolve()


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """``" (did you mean 'seeds'?)"`` for a name that is nearly one of the choices; empty if it is near none."""
    near = difflib.get_close_matches(name[:100], list(choices), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""


def cache_dir() -> Path:
    """Folder for generated and downloaded things: ``$ECMF_DATA``, else ``data/`` of the checkout."""
    given = os.environ.get("ECMF_DATA")
    return resolve(given) if given else REPO / "data"


#: Where extraction and a local language model run: this machine, or a Ray cluster (docs/cluster.md).
ENGINES = ("local", "ray")


def engine_of_run(corpus_name: str) -> tuple[str, str]:
    """Engine and share of a run: ``$ECMF_ENGINE``, and ``$ECMF_SHARE`` with the corpus's name at its end.

    They are no parameters of notebooks, because no result depends on them; the options ``--engine`` and ``--share`` of
    the command set them.

    Returns
    -------
    engine : str
        One of :data:`ENGINES`; "local" where nothing is said.
    share : str
        URL at which the nodes of a cluster keep the corpus's store; empty if they share the store's folder.

    Raises
    ------
    SettingsError
        For another engine, a share that is no URL, or one without the engine "ray".
    """
    engine, share = os.environ.get("ECMF_ENGINE") or "local", os.environ.get("ECMF_SHARE", "").rstrip("/")
    if engine not in ENGINES:
        raise SettingsError(f"engine '{engine}': choose from {', '.join(ENGINES)} (--engine or ECMF_ENGINE)")
    if share and ("://" not in share or engine != "ray"):
        raise SettingsError(
            f"share '{share}': expected a URL such as s3://bucket/ecmf, with the engine ray (--share or ECMF_SHARE)"
        )
    return engine, f"{share}/{corpus_name}" if share else ""


class Settings(BaseModel):
    """Parameters that every notebook has."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    needs_clips: ClassVar[bool] = False  # True: nothing to show without a decoded clip (ready-made features have none)
    needs_labels: ClassVar[bool] = False  # True: nothing to show without labelled clips of several groups
    reads: ClassVar[tuple[str, ...]] = ()  # notebooks whose stored tables are shown: execute again when they change

    corpus: str = Field("demo", min_length=1, description="adapter name, folder, or 'adapter:folder'")
    output: str = Field("reports/by-hand", min_length=1, description="folder of this run's tables and notebooks")
    seed: int = Field(0, ge=0, lt=2**31, description="seeds everything random in the run")
    profile: str = Field("light", description="encoders of the streams: " + ", ".join(PROFILES))
    encoders: dict[str, str | dict[str, str | int | float]] = Field(
        {}, description="stream → encoder that takes the place of the profile's, or its settings"
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="where models run; auto = a GPU if any"
    )
    asr: str = Field(
        "", description="speech recogniser for clips without a transcript, e.g. whisper-small; empty = none"
    )
    enricher: Literal["none", "cues", "llm", "local"] = Field(
        "cues", description="who spells out the emotional cues: none, words made of measures, a server, a local model"
    )
    llm: dict[str, str | int | float | bool | dict] = Field(
        {}, description="the language model: base_url, model, allow_remote, … of a server; folder, … of a local one"
    )
    detector: Literal["auto", "lbp", "yunet", "insightface"] = Field("auto", description="face detector")
    weights: str = Field(
        "",
        description="folder with weights: detectors (ONNX), and encoders in place of the hub's; or an insightface pack",
    )
    frames: int = Field(12, ge=2, le=256, description="frames sampled from a clip")
    workers: int = Field(0, ge=0, le=256, description="decode processes; 0 = one a core")
    max_clips: int = Field(0, ge=0, description="so many clips, drawn at random (tests, teaching); 0 = all")

    @classmethod
    def from_notebook(cls, namespace: dict) -> Settings:
        """The settings that a notebook's ``parameters`` cell has set: ``Settings.from_notebook(globals())``.

        Raises
        ------
        SettingsError
            As :func:`check_parameters`.
        """
        name = next(name for name, model in NOTEBOOKS.items() if model is cls)
        return check_parameters(name, {field: namespace[field] for field in cls.model_fields if field in namespace})


class StartSettings(Settings):
    """Parameters of ``00_start_here``."""

    needs_clips: ClassVar[bool] = True
    clip: str = Field("", description="id of the clip that is followed; empty = the first good one")


class ExtractSettings(Settings):
    """Parameters of ``01_extract_features``."""

    clip: str = Field("", description="id of the clip shown; empty = the first good one with a picture")


class EnrichSettings(Settings):
    """Parameters of ``02_enrich_text``."""

    clip: str = Field("", description="id of the clip that is followed; empty = the first good one")
    folds: int = Field(6, ge=2, le=50, description="outer folds; speakers are held apart")
    bootstrap: int = Field(2000, ge=50, le=100_000, description="resamples of speakers for intervals")


class FuseSettings(Settings):
    """Parameters of ``03_fuse_and_ablate``."""

    needs_labels: ClassVar[bool] = True
    streams: list[str] = Field([], description="only these streams; empty = all")
    fusions: list[str] = Field([], description="only these models beside ECMF, by name in the table; empty = all")
    folds: int = Field(4, ge=2, le=50, description="outer folds; speakers are held apart")
    seeds: int = Field(5, ge=1, le=50, description="repetitions with another seed")
    trials: int = Field(
        2,
        ge=0,
        le=1000,
        description="settings that the search tries for each fusion in each outer fold, on inner folds; 0 = the fixed "
        "recipe for all",
    )
    epochs: int = Field(25, ge=1, le=1000, description="most epochs; the inner split stops earlier")
    bootstrap: int = Field(2000, ge=50, le=100_000, description="resamples of speakers for intervals")
    side_seeds: int = Field(
        1,
        ge=0,
        le=50,
        description="seeds of the side studies (subsets, robustness, learning curve); 0 = leave them out",
    )
    steps: int = Field(
        12, ge=0, le=256, description="parts of a clip's time for frame-level models; 0 = clip level only"
    )


class RefineSettings(Settings):
    """Parameters of ``04_refine_labels``."""

    needs_labels: ClassVar[bool] = True
    streams: list[str] = Field([], description="only these streams; empty = all")
    sources: list[str] = Field(
        [], description="csv files that say more about the labels: path, or STREAM=path if it looks at one stream only"
    )
    method: Literal["em", "crowdlab", "confident-learning", "dawid-skene", "majority", "weighted"] = Field(
        "em", description="how sources are combined"
    )
    review: str = Field("", description="csv of a human's decisions, as this notebook writes it; empty = none")
    folds: int = Field(4, ge=2, le=50, description="outer folds; speakers are held apart")
    seeds: int = Field(5, ge=1, le=50, description="repetitions with another seed")
    epochs: int = Field(25, ge=1, le=1000, description="most epochs; the inner split stops earlier")
    bootstrap: int = Field(2000, ge=50, le=100_000, description="resamples of speakers for intervals")
    side_seeds: int = Field(
        1, ge=0, le=50, description="seeds of the studies with injected noise and hidden labels; 0 = leave them out"
    )
    rates: list[float] = Field([0.1, 0.2, 0.3, 0.4], description="shares of labels that are made wrong")
    noise_model: Literal["ecmf", "linear-experts"] = Field(
        "linear-experts", description="what is trained on noisy labels: ECMF, or its linear experts (seconds)"
    )
    hidden: float = Field(0.8, gt=0, lt=1, description="share of the labels that are hidden for self-training")

    @property
    def trials(self) -> int:
        """No search: the fixed recipe for all arms."""
        return 0

    @property
    def fusions(self) -> list[str]:
        """No rivals here."""
        return []

    @property
    def steps(self) -> int:
        """Clip level."""
        return 0


class PredictSettings(Settings):
    """Parameters of ``05_predict_and_submit``."""

    needs_labels: ClassVar[bool] = True
    streams: list[str] = Field([], description="only these streams; empty = all")
    labels: Literal["given", "refined", "self-trained"] = Field(
        "refined", description="labels that the bundle is trained on; self-trained = refined, with unlabelled clips"
    )
    sources: list[str] = Field([], description="csv files that say more about the labels, as in notebook 04")
    review: str = Field("", description="csv of a human's decisions, as notebook 04 writes it; empty = none")
    folds: int = Field(4, ge=2, le=50, description="outer folds; a member is trained on all but one of them")
    seeds: int = Field(2, ge=1, le=50, description="repetitions with other folds: the bundle has folds x seeds members")
    epochs: int = Field(25, ge=1, le=1000, description="most epochs; the inner split stops earlier")
    bootstrap: int = Field(2000, ge=50, le=100_000, description="resamples of speakers for intervals")
    bundle: str = Field("", description="folder that the bundle is written into; empty = in data/models")

    @property
    def steps(self) -> int:
        """Clip level."""
        return 0


class ExploreSettings(Settings):
    """Parameters of ``06_explore``."""

    needs_labels: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("03_fuse_and_ablate", "04_refine_labels")
    view: str = Field("", description="what is shown first: a saved view (.json) or run=…&model=…; empty = this run")
    compare: str = Field("", description="another run in reports to set beside this one; empty = none")
    bootstrap: int = Field(2000, ge=50, le=100_000, description="resamples of speakers for intervals")
    clips: int = Field(3, ge=0, le=50, description="clips shown of each cell of the confusion matrix")


#: Notebook name → its parameters. A notebook that is not here cannot be run by ``ecmf report``.
NOTEBOOKS: dict[str, type[Settings]] = {
    "00_start_here": StartSettings,
    "01_extract_features": ExtractSettings,
    "02_enrich_text": EnrichSettings,
    "03_fuse_and_ablate": FuseSettings,
    "04_refine_labels": RefineSettings,
    "05_predict_and_submit": PredictSettings,
    "06_explore": ExploreSettings,
}


def check_parameters(notebook: str, given: dict) -> Settings:
    """Check one notebook's parameters.

    Parameters
    ----------
    notebook : str
        Name without ``.ipynb``, one of :data:`NOTEBOOKS`.
    given : dict
        Parameter name → value; missing ones take their default.

    Raises
    ------
    SettingsError
        Naming every unknown name and every value of the wrong type or range at once.
    """
    if notebook not in NOTEBOOKS:
        raise SettingsError(f"no notebook '{notebook}'; choose from {', '.join(NOTEBOOKS)}")
    model = NOTEBOOKS[notebook]
    try:
        return model(**given)
    except ValidationError as error:
        lines = [_explain(model, problem) for problem in error.errors()]
        raise SettingsError(f"{notebook}: {len(lines)} bad parameter(s)\n  " + "\n  ".join(lines)) from None


def _shown(value: object) -> str:
    """A value as a message holds it: a number of 5,000 digits cannot even be written down."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 200 else f"{text[:200]}…"


def _explain(model: type[Settings], problem: dict) -> str:
    field, *inside = (str(part) for part in problem["loc"])  # inside a list or dict: which entry
    name = ".".join([field, *inside])
    if problem["type"] == "extra_forbidden":
        return f"{name}: unknown; this notebook takes {', '.join(model.model_fields)}"
    if field == "llm":  # what somebody wrote there may be an address or a key
        return f"{name}: {problem['msg']} ({model.model_fields[field].description})"
    return f"{name} = {_shown(problem['input'])}: {problem['msg']} ({model.model_fields[field].description})"
