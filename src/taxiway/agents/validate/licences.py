"""licences: under which the installed packages stand, as their metadata says, held against what is allowed and denied."""

from __future__ import annotations

import json
from collections.abc import Sequence
from email.message import Message
from typing import Any

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from taxiway.agents.validate.check import Context, Measured, NotMeasured
from taxiway.agents.validate.dependencies import named_in
from taxiway.agents.validate.finding import Finding
from taxiway.agents.validate.packages import installed

__all__ = ["allows", "licence", "licences"]

_FIELD = 200
_WORDS = {
    "mit license": "MIT",
    "the mit license": "MIT",
    "the mit license (mit)": "MIT",
    "apache 2.0": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license 2.0": "Apache-2.0",
    "bsd 2-clause": "BSD-2-Clause",
    "2-clause bsd": "BSD-2-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "3-clause bsd": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "new bsd license": "BSD-3-Clause",
    "modified bsd license": "BSD-3-Clause",
    "isc license": "ISC",
    "mpl 2.0": "MPL-2.0",
    "mozilla public license 2.0": "MPL-2.0",
    "psf": "PSF-2.0",
    "python software foundation license": "PSF-2.0",
    "gplv2": "GPL-2.0-only",
    "gplv2+": "GPL-2.0-or-later",
    "gplv3": "GPL-3.0-only",
    "gplv3+": "GPL-3.0-or-later",
    "lgplv2+": "LGPL-2.0-or-later",
    "lgplv3": "LGPL-3.0-only",
    "lgplv3+": "LGPL-3.0-or-later",
    "agplv3": "AGPL-3.0-only",
    "agplv3+": "AGPL-3.0-or-later",
    # Families of which the words do not say the member: names of our own, that a list can allow or deny.
    "apache": "LicenseRef-Apache",
    "bsd": "LicenseRef-BSD",
    "bsd license": "LicenseRef-BSD",
    "gpl": "GPL-1.0-or-later",
    "lgpl": "LGPL-2.0-or-later",
}
_CLASSIFIERS = {
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "ISC License (ISCL)": "ISC",
    "The Unlicense (Unlicense)": "Unlicense",
    "zlib/libpng License": "Zlib",
    "Python Software Foundation License": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Mozilla Public License 1.1 (MPL 1.1)": "MPL-1.1",
    "Eclipse Public License 2.0 (EPL-2.0)": "EPL-2.0",
    "Apache Software License": "LicenseRef-Apache",
    "BSD License": "LicenseRef-BSD",
    "GNU General Public License (GPL)": "GPL-1.0-or-later",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v2 (LGPLv2)": "LGPL-2.0-only",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "GNU Library or Lesser General Public License (LGPL)": "LGPL-2.0-or-later",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
}
_OF_NO_LICENCE = ("OSI Approved", "DFSG approved")


def licences(context: Context) -> Measured:
    """Count packages whose licence is unknown, and those whose licence is not accepted; no network, no text is guessed at."""
    if context.environment is None:
        raise NotMeasured("the project's environment could not be installed")
    wanted = context.licences
    packages = installed(context.environment.path)
    found = [(p, licence(p.metadata)) for p in packages]
    unknown = [p for p, expression in found if not expression]
    measured = Measured({"licences.total": float(len(found)), "licences.unknown": float(len(unknown))})
    measured.findings = [
        Finding(
            "licences", "taxiway", "unknown", f"{p.name} {p.version}: its metadata names no licence that SPDX knows", severity="warning"
        )
        for p in unknown
    ]
    if wanted.allow or wanted.deny:
        # Under a list of what is allowed, what nobody knows is not.
        denied = [(p, e) for p, e in found if (not e and wanted.allow) or (e and not allows(e, allow=wanted.allow, deny=wanted.deny))]
        measured.metrics["licences.denied"] = float(len(denied))
        for p, expression in denied:
            path, line = named_in(context.checkout, context.manifest, p.name)
            text = f"{p.name} {p.version}: {expression or 'an unknown licence'} is not accepted"
            measured.findings.append(Finding("licences", "taxiway", "denied", text, path, line))
    else:
        measured.missing(["licences.denied"], "`licences` of this stage's `with` names nothing to allow or deny")
    table = [{"name": p.name, "version": p.version, "licence": expression} for p, expression in found]
    context.keep("licences.json", json.dumps(table, indent=1) + "\n")
    return measured


def licence(metadata: Message) -> str:
    """The SPDX expression of a distribution: its License-Expression, its License field, or its classifiers, all of which
    then hold at once, for they do not say "or". "" where none of them says it."""
    for text in (str(metadata.get("License-Expression") or ""), str(metadata.get("License") or "")):
        if expression := _expression(text):
            return expression
    named = [str(c).split(" :: ")[-1] for c in metadata.get_all("Classifier") or [] if str(c).startswith("License :: ")]
    named = [name for name in named if name not in _OF_NO_LICENCE]
    known = [_CLASSIFIERS.get(name, "") for name in named]
    return " AND ".join(dict.fromkeys(known)) if known and all(known) else ""


def _expression(text: str) -> str:
    text = text.strip()
    if not text or len(text) > _FIELD or "\n" in text:
        return ""
    try:
        return str(canonicalize_license_expression(text))
    except InvalidLicenseExpression:
        return _WORDS.get(text.lower(), "")


def allows(expression: str, *, allow: Sequence[str], deny: Sequence[str]) -> bool:
    """Whether an SPDX expression can be met with licences that are in `allow` (all, where it is empty) and not in `deny`.

    Of `A OR B` one is enough, of `A AND B` both must be. An entry that ends in `*` stands for all that begin so; a licence
    with an exception counts as the licence.
    """
    from license_expression import AND, OR, ExpressionError, Licensing  # noqa: PLC0415 - a third of a second

    def met(node: Any) -> bool:
        if isinstance(node, OR):
            return any(met(part) for part in node.args)
        if isinstance(node, AND):
            return all(met(part) for part in node.args)
        name = str(getattr(node, "license_symbol", node).key)
        return (not allow or _listed(name, allow)) and not _listed(name, deny)

    try:
        return met(Licensing().parse(expression))
    except ExpressionError:
        return False


def _listed(name: str, entries: Sequence[str]) -> bool:
    plain = name.lower()
    return any(plain.startswith(e[:-1].lower()) if e.endswith("*") else plain == e.lower() for e in entries)
