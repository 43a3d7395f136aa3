-- The latest subflow run that did not complete, for each identity of a task run that stood for one.
SELECT t.identity, f.id
FROM task_runs AS t
JOIN flow_runs AS f ON f.parent_task_run_id = t.id
WHERE t.flow_run_id = :id AND t.identity IS NOT NULL AND f.state <> 'COMPLETED'
ORDER BY t.id
