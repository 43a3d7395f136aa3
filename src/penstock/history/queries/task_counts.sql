SELECT task, state, number FROM counts WHERE flow_run_id = :id
