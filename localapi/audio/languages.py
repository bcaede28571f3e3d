"""Languages by code and English name, as Whisper and OpenAI's transcripts name them."""

from __future__ import annotations

from typing import Final

_NAMES: Final = """
af afrikaans, am amharic, ar arabic, as assamese, az azerbaijani, ba bashkir, be belarusian, bg bulgarian, bn bengali,
bo tibetan, br breton, bs bosnian, ca catalan, cs czech, cy welsh, da danish, de german, el greek, en english,
es spanish, et estonian, eu basque, fa persian, fi finnish, fo faroese, fr french, gl galician, gu gujarati, ha hausa,
haw hawaiian, he hebrew, hi hindi, hr croatian, ht haitian creole, hu hungarian, hy armenian, id indonesian,
is icelandic, it italian, ja japanese, jw javanese, ka georgian, kk kazakh, km khmer, kn kannada, ko korean, la latin,
lb luxembourgish, ln lingala, lo lao, lt lithuanian, lv latvian, mg malagasy, mi maori, mk macedonian, ml malayalam,
mn mongolian, mr marathi, ms malay, mt maltese, my myanmar, ne nepali, nl dutch, nn nynorsk, no norwegian, oc occitan,
pa punjabi, pl polish, ps pashto, pt portuguese, ro romanian, ru russian, sa sanskrit, sd sindhi, si sinhala,
sk slovak, sl slovenian, sn shona, so somali, sq albanian, sr serbian, su sundanese, sv swedish, sw swahili, ta tamil,
te telugu, tg tajik, th thai, tk turkmen, tl tagalog, tr turkish, tt tatar, uk ukrainian, ur urdu, uz uzbek,
vi vietnamese, yi yiddish, yo yoruba, yue cantonese, zh chinese
"""
NAMES: Final[dict[str, str]] = {
    code: name for code, _, name in (each.strip().partition(" ") for each in _NAMES.replace("\n", " ").split(","))
}
"""English names in lower case, by code (ISO 639)."""
_CODES: Final = {name: code for code, name in NAMES.items()} | {"mandarin": "zh", "burmese": "my", "castilian": "es"}


def language_code(written: str) -> str:
    """Return the code of a language given as a code, a tag ("en-GB") or a name; otherwise the text itself."""
    text = written.strip().lower().replace("_", "-")
    return _CODES.get(text) or text.partition("-")[0]


def language_name(code: str | None) -> str:
    """Return the English name of a language; "unknown" if the code is None, and an unknown code itself."""
    return "unknown" if code is None else NAMES.get(code, code)
