INSERT INTO cache_claims (key, claim, beat_at, host, pid, pid_started_at)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    claim = excluded.claim,
    beat_at = excluded.beat_at,
    host = excluded.host,
    pid = excluded.pid,
    pid_started_at = excluded.pid_started_at
