"""The Airflow side: bundle, DAG builder, thin operators, connections, UI."""
