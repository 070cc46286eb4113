package pg

// Column is one column of rows as the array that a batch query takes: as long as rows, in their order.
func Column[R, T any](rows []R, value func(R) T) []T {
	column := make([]T, len(rows))
	for i, r := range rows {
		column[i] = value(r)
	}
	return column
}
