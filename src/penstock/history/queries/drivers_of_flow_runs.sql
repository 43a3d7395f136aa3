SELECT f.id, f.state, f.host, f.pid, f.pid_started_at,
    l.beat_at, l.host AS lease_host, l.pid AS lease_pid, l.pid_started_at AS lease_pid_started_at
FROM flow_runs AS f
LEFT JOIN leases AS l ON l.flow_run_id = f.id
