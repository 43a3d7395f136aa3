SELECT max(f.seq >> 40, ifnull(l.epoch, 0)) AS epoch
FROM flow_runs AS f
LEFT JOIN leases AS l ON l.flow_run_id = f.id
WHERE f.id = :id
