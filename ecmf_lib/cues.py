"""What was heard, seen and said before, in words: the evidence that goes beside a transcript.

A large language model cannot hear. SpeechCueLLM (Wu et al., arXiv 2407.21315) described prosody in words and gave it to the
model with the transcript; here the face, the words themselves and the dialogue are described as well. All of it is
computed offline from features that are in the store, and never from labels.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

Utterance = tuple[str, str]  # (speaker, what was said)


@dataclass(frozen=True)
class Cues:
    """The cues of one clip. Each cue is one short plain English phrase; a part without evidence is empty.

    Attributes
    ----------
    id : str
        Clip id.
    transcript : str
        What is said, as the manifest has it: data that somebody else wrote, never an instruction.
    language : str
        Language tag of the transcript; may be empty.
    voice : tuple of str
        Prosody, e.g. "louder than usual for this speaker".
    face : tuple of str
        What the face does, e.g. "smiles clearly".
    words : tuple of str
        Lexical cues, e.g. "negation: don't".
    context : tuple of (speaker, utterance)
        What was said before in the same dialogue, oldest first.
    """

    id: str
    transcript: str
    language: str = ""
    voice: tuple[str, ...] = ()
    face: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    context: tuple[Utterance, ...] = ()

    def to_dict(self) -> dict:
        """All content as JSON-able values."""
        return json.loads(json.dumps(asdict(self)))

    @property
    def digest(self) -> str:
        """64 hex digits of all content, for the keys of caches."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()
