SELECT position, flow_run_id, task_run_id, attempt, at, level, logger, message
FROM logs
WHERE flow_run_id = :flow_run_id AND position > :after AND level >= :level
    AND (:task_run_id IS NULL OR task_run_id = :task_run_id)
ORDER BY position
LIMIT :limit
