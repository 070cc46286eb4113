package guard

// Failing tells the SQLSTATEs of a PostgreSQL that cannot work now, whatever it is asked: lost connections (08), no resources
// (53), being stopped or out of time (57), its system failing (58), and having become read-only (25006). They pass, or another
// server must be asked; all others speak of the statement or the data.
func Failing(sqlstate string) bool {
	switch sqlstate[:min(2, len(sqlstate))] {
	case "08", "53", "57", "58":
		return true
	}
	return sqlstate == "25006"
}
