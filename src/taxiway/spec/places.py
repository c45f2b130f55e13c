"""Fields that are not taken where people look for them: those to come, and those that stand elsewhere."""

from __future__ import annotations

__all__ = ["ELSEWHERE", "ENTRIES", "LATER"]

ENTRIES: dict[str, str] = {"prices": "prices go by model: `prices: {my-model: {input: 1, output: 2}}`"}
"""By field, what is said of an entry of it that is no mapping."""

LATER: dict[str, frozenset[str]] = {
    "pipeline": frozenset({"approval", "env", "notifications", "on_failure", "secrets"}),
    "stage": frozenset({"approval", "budget", "env", "model", "notifications", "sandbox"}),
    "schedule": frozenset({"catchup", "end"}),
    "policy": frozenset({"extends", "limits", "secrets"}),
}
"""Fields of the design that come with their own issues."""

ELSEWHERE: dict[str, dict[str, str]] = {
    "pipeline": dict.fromkeys(("pool", "priority", "queue", "retries", "timeout"), "write it below `defaults:`, or in a stage"),
    "stage": {"pools": "the slots of pools stand in the policy; a stage names its `pool`"},
    "policy": {
        **dict.fromkeys(("agents", "connection", "effort", "fallback", "max_tokens", "model", "prices"), "write it below `models:`"),
        **dict.fromkeys(("tokens", "usd", "warn_at"), "write it below `budget:`"),
    },
}
"""Fields that stand in another place than where people look for them, with the hint."""
