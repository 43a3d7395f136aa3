SELECT result FROM task_runs WHERE result_codec = 'stored'
UNION ALL
SELECT result FROM flow_runs WHERE result_codec = 'stored'
