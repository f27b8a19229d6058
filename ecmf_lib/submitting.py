"""From a bundle and a corpus to a submission that has been checked, with everything behind it as a parquet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ecmf_lib.ensemble import Bundle
from ecmf_lib.predicting import predict_clips
from ecmf_lib.project import Project
from ecmf_lib.submit import SubmissionError, check_submission, write_submission


@dataclass(frozen=True)
class Submission:
    """A submission that was written and checked.

    Attributes
    ----------
    path, parquet : Path
        ``name,discrete``; and the table behind it.
    table : DataFrame
        As :func:`predict_clips`, the candidates in order; `filled` tells those that got the commonest class.
    problems : DataFrame
        Of :func:`ecmf_lib.submit.check_submission` on the file as it was written: empty.
    commonest : str
        What clips get of which nothing can be said.
    """

    path: Path
    parquet: Path
    table: pd.DataFrame
    problems: pd.DataFrame
    commonest: str

    @property
    def filled(self) -> int:
        """Candidates of which nothing could be said."""
        return int(self.table["filled"].sum())


def submit_project(bundle: Bundle, project: Project, path: Path, candidates: Sequence[str] | None = None) -> Submission:
    """Predict the candidates of a corpus and write the submission, with a parquet of everything beside it.

    Every candidate needs a row: one of which nothing can be said gets the training clips' commonest class.

    Parameters
    ----------
    path : Path
        ``….csv``; the parquet has the same name.
    candidates : sequence of str, optional
        Default: the clips of the split "test", in manifest order (for MER2025, that of its candidate list).

    Raises
    ------
    SubmissionError
        No candidates, candidates that the corpus does not have, or a path that is no csv.
    BundleError
        As :func:`predict_clips`.
    """
    path = Path(path)
    if path.suffix.lower() != ".csv":
        raise SubmissionError(f"{path}: a submission is a csv; give a name that ends in .csv")
    clips = project.corpus.clips
    names = clips.loc[clips["split"] == "test", "id"].tolist() if candidates is None else list(candidates)
    if not names:
        raise SubmissionError(
            f"corpus '{project.corpus.name}' has no clips in the split 'test', so there is nothing to submit; "
            "mark the candidates in the manifest's column split, or name them with --candidates"
        )
    unknown = sorted(set(names) - set(clips["id"]))
    if unknown:
        raise SubmissionError(
            f"corpus '{project.corpus.name}' does not have {len(unknown)} of {len(names)} candidates, for example "
            f"{unknown[0]!r}; add them to the manifest, or give the candidate list that belongs to it"
        )
    table = predict_clips(bundle, project, clips.set_index("id", drop=False).loc[names].reset_index(drop=True))
    filled = table["predicted"] == ""
    table["predicted"] = table["predicted"].mask(filled, bundle.commonest)
    table.insert(2, "filled", filled)
    write_submission(path, table["id"].tolist(), table["predicted"].tolist(), candidates=names, classes=bundle.classes)
    parquet = path.with_suffix(".parquet")
    table.to_parquet(parquet, index=False)
    return Submission(path, parquet, table, check_submission(path, names, bundle.classes), bundle.commonest)
