SELECT task_runs.result, task_runs.result_codec, cache.task_run_id, cache.created_at,
    cache.expires_at
FROM cache JOIN task_runs ON task_runs.id = cache.task_run_id
WHERE cache.key = ? AND task_runs.result IS NOT NULL
