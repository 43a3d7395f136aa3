INSERT INTO counts (flow_run_id, task, state, number)
SELECT flow_run_id, task, state, count(*)
FROM task_runs
WHERE flow_run_id = :id
GROUP BY task, state
