INSERT INTO leases (flow_run_id, epoch, counter, beat_at, host, pid, pid_started_at)
VALUES (:id, :epoch, 1, :at, :host, :pid, :pid_started_at)
ON CONFLICT (flow_run_id) DO NOTHING
