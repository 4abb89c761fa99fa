"""Airflow 3: a daily forecast from the readings up to that day."""

from __future__ import annotations

from datetime import datetime

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

# A job is locked while it runs; a concurrent run exits with 11.
with DAG("forecasts", schedule="@daily", start_date=datetime(2024, 4, 26), max_active_runs=1):
    BashOperator(
        task_id="run",
        bash_command="rnnforecast run job.toml --as-of {{ ds }} --fail-on error",
        cwd="/srv/forecasts",
        skip_on_exit_code=11,
    )
