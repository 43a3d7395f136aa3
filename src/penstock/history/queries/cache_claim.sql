SELECT claim, beat_at, host, pid, pid_started_at FROM cache_claims WHERE key = ?
