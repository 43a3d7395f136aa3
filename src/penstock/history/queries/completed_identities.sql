SELECT identity, rowid FROM task_runs
WHERE flow_run_id = :id AND state = 'COMPLETED' AND identity IS NOT NULL
ORDER BY identity, rowid
