DELETE FROM counts WHERE flow_run_id = :id
