"""Known vulnerabilities from a service that speaks the OSV API, with the severities that its records give.

An answer is believed only whole: what is cut short, redirected, malformed or late leaves its packages unaudited, and
"nothing known" counts only for versions that the package index knows, for OSV answers the same about a name that it never heard.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from packaging.utils import canonicalize_name

from taxiway.errors import OperatorError
from taxiway.integrations.indexes import installers_index, json_root
from taxiway.integrations.severity import severity, worst
from taxiway.ports import Advisories, Audit, Cancellation, Vulnerability
from taxiway.waiting import attended

__all__ = ["INDEX_VARIABLE", "OFF", "URL_VARIABLE", "OsvAdvisories", "advisories"]

URL_VARIABLE = "TAXIWAY_ADVISORIES_URL"
"""Where the OSV API is; `off` asks nobody."""
INDEX_VARIABLE = "TAXIWAY_ADVISORIES_INDEX"
"""Where the JSON API of the package index is that says which versions are published, where it is another than the installer's;
`off` takes every version for a published one."""
OFF = "off"

_URL = "https://api.osv.dev"
_ECOSYSTEM = "PyPI"
_BATCH = 500
_PAGES = 20
_TRIES = 3
_TIMEOUT_S = 20.0
_SLOWEST = 3
_ANSWER_BYTES = 32_000_000
_SIDE_BY_SIDE = 8
_BUSY = (429, 500, 502, 503, 504)
_NOT_FOUND = 404

Key = tuple[str, str]
Record = Mapping[str, Any]


class _NoAnswerError(Exception):
    """The service gave no usable answer; the text says why, in one line."""


def advisories(environ: Mapping[str, str]) -> Advisories | None:
    """The service that the machine's settings name; None where they switch it off. Raise OperatorError where they are no addresses."""
    url = environ.get(URL_VARIABLE, "").strip() or _URL
    index = environ.get(INDEX_VARIABLE, "").strip()
    if url.lower() == OFF:
        return None
    for name, value in ((URL_VARIABLE, url), (INDEX_VARIABLE, index)):
        parts = urlsplit(value)
        if value and value.lower() != OFF and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise OperatorError(f"{name} is no address of a server", hint=f"set it to https://..., or to {OFF!r}")
    if not index:
        return OsvAdvisories(url.rstrip("/"), index=None, environ=environ)
    return OsvAdvisories(url.rstrip("/"), "" if index.lower() == OFF else index.rstrip("/"))


@dataclass(frozen=True)
class OsvAdvisories:
    """`url` is the root of an OSV API, `index` that of an index with PyPI's JSON API, "" to take every version for a published
    one, None to ask the index that the installer takes packages from, by the settings in `environ`. Names and versions are all
    that leaves this machine."""

    url: str
    index: str | None = ""
    timeout_s: float = _TIMEOUT_S
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    def audit(self, packages: Sequence[Key], stop: Cancellation) -> Audit:
        """See `Advisories.audit`."""
        wanted = sorted(set(packages))
        if self.index is None:
            return replace(self, index=json_root(installers_index(self.environ))).audit(packages, stop)
        with httpx.Client(timeout=self.timeout_s, headers={"User-Agent": "taxiway"}) as client:
            return _Round(self, client, stop).audit(wanted)


@dataclass
class _Round:
    """One audit: what it learned so far."""

    source: OsvAdvisories
    client: httpx.Client
    stop: Cancellation
    unknown: dict[Key, str] = field(default_factory=dict)
    failed: dict[Key, str] = field(default_factory=dict)

    def audit(self, wanted: Sequence[Key]) -> Audit:
        published = self._published(wanted)
        ids: dict[Key, list[str]] = {}
        for start in range(0, len(published), _BATCH):
            batch = published[start : start + _BATCH]
            try:
                ids |= self._query(batch)
            except _NoAnswerError as why:
                self.failed |= dict.fromkeys(batch, str(why))
        records = self._read({i for found in ids.values() for i in found})
        others = self._same_by_other_names(records)
        known: dict[Key, tuple[Vulnerability, ...]] = {}
        for key, found in ids.items():
            # A package with an advisory that could not be read is vulnerable, and nobody knows how badly.
            missing = [i for i in found if i not in records]
            if missing:
                self.failed[key] = f"advisory {missing[0]} could not be read"
            else:
                known[key] = _vulnerabilities(key[0], [records[i] for i in found], others)
        return Audit(known, self.unknown, self.failed)

    # --- what is published ------------------------------------------------------------------------

    def _published(self, wanted: Sequence[Key]) -> list[Key]:
        if not self.source.index:
            return list(wanted)
        published = [key for key, yes in zip(wanted, self._side_by_side(self._is_published, wanted), strict=True) if yes]
        if wanted and len(self.unknown) == len(wanted):
            # An index without the JSON API answers like this, and then nobody was asked for advisories.
            why = f"the package index knows none of {len(wanted)} packages: has it a JSON API? {INDEX_VARIABLE} names another"
            self.failed, self.unknown = dict.fromkeys(wanted, why), {}
        return published

    def _is_published(self, key: Key) -> bool:
        name, version = key
        try:
            data = self._ask("GET", f"{self.source.index}/pypi/{quote(name)}/{quote(version)}/json")
        except _NoAnswerError as why:
            self.failed[key] = f"the package index: {why}"
            return False
        info = data.get("info") if data else None
        if data is None:
            self.unknown[key] = "the package index does not know this version, so that no advisory would name it"
        elif not isinstance(info, dict) or canonicalize_name(str(info.get("name"))) != name:
            self.failed[key] = "the package index: the answer is not about this package"
        return key not in self.unknown and key not in self.failed

    # --- which advisories -------------------------------------------------------------------------

    def _query(self, batch: Sequence[Key]) -> dict[Key, list[str]]:
        found: dict[Key, list[str]] = {key: [] for key in batch}
        todo = [(key, "") for key in batch]
        for _ in range(_PAGES):
            queries = [_query(key, token) for key, token in todo]
            data = self._ask("POST", f"{self.source.url}/v1/querybatch", {"queries": queries})
            results = data.get("results") if data else None
            if not isinstance(results, list) or len(results) != len(todo) or not all(isinstance(r, dict) for r in results):
                raise _NoAnswerError(f"the advisory service answered {_count(results)} of {len(todo)} questions")
            more = []
            for (key, _), result in zip(todo, results, strict=True):
                found[key] += _ids(result)
                token = result.get("next_page_token")
                if token:
                    more.append((key, str(token)))
            if not more:
                return {key: list(dict.fromkeys(ids)) for key, ids in found.items()}
            todo = more
        raise _NoAnswerError(f"the advisory service answers in more than {_PAGES} pages")

    # --- what they say ----------------------------------------------------------------------------

    def _same_by_other_names(self, records: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """What records without a severity call the same: another database may have rated it."""
        unrated = [r for r in records.values() if severity(r) == "unrated"]
        return self._read({a for r in unrated for a in _strings(r.get("aliases"))} - set(records))

    def _read(self, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        wanted = sorted(ids)
        return {i: r for i, r in zip(wanted, self._side_by_side(self._record, wanted), strict=True) if r is not None}

    def _record(self, identifier: str) -> dict[str, Any] | None:
        try:
            data = self._ask("GET", f"{self.source.url}/v1/vulns/{quote(identifier, safe='')}")
        except _NoAnswerError:
            return None
        return data if data is not None and data.get("id") == identifier else None

    # --- the wire ---------------------------------------------------------------------------------

    def _side_by_side(self, function: Any, items: Sequence[Any]) -> list[Any]:
        with ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="advisories") as pool:
            return list(pool.map(function, items))

    def _ask(self, method: str, url: str, body: object = None) -> dict[str, Any] | None:
        """The answer as a JSON object; None for 404. Raise _NoAnswerError for anything that is no whole answer."""
        for attempt in range(1, _TRIES + 1):
            self.stop.check()
            why = ""
            try:
                status, content = attended(partial(self._exchange, method, url, body), self.stop)
            except httpx.HTTPError as error:
                why = f"no answer ({type(error).__name__})"
            else:
                if status not in _BUSY:
                    return _read_answer(status, content)
                why = f"it answers {status}"
            if attempt < _TRIES:
                self.stop.wait(0.3 * attempt)
        raise _NoAnswerError(why)

    def _exchange(self, method: str, url: str, body: object) -> tuple[int, bytes]:
        content, began = b"", time.monotonic()
        with self.client.stream(method, url, json=body) as response:
            for chunk in response.iter_bytes():
                content += chunk
                if time.monotonic() - began > _SLOWEST * self.source.timeout_s:
                    raise _NoAnswerError("an answer takes too long")
                if len(content) > _ANSWER_BYTES:
                    raise _NoAnswerError(f"an answer has over {_ANSWER_BYTES} bytes")
            return response.status_code, content


def _read_answer(status: int, content: bytes) -> dict[str, Any] | None:
    if status == _NOT_FOUND:
        return None
    if status != httpx.codes.OK:
        where = ", which is not followed" if 300 <= status < 400 else ""  # noqa: PLR2004 - a redirect
        raise _NoAnswerError(f"it answers {status}{where}")
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _NoAnswerError("the answer is no JSON") from error
    if not isinstance(data, dict):
        raise _NoAnswerError("the answer is no JSON object")
    return data


def _vulnerabilities(name: str, records: Sequence[Record], others: Mapping[str, Record]) -> tuple[Vulnerability, ...]:
    """One for all records that call each other the same, whatever their database; withdrawn ones say nothing."""
    groups: list[list[Record]] = []
    for record in [r for r in records if not r.get("withdrawn")]:
        same = [g for g in groups if any(_names(record) & _names(other) for other in g)]
        groups = [g for g in groups if g not in same] + [[*(r for g in same for r in g), record]]
    return tuple(sorted((_vulnerability(name, g, others) for g in groups), key=lambda v: v.ids))


def _vulnerability(name: str, group: Sequence[Record], others: Mapping[str, Record]) -> Vulnerability:
    names = set[str]().union(*(_names(r) for r in group))
    own = sorted(str(r["id"]) for r in group)
    said = [*group, *(r for i, r in others.items() if i in names and not r.get("withdrawn"))]
    summary = next((str(r["summary"]) for r in said if isinstance(r.get("summary"), str)), "")
    return Vulnerability(
        ids=(*own, *sorted(names - set(own))),
        severity=worst(severity(r) for r in said),
        summary=" ".join(summary.split())[:300],
        fixed=tuple(dict.fromkeys(v for r in group for v in _fixed(r, name))),
    )


def _query(key: Key, token: str) -> dict[str, Any]:
    query: dict[str, Any] = {"package": {"name": key[0], "ecosystem": _ECOSYSTEM}, "version": key[1]}
    return query | ({"page_token": token} if token else {})


def _ids(result: Mapping[str, Any]) -> Iterator[str]:
    found = result.get("vulns", [])
    if not isinstance(found, list) or not all(isinstance(v, dict) and isinstance(v.get("id"), str) and v["id"] for v in found):
        raise _NoAnswerError("the advisory service names vulnerabilities without an id")
    return (v["id"] for v in found)


def _count(value: object) -> int:
    return len(value) if isinstance(value, list) else 0


def _strings(value: object) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def _names(record: Record) -> set[str]:
    return {str(record["id"]), *_strings(record.get("aliases"))}


def _fixed(record: Record, name: str) -> Iterator[str]:
    """The versions that mend it; a record that says so in another form says nothing."""
    for affected in _dicts(record.get("affected")):
        package = affected.get("package")
        if isinstance(package, dict) and canonicalize_name(str(package.get("name"))) == name:
            events = [e for span in _dicts(affected.get("ranges")) if span.get("type") == "ECOSYSTEM" for e in _dicts(span.get("events"))]
            yield from (str(e["fixed"]) for e in events if "fixed" in e)


def _dicts(value: object) -> list[Record]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []
