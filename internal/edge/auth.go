package edge

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/check"
	"github.com/ordergate/ordergate/internal/guard"
	"github.com/ordergate/ordergate/internal/rate"
	"github.com/ordergate/ordergate/order"
)

// Key is an API key as far as requests need it.
type Key struct {
	ID        string
	Owner     order.Owner
	Scopes    []string
	ExpiresAt *time.Time
	RevokedAt *time.Time
	Limit     rate.Limit

	bucket *rate.Bucket // nil: there is no limit
}

var anonymous Key

const (
	keyFresh   = 5 * time.Second  // a revoked key is refused after this at the latest
	keyQueued  = 10 * time.Second // likewise while our own queue for look-ups is full: then it is refused with RATE_003
	keyUsable  = time.Minute      // age of a cached key that is still accepted without a question while the primary is away
	keyRetry   = time.Second      // time between two look-ups of a key while the primary is away
	keysCached = 10_000
)

// Authenticator finds the API key of a request.
type Authenticator struct {
	find      finder
	onReplica finder // nil: there is none
	static    map[[32]byte]*Key
	now       func() time.Time
	start     time.Time
	limits    *rate.Limits // nil: of this process alone
	good      lookUps      // of keys that were found. They are apart, so that made-up keys neither evict nor delay them
	others    lookUps
	flight    singleflight.Group
}

// finder looks a key up by its hash; nil: there is none.
type finder = func(ctx context.Context, hash []byte) (*Key, error)

// lookUps caches the results of look-ups and bounds how many run at once.
type lookUps struct {
	*lru.Cache[[32]byte, *foundKey]
	guard    *guard.Guard
	replicas *guard.Guard
}

type foundKey struct {
	key   *Key // nil: there is none
	at    time.Time
	retry atomic.Pointer[time.Time] // the primary failed, and is not asked again before
}

// errNotOnReplica: the key may have been made when the replica received nothing any more.
var errNotOnReplica = errors.New("edge: the primary is away, and a replica does not have the key")

// NewAuthenticator looks keys up by the SHA-256 of their text with find, and caches them for 5 s. As many look-ups as each run at once of
// keys that were good, and of others. While find fails, a key that no request of the last minute had is looked up with onReplica, which may
// be nil. static are keys that are valid without a look-up, by their text. limits has the keys' limits count for all processes together; nil: for this
// one alone. registry may be nil.
func NewAuthenticator(find, onReplica finder, each uint, static map[string]*Key, limits *rate.Limits, now func() time.Time, registry prometheus.Registerer) *Authenticator {
	guarded := func(name string, wait, timeout time.Duration) *guard.Guard {
		return guard.New(guard.Config{Name: name, Concurrent: each, Wait: wait, Timeout: timeout, Failure: func(error) bool { return true }, Registry: registry})
	}
	lookUpsOf := func(name string) lookUps {
		cache, _ := lru.New[[32]byte, *foundKey](keysCached) // fails for a size below one alone
		return lookUps{cache, guarded(name, 200*time.Millisecond, 300*time.Millisecond), guarded(name+"_on_replicas", 100*time.Millisecond, 200*time.Millisecond)}
	}
	a := &Authenticator{
		find: find, onReplica: onReplica, static: map[[32]byte]*Key{}, now: now, start: now(), limits: limits, good: lookUpsOf("keys"), others: lookUpsOf("other_keys"),
	}
	if limits != nil {
		a.start = limits.Start()
	}
	for text, key := range static {
		own := *key
		own.bucket = a.limits.Bucket(key.ID, key.Limit)
		a.static[sha256.Sum256([]byte(text))] = &own
	}
	return a
}

// sinceStart is the clock of the buckets.
func (a *Authenticator) sinceStart(now time.Time) time.Duration { return now.Sub(a.start) }

// keep caches a key that was found. Its bucket goes on as it was, unless the limit is another one now.
func (a *Authenticator) keep(hash [32]byte, found *foundKey) {
	if old, ok := a.good.Peek(hash); ok && old.key.Limit == found.key.Limit {
		found.key.bucket = old.key.bucket
	} else {
		found.key.bucket = a.limits.Bucket(found.key.ID, found.key.Limit)
	}
	a.good.Add(hash, found)
}

const longestKey = len("og_test_") + 128

var keyText = check.MustPattern(`^[A-Za-z0-9_-]{16,128}$`)

// keyShaped tells whether a text may be a key: ^og_(test|live)_[A-Za-z0-9_-]{16,128}$.
func keyShaped(text string) bool {
	rest, ok := strings.CutPrefix(text, "og_test_")
	if !ok {
		rest, ok = strings.CutPrefix(text, "og_live_")
	}
	return ok && keyText.Match(rest)
}

// authenticate finds the key of an Authorization header. now is the present instant, and the one that it returns is the same, or a later one if the key
// had to be looked up, which takes time. AUTH_001 none, AUTH_002 unknown, AUTH_003 expired, AUTH_004 revoked, SYS_002 if it cannot be looked up, RATE_003
// if too many others are being looked up.
func (a *Authenticator) authenticate(ctx context.Context, authorization string, now time.Time) (*Key, time.Time, error) {
	scheme, text, _ := strings.Cut(authorization, " ")
	if text = strings.TrimSpace(text); !strings.EqualFold(scheme, "Bearer") || text == "" {
		return nil, now, apierr.E(errcode.AUTH001)
	}
	if !keyShaped(text) {
		return nil, now, apierr.E(errcode.AUTH002)
	}
	var bytes [longestKey]byte // on the stack, unlike []byte(text)
	key, now, err := a.lookUp(ctx, sha256.Sum256(append(bytes[:0], text...)), now)
	switch {
	case err != nil && apierr.From(err).Code == errcode.RATE003:
		return nil, now, err
	case err != nil:
		return nil, now, apierr.E(errcode.SYS002, apierr.Cause(err))
	case key == nil:
		return nil, now, apierr.E(errcode.AUTH002)
	case key.RevokedAt != nil:
		return nil, now, apierr.E(errcode.AUTH004)
	case key.ExpiresAt != nil && !now.Before(*key.ExpiresAt):
		return nil, now, apierr.E(errcode.AUTH003)
	}
	return key, now, nil
}

// lookUp finds a key by its hash: among those that were looked up lately, else by ask; and the instant after that.
func (a *Authenticator) lookUp(ctx context.Context, hash [32]byte, now time.Time) (*Key, time.Time, error) {
	if key := a.static[hash]; key != nil {
		return key, now, nil
	}
	known, good := a.good.Get(hash)
	if !good {
		known, _ = a.others.Get(hash)
	}
	if known != nil {
		retry, age := known.retry.Load(), now.Sub(known.at)
		if age < keyFresh || age < keyUsable && retry != nil && now.Before(*retry) {
			return known.key, now, nil
		}
		if retry != nil { // the primary was away: one request asks again, the others go on
			known.retry.Store(new(now.Add(keyRetry)))
		}
	}
	key, err := a.ask(ctx, hash, known, good)
	return key, a.now(), err
}

// ask asks the primary once for all requests with the same key. As many look-ups run at once for keys that were good as for others; further
// ones wait for their turn. A key that has waited in vain is as good as it was for 10 s. While the primary fails, a key that was good a minute
// ago still is, and any other is looked up on a replica.
func (a *Authenticator) ask(ctx context.Context, hash [32]byte, known *foundKey, good bool) (*Key, error) {
	from := a.others
	if good {
		from = a.good
	}
	found, err, _ := a.flight.Do(string(hash[:]), func() (key any, err error) {
		latest := &foundKey{at: a.now()}
		ctx := context.WithoutCancel(ctx)
		err = from.guard.Do(ctx, func(ctx context.Context) (err error) {
			latest.key, err = a.find(ctx, hash[:])
			return err
		})
		queued := apierr.From(err).Code == errcode.RATE003 // it says nothing of the primary
		if queued && known != nil {
			known.retry.Store(nil)
		}
		switch {
		case queued && good && a.now().Sub(known.at) < keyQueued:
			return known.key, nil
		case err != nil && !queued && good && a.now().Sub(known.at) < keyUsable:
			known.retry.Store(new(a.now().Add(keyRetry)))
			return known.key, nil
		case err != nil && good && known.key.RevokedAt != nil: // for ever, whatever a replica knows of it
			return known.key, nil
		case err != nil && (a.onReplica == nil || queued):
			return nil, err
		case err != nil:
			if err = from.replicas.Do(ctx, func(ctx context.Context) (err error) {
				latest.key, err = a.onReplica(ctx, hash[:])
				return err
			}); err == nil && latest.key == nil {
				err = errNotOnReplica
			}
			if err != nil {
				return nil, err
			}
			a.keep(hash, latest)
		case latest.key == nil:
			a.others.Add(hash, latest)
			a.good.Remove(hash)
		default:
			a.keep(hash, latest)
		}
		return latest.key, nil
	})
	key, _ := found.(*Key) // nothing else is put there
	return key, err
}
