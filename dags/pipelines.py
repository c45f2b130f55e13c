"""Your pipelines as Airflow DAGs, where Airflow cannot take Taxiway's bundle. Copy or link it into your dags folder.

Specs are read from $TAXIWAY_PIPELINES, else from the nearest `pipelines/` beside this file or above it. A spec that
cannot be used is left out here, and shown by pipelines_errors.py. Does nothing where the bundle serves the same folder.
"""

from taxiway_airflow.folder import pipeline_dags

globals().update(pipeline_dags(__file__))
