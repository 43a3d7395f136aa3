INSERT INTO logs (flow_run_id, task_run_id, attempt, at, level, logger, message)
VALUES :rows
