"""Runs in the sandbox, in Taxiway's tools: detect-secrets' detectors over each line of the files it is given.

Prints one JSON document: how many files it read, and where which kind of secret stands. No secret leaves this process:
a hash stands for it. The detectors are called one line at a time, so that neither a file's name, nor a setting, nor a
comment leaves anything out, and nothing is verified over the network.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_KNOWN = (
    *("aws.AWSKeyDetector", "azure_storage_key.AzureStorageKeyDetector", "cloudant.CloudantDetector"),
    *("discord.DiscordBotTokenDetector", "github_token.GitHubTokenDetector", "gitlab_token.GitLabTokenDetector"),
    *("jwt.JwtTokenDetector", "mailchimp.MailchimpDetector", "npm.NpmDetector", "openai.OpenAIDetector"),
    *("private_key.PrivateKeyDetector", "pypi_token.PypiTokenDetector", "sendgrid.SendGridDetector", "slack.SlackDetector"),
    *("softlayer.SoftlayerDetector", "square_oauth.SquareOAuthDetector", "stripe.StripeDetector"),
    *("telegram_token.TelegramBotTokenDetector", "twilio.TwilioKeyDetector"),
)
"""What they find has a form of its own."""
_GUESSES = (
    *("keyword.KeywordDetector", "basic_auth.BasicAuthDetector", "artifactory.ArtifactoryDetector"),
    *("ibm_cloud_iam.IbmCloudIamDetector", "ibm_cos_hmac.IbmCosHmacDetector"),
)
"""What they find stands after a word like password; only where it looks random is it called a secret."""
_MORE = {
    "GitHub Fine-grained Token": re.compile(r"github_pat_[0-9A-Za-z_]{82}"),
    "Google API Key": re.compile(r"AIza[0-9A-Za-z_-]{35}"),
    "Anthropic API Key": re.compile(r"sk-ant-[0-9A-Za-z_-]{32,}"),
    "Hugging Face Token": re.compile(r"\bhf_[A-Za-z]{34}\b"),
    "DigitalOcean Token": re.compile(r"do[opr]_v1_[0-9a-f]{64}"),
}
"""Forms that came after detect-secrets 1.5."""
_PIECE, _OVERLAP = 4000, 300
_RANDOM_LENGTH, _RANDOM_BITS, _RANDOM_DIGITS = 16, 3.6, 2
_ALLOWED = re.compile(r"pragma: ?(?:allow|white)list[ -]secret")
_ALLOWED_NEXT = re.compile(r"pragma: ?allowlist[ -]nextline[ -]secret")
_TEMPLATED = re.compile(r"^\$|[{<(\[%]")


def _detectors(names: tuple[str, ...]) -> list[Any]:
    found = []
    for name in names:
        module, kind = name.split(".")
        found.append(getattr(importlib.import_module(f"detect_secrets.plugins.{module}"), kind)())
    return found


def _looks_random(text: str) -> bool:
    """Letters and digits at 3.6 bits a character and more, as in a generated key; `correct-horse` is none."""
    if len(text) < _RANDOM_LENGTH or re.search(r"\s", text) or _TEMPLATED.search(text) or sum(c.isdigit() for c in text) < _RANDOM_DIGITS:
        return False
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values()) >= _RANDOM_BITS


def _pieces(line: str) -> Iterator[str]:
    for start in range(0, max(1, len(line)), _PIECE - _OVERLAP):
        yield line[start : start + _PIECE]


def _in_line(path: str, line: str, known: list[Any], guesses: list[Any]) -> Iterator[tuple[str, str, bool]]:
    """Kind, secret, and whether it is one for sure."""
    for piece in _pieces(line):
        for kind, pattern in _MORE.items():
            yield from ((kind, match, True) for match in pattern.findall(piece))
        for detector in known:
            for secret in detector.analyze_line(filename=path, line=piece, line_number=1):
                # The form in which examples in documentation are written.
                if "EXAMPLE" not in str(secret.secret_value):
                    yield detector.secret_type, str(secret.secret_value), True
        for detector in guesses:
            for secret in detector.analyze_line(filename=path, line=piece, line_number=1):
                text = str(secret.secret_value)
                if not _TEMPLATED.search(text):
                    yield detector.secret_type, text, _looks_random(text)


def _scan(path: str, known: list[Any], guesses: list[Any]) -> Iterator[dict[str, Any]]:
    data = Path(path).read_bytes()
    # Without NULs, UTF-16 reads like ASCII, and texts in a binary file like themselves.
    binary = b"\0" in data
    lines = re.split(r"\r\n|\r|\n", data.replace(b"\0", b"").decode("utf-8", "replace"))
    seen = set()
    for number, line in enumerate(lines, 1):
        allowed = bool(_ALLOWED.search(line) or (number > 1 and _ALLOWED_NEXT.search(lines[number - 2])))
        # What is found for sure comes first; the same text found again as something else is no second secret.
        for kind, secret, sure in sorted(_in_line(path, line, known, [] if binary else guesses), key=lambda found: not found[2]):
            if (number, secret) not in seen:
                seen.add((number, secret))
                digest = hashlib.sha256(f"{path}\0{kind}\0{secret}".encode("utf-8", "replace")).hexdigest()[:8]
                yield {"path": path, "line": number, "kind": kind, "hash": digest, "sure": sure, "suppressed": allowed}


def main(place: str) -> None:
    """Scan the files of a list whose entries end in NUL."""
    files = [os.fsdecode(name) for name in Path(place).read_bytes().split(b"\0")[:-1]]
    known, guesses = _detectors(_KNOWN), _detectors(_GUESSES)
    found = [secret for path in files for secret in _scan(path, known, guesses)]
    print(json.dumps({"files": len(files), "found": found}))  # noqa: T201 - the report


if __name__ == "__main__":
    main(sys.argv[1])
