INSERT INTO cache (key, task_run_id, created_at, expires_at)
VALUES :rows
ON CONFLICT (key) DO UPDATE SET
    task_run_id = excluded.task_run_id,
    created_at = excluded.created_at,
    expires_at = excluded.expires_at
WHERE excluded.created_at >= cache.created_at
