"""Pictures for the reports: a table or array in, the Axes (or a Figure of several) out.

Colours are fixed per emotion and per stream in every figure and can be told apart with colour-blind eyes (emotions:
Okabe & Ito 2008; streams: Paul Tol's "muted" scheme). Every function draws into `ax`, or into a new figure of page
width. Nothing here puts transcripts in a figure: matplotlib's own font has no Chinese glyphs.
"""

from ecmf_lib.plots.branches import two_branches
from ecmf_lib.plots.clip import face_crops, feature_bars, film_strip, gallery, waveform_and_pitch
from ecmf_lib.plots.corpus import annotator_agreement, class_balance, ledger_summary, stream_maps
from ecmf_lib.plots.cues import cue_shares
from ecmf_lib.plots.models import confusion, per_class_f1, scores_with_intervals, stream_weights
from ecmf_lib.plots.style import EMOTION_COLOURS, STREAM_COLOURS, WIDTH, colours, use_style

__all__ = [
    "EMOTION_COLOURS",
    "STREAM_COLOURS",
    "WIDTH",
    "annotator_agreement",
    "class_balance",
    "colours",
    "confusion",
    "cue_shares",
    "face_crops",
    "feature_bars",
    "film_strip",
    "gallery",
    "ledger_summary",
    "per_class_f1",
    "scores_with_intervals",
    "stream_maps",
    "stream_weights",
    "two_branches",
    "use_style",
    "waveform_and_pitch",
]
