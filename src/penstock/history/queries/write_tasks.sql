INSERT INTO tasks (flow_run_id, number, key, name, source)
VALUES :rows
ON CONFLICT (flow_run_id, number) DO NOTHING
