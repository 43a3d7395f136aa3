WHERE id BETWEEN :first AND :last
ORDER BY id DESC
LIMIT :limit
