SELECT id FROM task_runs
WHERE flow_run_id = :id AND state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')
