-- What it takes to continue a flow run, and to use values again.

-- What a flow run began with, so that it can be continued: its pickled arguments (only read by
-- `penstock resume`, never by commands that look) and, as JSON, where its function comes from.
ALTER TABLE flow_runs ADD COLUMN arguments BLOB;
ALTER TABLE flow_runs ADD COLUMN origin TEXT;

-- The digest of the code that the task runs were made by, to notice changed code.
ALTER TABLE tasks ADD COLUMN source TEXT;

-- The subflow runs of a flow run.
CREATE INDEX flow_runs_by_parent ON flow_runs (parent_task_run_id)
WHERE parent_task_run_id IS NOT NULL;

-- Few rows: those whose results lie in a result storage.
CREATE INDEX task_runs_stored ON task_runs (flow_run_id) WHERE result_codec = 'stored';

-- Who drives an outermost flow run. Its sign of life goes into every group that is written.
CREATE TABLE leases (
    flow_run_id BLOB NOT NULL PRIMARY KEY,
    epoch INTEGER NOT NULL,
    counter INTEGER NOT NULL,
    beat_at INTEGER NOT NULL,
    host TEXT,
    pid INTEGER,
    pid_started_at INTEGER
) WITHOUT ROWID;

-- Values that may be used again, by cache key; the run that made a value holds it.
CREATE TABLE cache (
    key TEXT NOT NULL PRIMARY KEY,
    task_run_id BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER
) WITHOUT ROWID;

-- Keys whose values are being made right now, and by whom.
CREATE TABLE cache_claims (
    key TEXT NOT NULL PRIMARY KEY,
    claim BLOB NOT NULL,
    beat_at INTEGER NOT NULL,
    host TEXT,
    pid INTEGER,
    pid_started_at INTEGER
) WITHOUT ROWID;

-- A flow run that did not complete may go on, under the next epoch (the upper bits of `seq`).
DROP TRIGGER flow_runs_final_states;
CREATE TRIGGER flow_runs_final_states BEFORE UPDATE ON flow_runs
WHEN OLD.state IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')
AND (OLD.state = 'COMPLETED' OR NEW.seq >> 40 <= OLD.seq >> 40)
AND (
    NEW.state IS NOT OLD.state OR NEW.seq IS NOT OLD.seq
    OR NEW.ended_at IS NOT OLD.ended_at OR NEW.result IS NOT OLD.result
)
BEGIN
    SELECT RAISE(ABORT, 'the final state of a flow run never changes');
END;
