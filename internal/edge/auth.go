package edge

import (
	"context"
	"crypto/sha256"
	"regexp"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/guard"
	"github.com/ordergate/ordergate/order"
)

// Key is an API key as far as requests need it.
type Key struct {
	ID        string
	Owner     order.Owner
	Scopes    []string
	ExpiresAt *time.Time
	RevokedAt *time.Time
}

var nobody Key

const (
	keyFresh   = 5 * time.Second // a revoked key is refused after this at the latest
	keyUsable  = time.Minute     // while the database is away
	keyRetry   = time.Second     // and so often it is asked then
	keysCached = 10_000
)

// Authenticator tells who a request is from.
type Authenticator struct {
	find   func(ctx context.Context, hash []byte) (*Key, error) // nil: no such key
	static map[[32]byte]*Key
	now    func() time.Time
	known  *lru.Cache[[32]byte, foundKey]
	none   *lru.Cache[[32]byte, foundKey] // apart, so that made-up keys push no real one out
	keys   *guard.Guard                   // around find for keys that were good, so that strangers keep none of them out
	others *guard.Guard                   // for all others
	flight singleflight.Group
}

type foundKey struct {
	key   *Key // nil: there is none
	at    time.Time
	after time.Time // the database did not answer, and is not asked again before
}

// NewAuthenticator looks keys up by the SHA-256 of their text with find, and remembers them for 5 s. static are keys that are
// valid without a look-up, by their text.
func NewAuthenticator(find func(context.Context, []byte) (*Key, error), static map[string]*Key, now func() time.Time) *Authenticator {
	around := func(name string) *guard.Guard {
		return guard.New(guard.Config{
			Name: name, Concurrent: 8, Wait: 200 * time.Millisecond, Timeout: 300 * time.Millisecond, Failure: func(error) bool { return true },
		})
	}
	a := &Authenticator{find: find, static: map[[32]byte]*Key{}, now: now, keys: around("keys"), others: around("other keys")}
	a.known, _ = lru.New[[32]byte, foundKey](keysCached) // fails for a size below one alone
	a.none, _ = lru.New[[32]byte, foundKey](keysCached)
	for text, key := range static {
		a.static[sha256.Sum256([]byte(text))] = key
	}
	return a
}

var keyShape = regexp.MustCompile(`^og_(test|live)_[A-Za-z0-9_-]{16,128}$`)

// authenticate finds the key of an Authorization header: AUTH_001 none, AUTH_002 unknown, AUTH_003 expired, AUTH_004 revoked, SYS_002 if it cannot
// be looked up, RATE_003 if too many others are.
func (a *Authenticator) authenticate(ctx context.Context, authorization string) (*Key, error) {
	scheme, text, _ := strings.Cut(authorization, " ")
	if text = strings.TrimSpace(text); !strings.EqualFold(scheme, "Bearer") || text == "" {
		return nil, apierr.E(errcode.AUTH001)
	}
	if !keyShape.MatchString(text) {
		return nil, apierr.E(errcode.AUTH002)
	}
	key, err := a.lookUp(ctx, sha256.Sum256([]byte(text)))
	switch {
	case err != nil && apierr.From(err).Code == errcode.RATE003:
		return nil, err
	case err != nil:
		return nil, apierr.E(errcode.SYS002, apierr.Cause(err))
	case key == nil:
		return nil, apierr.E(errcode.AUTH002)
	case key.RevokedAt != nil:
		return nil, apierr.E(errcode.AUTH004)
	case key.ExpiresAt != nil && !a.now().Before(*key.ExpiresAt):
		return nil, apierr.E(errcode.AUTH003)
	}
	return key, nil
}

// lookUp asks the database once for all who bring the same key, at most eight times at once for keys that were good, and eight times
// for others, who wait for their turn. While it does not answer, a key that was good a minute ago still is.
func (a *Authenticator) lookUp(ctx context.Context, hash [32]byte) (*Key, error) {
	if key := a.static[hash]; key != nil {
		return key, nil
	}
	known, ok := a.known.Get(hash)
	if !ok {
		known, ok = a.none.Get(hash)
	}
	age := a.now().Sub(known.at)
	if ok && (age < keyFresh || age < keyUsable && a.now().Before(known.after)) {
		return known.key, nil
	}
	if latest, there := a.known.Peek(hash); there && !latest.after.IsZero() { // it was away: one asks again, the others go on
		latest.after = a.now().Add(keyRetry)
		a.known.Add(hash, latest)
	}
	found, err, _ := a.flight.Do(string(hash[:]), func() (any, error) {
		var key *Key
		around := a.others
		if ok && known.key != nil {
			around = a.keys
		}
		err := around.Do(context.WithoutCancel(ctx), func(ctx context.Context) (err error) {
			key, err = a.find(ctx, hash[:])
			return err
		})
		if err != nil {
			if latest, there := a.known.Peek(hash); there && a.now().Sub(latest.at) < keyUsable {
				latest.after = a.now().Add(keyRetry)
				a.known.Add(hash, latest)
				return latest.key, nil
			}
			return nil, err
		}
		if key == nil {
			a.none.Add(hash, foundKey{at: a.now()})
			a.known.Remove(hash)
		} else {
			a.known.Add(hash, foundKey{key: key, at: a.now()})
		}
		return key, nil
	})
	if err != nil {
		return nil, err
	}
	key, _ := found.(*Key) // nothing else is put there
	return key, nil
}
