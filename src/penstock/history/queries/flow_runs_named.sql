WHERE name = :name
ORDER BY created_at DESC, id DESC
LIMIT :limit
