"""Cues in the words themselves: negation, intensifiers, exclamations, questions, laughter, and VADER's valence.

English: the lists and the valence are those of VADER (Hutto & Gilbert, ICWSM 2014), in the maintained package
``nltk-vader-sentiment``, which carries its lexicon (nltk's would have to be downloaded; ``vaderSentiment`` has had no
release since 2020, and does not know "don’t" with a typographic apostrophe, which MELD has throughout).

Chinese: no maintained package offers a lexicon that can be had beside our pins (cntext needs numpy < 2; snownlp brings
a model of shopping reviews). The short lists below are ours, of the commonest words, simplified and traditional, and
are searched without word segmentation: words that only look like negation are taken out first. 好 is in none of them:
"very" in 好累, "good" in 好人.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

LONGEST = 5000  # characters that are looked at
SHOWN = 3  # words of one kind that are quoted
_NEUTRAL = 0.05  # VADER's authors: a compound score within ±0.05 is neutral
_CLEAR = 0.5  # ours

_ENGLISH_MORE_NEGATIONS = {"no", "nobody", "nah"}
_ENGLISH_NO_DEGREE = {"more", "most", "less", "major", "total", "little", "considerable"}  # mostly not of feeling
_ENGLISH_INTERJECTION = re.compile(r"\b(?:oh my god|oh god|oh no|oh|ooh|wow|ugh|eww?|ouch|aww?|yay|whoa|damn|gosh)\b")
_ENGLISH_LAUGHTER = re.compile(r"\b(?:a?(?:ha){2,}h?|(?:he){2,}h?|lol|lmao|rofl|laugh(?:s|ing)?)\b")
_ENGLISH_SOFTENER = re.compile(r"\b(?:kind of|kinda|sort of|sorta|a little|a bit|somewhat|slightly|barely|hardly)\b")
_STRETCHED = re.compile(r"\b\w*([a-z])\1{2,}\w*\b", re.IGNORECASE)

_CHINESE_LOOKALIKE = re.compile(
    "差不多|不过|不過|不错|不錯|不但|不仅|不僅|不管|不如|不同|不断|不斷|不论|不論|特别|特別|别人|別人|别的|別的|分别|"
    "分別|区别|區別|差别|差別|级别|級別|告别|告別|性别|性別|非常|是非|未来|未來|未婚|无论|無論|莫名|没关系|沒關係"
)
_CHINESE_ASKED = re.compile("(.)[不没沒]\\1|有没有|有沒有")
_CHINESE_NEGATION = re.compile(
    "没有|沒有|从不|從不|决不|絕不|绝不|不是|不要|不能|不会|不會|不想|不用|别|別|没|沒|不|未|无法|無法"
)
_CHINESE_INTENSIFIER = re.compile(
    "非常|特别|特別|十分|实在|實在|简直|簡直|完全|绝对|絕對|极其|極其|极了|極了|真的|真是|太(?![太阳陽])(?<!太太)|很|超级|超級|这么|這麼|那么|那麼|多么|多麼|真(?![的是相实實正假话話])|最(?![后後近初终終])"
)
_CHINESE_SOFTENER = re.compile("有点|有點|有些|稍微|一点点|一點點|几乎|幾乎|大概|也许|也許")
_CHINESE_INTERJECTION = re.compile("哎呀|哎哟|唉|哇|哦|噢|啊(?=[,!。]|$)|天哪|天啊|我的天|哼|啧|呸|糟了|糟糕|完了")
_CHINESE_LAUGHTER = re.compile("[哈呵嘻嘿]{2,}")
_CHINESE_QUESTION = re.compile("[吗嗎][?。!]*$")


def lexical_cues(text: str, language: str = "") -> tuple[str, ...]:
    """Cues in a transcript, in words.

    Parameters
    ----------
    text : str
        What is said.
    language : str
        Its language tag; empty: told from the script. Other languages than English and Chinese give only what
        punctuation shows.

    Returns
    -------
    tuple of str
        Such as ``("negation: don't, never", "question", "words sound negative (VADER -0.57)")``; may be empty.
    """
    text = unicodedata.normalize("NFKC", text[:LONGEST]).replace("’", "'").replace("ʼ", "'")
    kind = _kind(text, language)
    words = _english(text) if kind == "en" else _chinese(text) if kind == "zh" else []
    return tuple(words + _marks(text, kind) + (_valence(text) if kind == "en" else []))


def _kind(text: str, language: str) -> str:
    """ "en", "zh" or another tag; where the manifest says nothing, Latin script counts as English."""
    tag = language.strip().lower().replace("_", "-").split("-")[0]
    if tag:
        return {"eng": "en", "english": "en", "cmn": "zh", "yue": "zh", "chinese": "zh"}.get(tag, tag)
    letters = [c for c in text if c.isalpha()]
    if sum("\u4e00" <= c <= "\u9fff" for c in letters) > 0.3 * len(letters):
        return "zh"
    return "en" if all(c < "\u0250" for c in letters) else ""


@lru_cache(maxsize=1)
def _vader():
    from vader import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def _english(text: str) -> list[str]:
    vader, lower = _vader(), text.lower()
    tokens = re.findall(r"[a-z]+(?:'[a-z]+)*", lower)
    degree = {word for word, weight in vader.booster.items() if weight > 0} - _ENGLISH_NO_DEGREE
    negations = vader.negations | _ENGLISH_MORE_NEGATIONS
    return [
        *_quoted("negation", [t for t in tokens if t in negations or t.endswith("n't")]),
        *_quoted("intensifier", [t for t in tokens if t in degree]),
        *_quoted("softener", _ENGLISH_SOFTENER.findall(lower)),
        *_quoted("interjection", _ENGLISH_INTERJECTION.findall(lower)),
        *(["laughter"] if _ENGLISH_LAUGHTER.search(lower) else []),
        *_quoted("stretched", [match.group() for match in _STRETCHED.finditer(text)]),
        *_quoted("capitals", _shouted(text)),
    ]


def _chinese(text: str) -> list[str]:
    rest = _CHINESE_ASKED.sub(" ", _CHINESE_LOOKALIKE.sub(" ", text))
    return [
        *_quoted("negation", _CHINESE_NEGATION.findall(rest)),
        *_quoted("intensifier", _CHINESE_INTENSIFIER.findall(text)),
        *_quoted("softener", _CHINESE_SOFTENER.findall(text)),
        *_quoted("interjection", _CHINESE_INTERJECTION.findall(text)),
        *(["laughter"] if _CHINESE_LAUGHTER.search(text) else []),
    ]


def _marks(text: str, kind: str) -> list[str]:
    """What punctuation shows, and Chinese words that ask without it."""
    asked = "?" in text or (kind == "zh" and bool(_CHINESE_QUESTION.search(text) or _CHINESE_ASKED.search(text)))
    calls = text.count("!")
    return [
        *(["question"] if asked else []),
        *(["exclamation" if calls == 1 else "several exclamation marks"] if calls else []),
        *(["hesitation or trailing off (...)"] if re.search(r"\.\.+|。。+", text) else []),
    ]


def _shouted(text: str) -> list[str]:
    """Words in capitals among others that are not."""
    words = re.findall(r"[^\W\d_]+", text)
    loud = [word for word in words if len(word) > 1 and word.isupper()]
    return loud if len(loud) < sum(len(word) > 1 for word in words) else []


def _valence(text: str) -> list[str]:
    score = _vader().polarity_scores(text)["compound"]
    if abs(score) < _NEUTRAL:
        return []
    clearly = "clearly " if abs(score) >= _CLEAR else ""
    return [f"words sound {clearly}{'positive' if score > 0 else 'negative'} (VADER {score:+.2f})"]


def _quoted(kind: str, words: list[str]) -> list[str]:
    """``["negation: no, never"]``: each word once, in the order in which they are said."""
    shown = [word[:20] for word in dict.fromkeys(words)][:SHOWN]
    return [f"{kind}: {', '.join(shown)}"] if shown else []
