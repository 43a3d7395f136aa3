-- They will be submitted again; nothing of them has happened yet.
DELETE FROM task_runs
WHERE flow_run_id = :id AND state = 'PENDING' AND ifnull(attempt, 0) = 0
