WHERE r.flow_run_id = :flow_run_id AND r.identity = :identity AND r.id < :before
ORDER BY r.id DESC
LIMIT :limit
