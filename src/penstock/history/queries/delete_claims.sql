DELETE FROM cache_claims WHERE (key, claim) IN (VALUES :rows)
