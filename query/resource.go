package query

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
)

// resource is a kind of row that is cached.
type resource struct {
	operation string       // operationId of its query
	prefix    string       // of a row's name in tokens and in Redis
	notFound  errcode.Code // if there is no such row
	ownIDs    bool         // rows have ids of ours: a forged one needs no look-up, a young one is never missing
	read      func(ctx context.Context, db *querydb.Queries, k key) (found, error)
}

// A new cached resource takes a kind, its entry of resources, and a file with its query and its read.
const (
	orders kind = iota
	products
	kinds
)

var resources = [...]resource{
	orders:   {operation: "getOrder", prefix: order.PrefixOrder, notFound: errcode.ORD001, ownIDs: true, read: readOrder},
	products: {operation: "getProduct", prefix: order.PrefixProduct, notFound: errcode.CAT001, read: readProduct},
}

const _ = uint(len(resources) - int(kinds)) // does not compile while a kind lacks its entry

// kind names a resource: its index in resources.
type kind int16

// mode is that of an owner: its index in modes. 0: none, or one that this version does not know, which has no rows.
type mode int16

var modes = [...]string{"", "test", "live"}

func (m mode) String() string { return modes[m] }

// row is the key of an owner's row, by its id if the resource has ids of ours, else by the name that the client chose.
func (r kind) row(owner order.Owner, id order.ID, text string) key {
	return key{account: owner.Account, kind: r, mode: mode(max(0, slices.Index(modes[:], owner.Mode))), id: id, text: text}
}

// found is the result of a statement.
type found struct {
	rev    int64                     // of the row; 0: there is none. Of a list: 1
	encode func() (view.Body, error) // called once if this is served, after the connection was given back
}

// fetch runs one statement on a database. pgx.ErrNoRows means that there is no row.
type fetch func(ctx context.Context, db *querydb.Queries) (found, error)

// key identifies an entry. It is small, because the LRU has each of its keys twice, and its fields stand in the order that hashes fastest.
type key struct {
	account int32
	kind    kind
	mode    mode
	id      order.ID
	text    string
}

// read fetches the row.
func (k key) read(ctx context.Context, db *querydb.Queries) (found, error) {
	return resources[k.kind].read(ctx, db, k)
}

// tokenName is the row as tokens name it; empty for a list and for a row that is not cached.
func (k key) tokenName() string {
	if k == (key{}) {
		return ""
	}
	return string(k.appendTokenName(make([]byte, 0, 96)))
}

func (k key) appendTokenName(b []byte) []byte {
	r := &resources[k.kind]
	if r.ownIDs { // no other owner has the id
		return k.appendRowName(b)
	}
	return order.AppendRow(b, r.prefix, order.Owner{Account: k.account, Mode: k.mode.String()}, k.text)
}

// appendRowName appends the row's name beside its owner: ord_<hex> or prd_<sku>.
func (k key) appendRowName(b []byte) []byte {
	r := &resources[k.kind]
	if r.ownIDs {
		return k.id.Append(b, r.prefix)
	}
	return append(append(b, r.prefix...), k.text...)
}

// is tells whether a row is this one, by its name in a token.
func (k key) is(name string) bool {
	if !resources[k.kind].ownIDs {
		var room [96]byte
		return string(k.appendTokenName(room[:0])) == name
	}
	id, ok := order.Parse(resources[k.kind].prefix, name)
	return ok && id == k.id
}

// String is the key in Redis and on its channel: account, mode and name.
func (k key) String() string { return string(k.append(make([]byte, 0, 96))) }

func (k key) append(b []byte) []byte {
	b = append(strconv.AppendInt(b, int64(k.account), 10), ' ')
	return k.appendRowName(append(append(b, k.mode.String()...), ' '))
}

// parseKey is the key of an owner's row by its name. ok is false for a resource or a mode that this version does not know.
func parseKey(owner order.Owner, name string) (k key, ok bool) {
	if !slices.Contains(modes[1:], owner.Mode) {
		return key{}, false
	}
	for i, r := range resources {
		if text, found := strings.CutPrefix(name, r.prefix); found && !r.ownIDs {
			return kind(i).row(owner, order.ID{}, text), true
		} else if found {
			id, ok := order.Parse(r.prefix, name)
			return kind(i).row(owner, id, ""), ok
		}
	}
	return key{}, false
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
