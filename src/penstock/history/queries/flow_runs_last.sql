WHERE parent_task_run_id IS NULL
ORDER BY created_at DESC, id DESC
LIMIT 1
