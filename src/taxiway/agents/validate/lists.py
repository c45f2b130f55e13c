"""Which licences a stage accepts, as its `with` says it."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from taxiway.agents.base import AgentInput

__all__ = ["Licences"]

_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,79}\*?")


def _known(text: str) -> str:
    """A mistyped entry would deny nothing and say nothing."""
    if not _FORM.fullmatch(text):
        raise ValueError(f"{text!r} is one licence of the SPDX list, such as MIT, or the beginning of some, such as GPL-*")
    # Its list is a file of a megabyte, and a DAG is parsed without it.
    from license_expression import get_license_index  # noqa: PLC0415

    entries = get_license_index()
    names = {str(n).lower() for e in entries for n in (e.get("spdx_license_key"), *(e.get("other_spdx_license_keys") or ())) if n}
    begin = text.lower().removesuffix("*")
    if text.lower().startswith("licenseref-"):
        return text
    if not any(n.startswith(begin) if text.endswith("*") else n == begin for n in names):
        raise ValueError(f"{text!r} is no licence of the SPDX list; write its identifier, such as MIT, GPL-3.0-only or AGPL-*")
    return text


Licence = Annotated[str, AfterValidator(_known)]


class Licences(AgentInput):
    """Licences of dependencies, by SPDX identifier; an entry that ends in `*` stands for all that begin so."""

    allow: list[Licence] = Field(default_factory=list, max_length=200, description="All that are accepted; empty: all but those in `deny`")
    deny: list[Licence] = Field(default_factory=list, max_length=200, description="Not accepted, even where `allow` names them")
