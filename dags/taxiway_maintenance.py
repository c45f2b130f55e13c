"""Taxiway's maintenance DAGs for an Airflow without its bundle, which brings them itself. It goes beside pipelines.py."""

from taxiway_airflow.folder import maintenance_dags

globals().update(maintenance_dags())
