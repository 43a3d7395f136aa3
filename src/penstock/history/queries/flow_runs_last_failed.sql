WHERE parent_task_run_id IS NULL AND state IN ('FAILED', 'CRASHED')
ORDER BY created_at DESC, id DESC
LIMIT 1
