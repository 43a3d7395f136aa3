-- A flow run and all subflow runs below it.
WITH RECURSIVE family (id) AS (
    SELECT :id
    UNION
    SELECT f.id
    FROM family
    JOIN task_runs AS t ON t.flow_run_id = family.id
    JOIN flow_runs AS f ON f.parent_task_run_id = t.id
)
SELECT id FROM family
