WHERE r.flow_run_id = :flow_run_id AND r.id > :after
    AND (:state IS NULL OR r.state = :state)
    AND (:name IS NULL OR t.name = :name OR r.name = :name)
ORDER BY r.id
LIMIT :limit
