SELECT t.name AS task, c.state, sum(c.number) AS number
FROM counts AS c
LEFT JOIN tasks AS t ON t.flow_run_id = c.flow_run_id AND t.number = c.task
WHERE c.flow_run_id = :flow_run_id AND c.number <> 0
GROUP BY t.name, c.state
ORDER BY min(c.task), c.state
