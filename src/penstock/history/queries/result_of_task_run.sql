SELECT result, result_codec FROM task_runs WHERE id = :id
