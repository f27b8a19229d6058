"""Pictures for the reports: a table or array in, the Axes (or a Figure of several) out.

Colours are fixed per emotion and per stream in every figure and can be told apart with colour-blind eyes (emotions:
Okabe & Ito 2008; streams: Paul Tol's "muted" scheme). Every function draws into `ax`, or into a new figure of page
width. Only `clip_weights` puts transcripts in a figure: matplotlib's own font has no Chinese glyphs.
"""

from ecmf_lib.plots.architecture import architecture
from ecmf_lib.plots.branches import two_branches
from ecmf_lib.plots.clip import face_crops, feature_bars, film_strip, gallery, waveform_and_pitch
from ecmf_lib.plots.corpus import annotator_agreement, class_balance, ledger_summary, stream_maps
from ecmf_lib.plots.cues import cue_shares
from ecmf_lib.plots.lines import curves, learning_curve, reliability, robustness
from ecmf_lib.plots.models import confusion, per_class_f1, scores_with_intervals, stream_weights
from ecmf_lib.plots.refine import actions, noise_matrix, recovery, rounds, source_quality
from ecmf_lib.plots.study import main_table, optimism, paired_differences, subset_scores
from ecmf_lib.plots.style import EMOTION_COLOURS, STREAM_COLOURS, WIDTH, colours, use_style
from ecmf_lib.plots.weights import clip_weights

__all__ = [
    "EMOTION_COLOURS",
    "STREAM_COLOURS",
    "WIDTH",
    "actions",
    "annotator_agreement",
    "architecture",
    "class_balance",
    "clip_weights",
    "colours",
    "confusion",
    "cue_shares",
    "curves",
    "face_crops",
    "feature_bars",
    "film_strip",
    "gallery",
    "learning_curve",
    "ledger_summary",
    "main_table",
    "noise_matrix",
    "optimism",
    "paired_differences",
    "per_class_f1",
    "recovery",
    "reliability",
    "robustness",
    "rounds",
    "scores_with_intervals",
    "source_quality",
    "stream_maps",
    "stream_weights",
    "subset_scores",
    "two_branches",
    "use_style",
    "waveform_and_pitch",
]
