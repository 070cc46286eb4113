package query

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// resource is a kind of row that the caches keep.
type resource struct {
	operation string       // operationId of the query that answers it
	prefix    string       // of a row's name in tokens and in Redis
	notFound  errcode.Code // if there is no such row
	ownIDs    bool         // rows have ids of ours: a forged one needs no look-up, a young one is never missing
	read      func(ctx context.Context, db *querydb.Queries, k key) (found, error)
}

// A new cached resource takes an entry of the array, a name for it, and a file with its query and its read.
var (
	resources = [...]resource{
		{operation: "getOrder", prefix: order.PrefixOrder, notFound: errcode.ORD001, ownIDs: true, read: readOrder},
		{operation: "getProduct", prefix: "prd_", notFound: errcode.CAT001, read: readProduct},
	}
	orders, products = &resources[0], &resources[1]
)

// found is what a statement found.
type found struct {
	rev    int64                     // of the row; 0: there is none. Of a list: 1
	encode func() (view.Body, error) // called once if this becomes the answer, when the connection was given back
}

// fetch runs one statement on a database. pgx.ErrNoRows means that there is no row.
type fetch func(ctx context.Context, db *querydb.Queries) (found, error)

// key is what entries are kept by: an owner's row of a resource.
type key struct {
	*resource
	id    order.ID // if the resource has ids of ours
	text  string   // else the name that the client chose
	owner order.Owner
}

// name is the row as tokens name it.
func (k key) name() string {
	if k.ownIDs {
		return k.id.Format(k.prefix)
	}
	return k.prefix + k.text
}

func (k key) String() string { return fmt.Sprintf("%d %s %s", k.owner.Account, k.owner.Mode, k.name()) }

// parseKey is the key of an owner's row by its name. ok is false for a resource that this version does not know.
func parseKey(owner order.Owner, name string) (k key, ok bool) {
	for i := range resources {
		k = key{resource: &resources[i], owner: owner}
		if k.text, ok = strings.CutPrefix(name, k.prefix); ok {
			if k.ownIDs {
				k.text = ""
				k.id, ok = order.Parse(k.prefix, name)
			}
			return k, ok
		}
	}
	return k, false
}

// youngFor is how long after an id was made a replica may not know its row.
const youngFor = time.Minute

// minRev makes sure that an id which was given out is never 404, however far a replica is behind. The zero id requires nothing.
func (q *Queries) minRev(id order.ID) int64 {
	if q.cfg.Now().Sub(id.Time()) < youngFor {
		return 1
	}
	return 0
}
