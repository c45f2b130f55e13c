"""Params of a plan as Airflow params: the trigger form and the REST check come from their JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import Param

__all__ = ["to_airflow"]


def to_airflow(params: Mapping[str, Mapping[str, Any]]) -> dict[str, Param]:
    """One Airflow Param each. A param without `default` must be given in the form and by REST."""
    return {name: _param(dict(schema)) for name, schema in params.items()}


def _param(schema: dict[str, Any]) -> Param:
    description = schema.pop("description", None)
    if "default" not in schema:
        return Param(description=description, schema=schema)
    return Param(schema.pop("default"), description=description, schema=schema)
