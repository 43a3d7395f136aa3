UPDATE leases SET counter = counter + 1, beat_at = :at
WHERE flow_run_id = :id AND epoch = :epoch
