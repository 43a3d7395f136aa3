-- -9223372036854775808 stands for no time: it is what pandas takes for it
SELECT r.id, ifnull(r.name, t.name || '-' || r.number), t.name, ifnull(r.number, 0), r.state,
    r.state_name, ifnull(r.attempt, 0), json_extract(r.known, '$.worker'),
    ifnull(r.created_at, -9223372036854775807 - 1), ifnull(r.started_at, -9223372036854775807 - 1),
    ifnull(r.ended_at, -9223372036854775807 - 1), r.message,
    json_extract(r.known, '$.error.type'), json_extract(r.known, '$.error.message')
FROM (
    SELECT *, CASE WHEN json_valid(detail) THEN detail END AS known
    FROM task_runs
    WHERE flow_run_id = :flow_run_id AND id > :after AND (:state IS NULL OR state = :state)
) AS r
LEFT JOIN tasks AS t ON t.flow_run_id = r.flow_run_id AND t.number = r.task
WHERE :name IS NULL OR t.name = :name OR r.name = :name
ORDER BY r.id
LIMIT :limit
