-- The first schema: flow runs, task runs, logs, counts.
--
-- Ids are 16 bytes that ascend in time, times are integer nanoseconds since 1970 (UTC). Runs have a
-- rowid, because their rows may be long (a kept result of 16 KiB makes them three times as slow to
-- write without one); short rows found by their key have none: one tree instead of two.
-- There are no foreign keys: one lost parent row must never make a whole group unwritable.

CREATE TABLE flow_runs (
    id BLOB NOT NULL PRIMARY KEY,
    seq INTEGER NOT NULL,
    name TEXT NOT NULL,
    flow TEXT NOT NULL,
    flow_key TEXT,
    version TEXT,
    state TEXT NOT NULL,
    state_name TEXT,
    message TEXT,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    attempt INTEGER,
    parameters TEXT,
    tags TEXT,
    runner TEXT,
    parent_task_run_id BLOB,
    states TEXT,
    error TEXT,
    result BLOB,
    result_codec TEXT,
    host TEXT,
    pid INTEGER,
    pid_started_at INTEGER,
    penstock_version TEXT
);

CREATE INDEX flow_runs_by_time ON flow_runs (created_at);
CREATE INDEX flow_runs_by_name ON flow_runs (name);

-- The tasks that occur in a flow run; its task runs and counts refer to them by number.
CREATE TABLE tasks (
    flow_run_id BLOB NOT NULL,
    number INTEGER NOT NULL,
    key TEXT,
    name TEXT NOT NULL,
    PRIMARY KEY (flow_run_id, number)
) WITHOUT ROWID;

CREATE TABLE task_runs (
    id BLOB NOT NULL PRIMARY KEY,
    flow_run_id BLOB,
    seq INTEGER NOT NULL,
    task INTEGER NOT NULL,
    number INTEGER,
    state TEXT NOT NULL,
    attempt INTEGER,
    created_at INTEGER,
    started_at INTEGER,
    ended_at INTEGER,
    identity BLOB,
    parameters TEXT,
    result BLOB,
    result_codec TEXT,
    upstream BLOB,
    name TEXT,
    state_name TEXT,
    message TEXT,
    states TEXT,
    detail TEXT
);

-- The task runs of a flow run in order of creation, page by page.
CREATE INDEX task_runs_by_flow_run ON task_runs (flow_run_id, id);
-- Few rows, asked for most.
CREATE INDEX task_runs_in_trouble ON task_runs (flow_run_id, id)
WHERE state IN ('FAILED', 'CRASHED');

CREATE TABLE logs (
    position INTEGER PRIMARY KEY,
    flow_run_id BLOB,
    task_run_id BLOB,
    attempt INTEGER,
    at INTEGER NOT NULL,
    level INTEGER NOT NULL,
    logger TEXT,
    message TEXT NOT NULL
);

CREATE INDEX logs_by_flow_run ON logs (flow_run_id);

CREATE TABLE counts (
    flow_run_id BLOB NOT NULL,
    task INTEGER NOT NULL,
    state TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (flow_run_id, task, state)
) WITHOUT ROWID;

-- A recorded final state never changes, whoever writes.
CREATE TRIGGER task_runs_final_states BEFORE UPDATE ON task_runs
WHEN OLD.state IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED') AND (
    NEW.state IS NOT OLD.state OR NEW.seq IS NOT OLD.seq
    OR NEW.ended_at IS NOT OLD.ended_at OR NEW.result IS NOT OLD.result
)
BEGIN
    SELECT RAISE(ABORT, 'the final state of a task run never changes');
END;

CREATE TRIGGER flow_runs_final_states BEFORE UPDATE ON flow_runs
WHEN OLD.state IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED') AND (
    NEW.state IS NOT OLD.state OR NEW.seq IS NOT OLD.seq
    OR NEW.ended_at IS NOT OLD.ended_at OR NEW.result IS NOT OLD.result
)
BEGIN
    SELECT RAISE(ABORT, 'the final state of a flow run never changes');
END;
