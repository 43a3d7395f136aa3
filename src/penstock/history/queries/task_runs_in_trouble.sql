-- the second condition on the state lets SQLite use the small index of failed and crashed runs
WHERE r.flow_run_id = :flow_run_id AND r.id > :after
    AND r.state = :state AND r.state IN ('FAILED', 'CRASHED')
    AND (:name IS NULL OR t.name = :name OR r.name = :name)
ORDER BY r.id
LIMIT :limit
