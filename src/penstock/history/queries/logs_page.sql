SELECT position, flow_run_id, task_run_id, attempt, at, level, logger, message
FROM logs
WHERE flow_run_id = :flow_run_id AND position > :after AND level >= :level
    AND (:task_run_id IS NULL OR task_run_id = :task_run_id)
    AND (:task IS NULL OR EXISTS (
        SELECT 1 FROM task_runs AS r
        JOIN tasks AS t ON t.flow_run_id = r.flow_run_id AND t.number = r.task
        WHERE r.id = logs.task_run_id AND t.name = :task
    ))
ORDER BY position
LIMIT :limit
