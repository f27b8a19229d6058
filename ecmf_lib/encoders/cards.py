"""What people need to know of each pre-trained encoder before they download it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Card:
    """One pre-trained encoder.

    Attributes
    ----------
    name : str
        What profiles, notebooks and stores call it.
    stream : str
        One of :data:`ecmf_lib.config.STREAMS`.
    family : str
        Which class loads it, see :data:`ecmf_lib.encoders.FAMILIES`.
    source : str
        Repository on the Hugging Face hub (``owner/name``), a file in one (``owner/name/file.onnx``), or
        ``insightface:<pack>/<file>``. "" for weights that only come from the user's own folder.
    width : int
        Numbers in one step of the published weights.
    parameters : int
        Million parameters of the part that is used.
    download : int
        MB that have to be downloaded, as published.
    licence : str
    choice : str
        Whose choice it is: "ours", or who is known to have used it.
    uses : str
        "frames", "faces", "audio" or "text": what it is given.
    settings : dict
        Defaults that differ from the family's.
    revision : str
        Branch or commit on the hub.
    note : str
        A line for people.
    """

    name: str
    stream: str
    family: str
    source: str
    width: int
    parameters: int
    download: int
    licence: str
    choice: str
    uses: str
    settings: dict = field(default_factory=dict)
    revision: str = "main"
    note: str = ""

    @property
    def memory(self) -> int:
        """MB of the weights in single precision; half of it in half precision. What runs through them comes on top."""
        return self.parameters * 4


_VIT_L_CLIP = "timm/vit_large_patch14_clip_224.openai"

_ALL = (
    # ------------------------------------------------------------------------------------ whole frames
    Card("clip-b32", "global", "timm", "timm/vit_base_patch32_clip_224.openai", 768, 88, 352, "MIT", "ours", "frames"),
    Card("clip-l14", "global", "timm", _VIT_L_CLIP, 1024, 304, 1213, "MIT", "ours", "frames"),
)

#: Name → card of every pre-trained encoder.
CARDS: dict[str, Card] = {card.name: card for card in _ALL}
