"""Shows what is wrong with your pipelines as an import error of this file in Airflow's UI; holds no DAG.

It goes beside pipelines.py. It is a file of its own because one error in a file takes away all DAGs of that file.
"""

from taxiway_airflow.folder import raise_problems

raise_problems(__file__)
