"""Pipeline and policy files: YAML to checked, frozen data. Nothing in a file is ever run."""

from taxiway.spec.load import DEFAULT_RETRIES, load_pipeline
from taxiway.spec.models import Pipeline, PipelineSpec, Policy, PolicySpec
from taxiway.spec.policy import DEFAULT_POLICY, load_policy
from taxiway.spec.templates import references
from taxiway.spec.values import CRON_PRESETS, Threshold, implies, read_gate, seconds

__all__ = [
    "CRON_PRESETS",
    "DEFAULT_POLICY",
    "DEFAULT_RETRIES",
    "Pipeline",
    "PipelineSpec",
    "Policy",
    "PolicySpec",
    "Threshold",
    "implies",
    "load_pipeline",
    "load_policy",
    "read_gate",
    "references",
    "seconds",
]
