SELECT task, max(number) AS last FROM task_runs WHERE flow_run_id = :id GROUP BY task
