"""How written words are spoken, roughly: what a dictionary of English lacks, for forced alignment."""

from __future__ import annotations

import re
import unicodedata

_SIGNS = {
    "&": "and",
    "%": "percent",
    "+": "plus",
    "=": "equals",
    "@": "at",
    "$": "dollars",
    "€": "euros",
    "£": "pounds",
}
_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]

# Letters to ARPAbet phones, the longest first: good enough to find where a word lies, no more.
_SOUNDS = {
    "tion": "SH AH N", "sion": "ZH AH N", "eigh": "EY", "augh": "AO", "ough": "AO", "tch": "CH", "dge": "JH",
    "igh": "AY", "sch": "SH", "eau": "OW", "air": "EH R", "ear": "IH R", "our": "AO R", "oor": "AO R",
    "th": "TH", "sh": "SH", "ch": "CH", "ph": "F", "wh": "W", "ck": "K", "ng": "NG", "qu": "K W", "gh": "G", "kn": "N",
    "wr": "R", "ps": "S", "rh": "R", "ee": "IY", "ea": "IY", "ie": "IY", "ei": "EY", "ey": "IY", "ai": "EY", "ay": "EY",
    "oa": "OW", "oo": "UW", "ou": "AW", "ow": "OW", "oi": "OY", "oy": "OY", "au": "AO", "aw": "AO", "ue": "UW",
    "ew": "UW", "ui": "UW", "ar": "AA R", "er": "ER", "ir": "ER", "or": "AO R", "ur": "ER", "bb": "B", "cc": "K",
    "dd": "D", "ff": "F", "gg": "G", "ll": "L", "mm": "M", "nn": "N", "pp": "P", "rr": "R", "ss": "S", "tt": "T",
    "zz": "Z", "ce": "S EH", "ci": "S IH", "cy": "S IY",
    "a": "AE", "b": "B", "c": "K", "d": "D", "e": "EH", "f": "F", "g": "G", "h": "HH", "i": "IH", "j": "JH", "k": "K",
    "l": "L", "m": "M", "n": "N", "o": "AA", "p": "P", "q": "K", "r": "R", "s": "S", "t": "T", "u": "AH", "v": "V",
    "w": "W", "x": "K S", "y": "IY", "z": "Z",
}  # fmt: skip
_GRAPHEME = re.compile("|".join(_SOUNDS))  # the table's order is the order of trial


def spoken(token: str) -> list[str]:
    """The words in which a written token is spoken, lower case: ``["twenty", "two"]`` for "22,".

    Letters lose their accents; what is neither letter, digit nor one of a few signs is left out, so that the result can
    be empty. Numbers are read as cardinals up to 999,999, and digit by digit beyond or after a leading zero.
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", token.replace("’", "'")) if not unicodedata.combining(c))
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", plain.lower())
    words: list[str] = []
    for part in re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+|\S", plain):
        if part.isdecimal():
            words += _number(part)
        elif part[0].isalpha():
            words.append(part)
        elif part in _SIGNS:
            words.append(_SIGNS[part])
    return words


def sounds(word: str) -> str:
    """ARPAbet phones of a lower-case word by its letters, as in "K AE T"; empty where it has none of a to z.

    A last single ``e`` after a consonant is silent.
    """
    letters = re.sub(r"[^a-z]", "", word)
    if len(letters) > 3 and re.search(r"[^aeiouy]e$", letters):
        letters = letters[:-1]
    return " ".join(_SOUNDS[found] for found in _GRAPHEME.findall(letters))


def _number(digits: str) -> list[str]:
    if len(digits) > 6 or (len(digits) > 1 and digits[0] == "0"):
        return [_ONES[int(digit)] for digit in digits]
    return _cardinal(int(digits))


def _cardinal(value: int) -> list[str]:
    if value < 20:
        return [_ONES[value]]
    if value < 100:
        return [_TENS[value // 10 - 2], *(_cardinal(value % 10) if value % 10 else [])]
    size, name = (100, "hundred") if value < 1000 else (1000, "thousand")
    return [*_cardinal(value // size), name, *(_cardinal(value % size) if value % size else [])]
