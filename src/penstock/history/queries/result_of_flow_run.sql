SELECT result, result_codec FROM flow_runs WHERE id = :id
