WHERE created_at < :before
    AND (:state IS NULL OR state = :state)
    AND (:flow IS NULL OR flow = :flow)
    AND (:tag IS NULL OR (
        json_valid(tags) AND EXISTS (SELECT 1 FROM json_each(tags) WHERE value = :tag)
    ))
ORDER BY created_at DESC, id DESC
LIMIT :limit
