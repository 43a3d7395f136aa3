WHERE r.flow_run_id = :flow_run_id AND t.name = :task AND r.number = :number
ORDER BY r.id
LIMIT :limit
