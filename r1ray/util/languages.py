"""The languages that r1ray distinguishes, by English name and code."""

from __future__ import annotations

LANGUAGES = {
    "english": "en", "german": "de", "french": "fr", "spanish": "es", "italian": "it", "portuguese": "pt", "dutch": "nl",
    "chinese": "zh", "japanese": "ja", "korean": "ko", "russian": "ru", "arabic": "ar", "hindi": "hi", "greek": "el",
    "hebrew": "he", "thai": "th", "swedish": "sv", "polish": "pl", "turkish": "tr", "indonesian": "id", "vietnamese": "vi",
    "bengali": "bn", "punjabi": "pa", "gujarati": "gu", "tamil": "ta", "telugu": "te", "kannada": "kn",
}  # fmt: skip
"""English name -> ISO 639-1 code."""


def code_of(name: str) -> str | None:
    """The code of a language given as code, tag or English name: zh, zh-CN and Chinese give zh. None if unknown."""
    code = name.lower().replace("_", "-").partition("-")[0]
    code = LANGUAGES.get(code, code)
    return code if code in LANGUAGES.values() else None
