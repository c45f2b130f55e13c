"""Which of the machine's indexes stands for an index that a lock names, and where the lock's own index has a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from urllib.parse import urlsplit, urlunsplit

from taxiway.errors import OperatorError
from taxiway.integrations.egress.pages import Link
from taxiway.integrations.egress.sources import Source, shown, split_login

__all__ = ["matched", "mirrored", "same_address"]

_LEAST = 2  # parts of a path that two addresses share at their end, for both to be one place behind two names


def matched(registries: Iterable[str], named: Iterable[str], indexes: Sequence[Source]) -> dict[str, Source]:
    """Of each address that a lock or (`named`) a project's settings give an index, the machine's index.

    They are the same address, but for one: the only one that the machine does not know may be mirrored by the machine's default index.
    Whether it is, the files will show. An index that the project names is never taken for another. Raise OperatorError where that
    leaves one without.
    """
    machine = {same_address(s.url): s for s in indexes}
    wanted = {*registries, *named}
    found = {address: machine[same_address(address)] for address in wanted if same_address(address) in machine}
    unknown = sorted(wanted - found.keys())
    free = [s for s in indexes[-1:] if s not in found.values()]
    if len({same_address(u) for u in unknown}) == 1 and free and not {same_address(n) for n in named} & {same_address(u) for u in unknown}:
        return found | dict.fromkeys(unknown, free[0])
    if unknown:
        raise OperatorError(
            f"the project takes packages from {', '.join(shown(u) for u in unknown)}, which this machine's settings do not name",
            hint="name it in the settings for uv or pip of the workers (UV_INDEX, PIP_EXTRA_INDEX_URL), with its credentials",
        )
    return found


def mirrored(old: Mapping[str, tuple[str, str]], links: Sequence[Link]) -> Iterator[tuple[str, str]]:
    """How the addresses of two indexes differ that have the same files: pairs of their beginnings, the lock's and the machine's. `old`
    are the lock's files by name, with hash and address."""
    for link in links:
        digest, address = old.get(link.name, ("", ""))
        if digest and digest == link.digest.replace("=", ":", 1):
            yield _beginnings(address, split_login(link.url)[0])


def same_address(url: str) -> str:
    """One spelling for all that lead to the same index."""
    parts = urlsplit(split_login(url)[0])
    return urlunsplit(parts._replace(scheme=parts.scheme.lower(), netloc=parts.netloc.lower())).rstrip("/")


def _beginnings(one: str, other: str) -> tuple[str, str]:
    """What is left of two addresses without the end that they share; nothing where that is too short to mean something."""
    first, second = one.split("/"), other.split("/")
    shared = 0
    while shared < min(len(first), len(second)) and first[-1 - shared] == second[-1 - shared]:
        shared += 1
    if shared < _LEAST:
        return "", ""
    return "/".join(first[:-shared]), "/".join(second[:-shared])
