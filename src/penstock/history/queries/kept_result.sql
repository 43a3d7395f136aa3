SELECT result, result_codec FROM task_runs WHERE id = :id
UNION ALL
SELECT result, result_codec FROM flow_runs WHERE id = :id
