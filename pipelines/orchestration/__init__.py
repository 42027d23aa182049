"""Scheduled runs: what the DAGs in airflow/dags share."""
