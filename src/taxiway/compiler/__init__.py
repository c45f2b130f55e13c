"""Pipeline to Plan: `taxiway.compiler.planning.plan` for a loaded pipeline, these for files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taxiway.compiler.plan import Plan

if TYPE_CHECKING:
    from taxiway.compiler.files import compile_content, compile_file, compile_folder, load_policies, read_templates

__all__ = ["Plan", "compile_content", "compile_file", "compile_folder", "load_policies", "read_templates"]


def __getattr__(name: str) -> Any:
    # At first use: a worker reads a plan at every task's start and never compiles, and what compiling
    # needs (YAML, every model of the spec, every agent) takes a second to import. A test holds it.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from taxiway.compiler import files  # noqa: PLC0415

    return getattr(files, name)
