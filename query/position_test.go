package query

import (
	"testing"
	"time"

	"github.com/ordergate/ordergate/gen/querydb"
)

// A read notes its position before the statement by one expression of SQL, and after it by another: on a quiet server they are equal. If they were
// not, each read would think that the position moved, and read its row twice.
func TestTheTwoPositionsOfAQuietServerAreEqual(t *testing.T) {
	t.Parallel()
	w := setup(t)
	for tier, url := range map[string]string{"primary": w.PrimaryURL, "replica": w.ReplicaURL} {
		db := querydb.New(w.pool(url))
		equal := func() bool {
			before, err := db.Position(t.Context())
			w.must(err)
			lsn, err := db.Lsn(t.Context())
			w.must(err)
			after, err := db.Position(t.Context())
			w.must(err)
			if before.Lsn == after.Lsn && before.Lsn != lsn {
				t.Errorf("%s: Position has %d, Lsn %d", tier, before.Lsn, lsn)
			}
			return before.Lsn == after.Lsn
		}
		quiet := false
		for end := time.Now().Add(30 * time.Second); !quiet && time.Now().Before(end); { // other tests write to the same server
			quiet = equal()
		}
		if !quiet {
			t.Errorf("%s: the server was never quiet", tier)
		}
	}
}
