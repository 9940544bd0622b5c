"""What a product says of its values: the words of band descriptions, units, tags and attributes."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["declared_domain"]

# In this order: "Sigma0_VV_db" is decibel, "beta0 amplitude" is amplitude
_DB = re.compile(r"(?<![a-z])(db|decibels?|log[ _-]?scale)(?![a-z])")
_AMPLITUDE = re.compile(r"amplitude|magnitude|(?<![a-z])(dn|digital[ _-]?numbers?)(?![a-z])")
_INTENSITY = re.compile(r"intensity|(?<![a-z])power(?![a-z])|(?<![a-z])linear(?![a-z])|m\^?2 ?/ ?m\^?2|m2 m-2")
# Backscatter coefficients are ratios of powers: intensity, unless a scale is named beside them
_COEFFICIENT = re.compile(r"(sigma|gamma|beta)[ _-]?(0|zero|naught|nought)|nrcs|backscatter|(?<![a-z])rcs(?![a-z])")


def declared_domain(words: Iterable[str]) -> tuple[str, str] | None:
    """The domain that a product's ``words`` name and the word that names it, or None where they name none or several.

    A scale goes before a quantity: "Sigma0_VV_db" is decibel, "Sigma0_VV" intensity, "Amplitude_VV" amplitude.
    """
    texts = [w for w in words if w]
    for domain, pattern in (("db", _DB), ("amplitude", _AMPLITUDE), ("intensity", _INTENSITY), ("intensity", _COEFFICIENT)):
        found = [t for t in texts if pattern.search(t.lower())]
        if not found:
            continue
        if domain == "amplitude" and any(_INTENSITY.search(t.lower()) for t in texts):
            return None
        return domain, found[0]
    return None
