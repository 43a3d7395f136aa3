UPDATE cache_claims SET beat_at = ? WHERE host = ? AND pid = ? AND pid_started_at IS ?
