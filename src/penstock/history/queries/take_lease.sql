INSERT INTO leases (flow_run_id, epoch, counter, beat_at, host, pid, pid_started_at)
VALUES (:id, :epoch, 1, :at, :host, :pid, :pid_started_at)
ON CONFLICT (flow_run_id) DO UPDATE SET
    epoch = excluded.epoch,
    counter = leases.counter + 1,
    beat_at = excluded.beat_at,
    host = excluded.host,
    pid = excluded.pid,
    pid_started_at = excluded.pid_started_at
