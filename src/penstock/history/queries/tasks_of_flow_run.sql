SELECT number, key, name, source FROM tasks WHERE flow_run_id = :id ORDER BY number
