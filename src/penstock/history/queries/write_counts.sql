INSERT INTO counts (flow_run_id, task, state, number)
VALUES :rows
ON CONFLICT (flow_run_id, task, state) DO UPDATE SET number = excluded.number
