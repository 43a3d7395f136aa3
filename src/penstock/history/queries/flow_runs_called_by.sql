-- a subflow run begins after the run that called it: the older ones need not be looked at
WHERE created_at >= (SELECT created_at FROM flow_runs WHERE id = :flow_run_id)
    AND parent_task_run_id IS NOT NULL
    AND EXISTS (
        SELECT 1 FROM task_runs AS r
        WHERE r.id = flow_runs.parent_task_run_id AND r.flow_run_id = :flow_run_id
    )
ORDER BY created_at, id
