"""Taxiway: agentic software delivery on Apache Airflow. This package is the engine; it never imports Airflow."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("taxiway")
