"""How severe an advisory is, from its own record: CVSS vectors, and the word of the database that it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from taxiway.ports import Severity

__all__ = ["severity", "worst"]

_WORDS: Mapping[str, Severity] = {
    "CRITICAL": "critical",
    "HIGH": "high",
    "MODERATE": "medium",
    "MEDIUM": "medium",
    "LOW": "low",
    "NONE": "low",
}
_ORDER: tuple[Severity, ...] = ("unrated", "low", "medium", "high", "critical")


def worst(severities: Iterable[Severity]) -> Severity:
    """The worst of them; `unrated` where there is none."""
    return max(severities, key=_ORDER.index, default="unrated")


def severity(record: Mapping[str, Any]) -> Severity:
    """The worst that an OSV record says of itself; `unrated` where it says nothing that can be read."""
    affected = [a for a in _list(record.get("affected")) if isinstance(a, dict)]
    vectors = [*_list(record.get("severity")), *(v for a in affected for v in _list(a.get("severity")))]
    words = [_word(part.get(name)) for part in (record, *affected) for name in ("database_specific", "ecosystem_specific")]
    return worst([*words, *_scored(vectors)])


def _word(specific: object) -> Severity:
    said = specific.get("severity") if isinstance(specific, dict) else None
    return _WORDS.get(said.upper(), "unrated") if isinstance(said, str) else "unrated"


def _scored(vectors: Iterable[object]) -> Iterator[Severity]:
    # Its tables take a moment to load, and most packages have no advisory.
    from cvss import CVSS2, CVSS3, CVSS4  # noqa: PLC0415
    from cvss.exceptions import CVSSError  # noqa: PLC0415

    kinds = {"CVSS_V2": CVSS2, "CVSS_V3": CVSS3, "CVSS_V4": CVSS4}
    for vector in vectors:
        if isinstance(vector, dict) and vector.get("type") in kinds and isinstance(vector.get("score"), str):
            try:
                scored = kinds[str(vector["type"])](vector["score"])
            except CVSSError:
                continue
            # Up to three ratings, of which the first is that of the base score.
            yield _WORDS.get(str(scored.severities()[0]).upper(), "unrated")


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
