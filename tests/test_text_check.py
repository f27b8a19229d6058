"""What is not looked at one by one is neither blank nor wrongly decoded."""

import pandas as pd

from ecmf_lib.tables import wrongly_encoded
from ecmf_lib.text_check import doubtful, matches

HANZI = [c for a in range(0xB0, 0xF8) for b in range(0xA1, 0xFF) if (c := bytes([a, b]).decode("gb2312", "ignore"))]
WESTERN = [c for byte in range(0x80, 0x100) if (c := bytes([byte]).decode("cp1252", "ignore"))]
BLANKS = list("\t\n\r\x0b\x1c\x1f\x85\xa0\u1680\u2003\u2028\u202f\u205f\u3000 ")


def texts(rng, n: int) -> list[str]:
    """Good and bad ones: blanks, mixtures, UTF-8 read as something else, any characters."""
    found = []
    for _ in range(n):
        letters = [HANZI, WESTERN, BLANKS, [*HANZI, *WESTERN, *"abc ,."], [*WESTERN, *"abc "]][rng.integers(5)]
        text = "".join(rng.choice(letters, int(rng.integers(0, 7))))
        read_as = [None, "cp1252", "gb18030", "latin-1"][rng.integers(4)]
        if read_as:
            text = text.encode().decode(read_as, str(rng.choice(["ignore", "replace"])))
        if rng.random() < 0.2:
            text += "".join(chr(code) for code in rng.integers(0x80, 0xD800, 3))
        found.append(text)
    return found


def test_nothing_bad_is_passed_over(rng):
    given = texts(rng, 8_000)
    bad = [bool(wrongly_encoded(text)) or (text != "" and text.strip() == "") for text in given]
    looked_at = doubtful(pd.Series(given, dtype="str"))
    assert sum(bad) > 1500
    missed = [text for text, wrong, seen in zip(given, bad, looked_at, strict=True) if wrong and not seen]
    assert missed == []


def test_few_real_texts_are_looked_at(rng):
    real = ["", "Why didn't you call, then?", "Ça va, merci.", "Größer – „viel“…", "Não há!", "Привет, как дела?"]
    assert not doubtful(pd.Series(real, dtype="str")).any()
    chinese = pd.Series(["".join(rng.choice(HANZI, 12)) for _ in range(2000)], dtype="str")
    assert doubtful(chinese).mean() < 0.3


def test_patterns_are_those_of_ascii():
    assert matches(pd.Series(["a1", "é", "a\n"], dtype="str"), r"^\w+$").tolist() == [True, False, False]
