WHERE r.id BETWEEN :first AND :last
ORDER BY r.id
LIMIT :limit
