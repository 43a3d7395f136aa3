-- The lease that a flow run lives by: that of the outermost flow run above it.
WITH RECURSIVE above (id, depth) AS (
    SELECT :flow_run_id, 0
    UNION ALL
    SELECT t.flow_run_id, above.depth + 1
    FROM above
    JOIN flow_runs AS f ON f.id = above.id
    JOIN task_runs AS t ON t.id = f.parent_task_run_id
    WHERE above.depth < 100 AND t.flow_run_id IS NOT NULL
)
SELECT l.epoch, l.counter, l.beat_at, l.host, l.pid, l.pid_started_at
FROM above
JOIN leases AS l ON l.flow_run_id = above.id
ORDER BY above.depth DESC
LIMIT 1
