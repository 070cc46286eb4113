package edge

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
)

func as(key string) string { return "Bearer " + key }

// Requests with made-up keys are refused, and delay no others.
func TestStrangersKeepNobodyOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var good atomic.Int32
		a := NewAuthenticator(func(context.Context, []byte) (*Key, error) {
			<-time.After(2 * time.Millisecond) // the database's time
			if good.Add(1)%10 == 0 {
				return &Key{ID: "key_1"}, nil
			}
			return nil, nil
		}, 8, nil, time.Now)
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				_, err := a.authenticate(t.Context(), as(fmt.Sprintf("og_test_made_up_key_number_%04d", i)))
				if err != nil && apierr.From(err).Code != errcode.AUTH002 {
					t.Error(err)
				}
			})
		}
		all.Wait()
	})
}

// While the database is away a key that was good goes on for a minute, and one request a second waits to find that out.
func TestKeysWhileTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	now, away, asked := time.Unix(1e9, 0), false, 0
	a := NewAuthenticator(func(context.Context, []byte) (*Key, error) {
		asked++
		if away {
			return nil, errors.New("away")
		}
		return &Key{ID: "key_1"}, nil
	}, 8, nil, func() time.Time { return now })
	key := as("og_test_a_good_key_for_this_test")
	for range 2 {
		if _, err := a.authenticate(t.Context(), key); err != nil || asked != 1 {
			t.Fatalf("asked %d times: %v", asked, err)
		}
	}
	away, now = true, now.Add(keyFresh)
	for range 10 {
		if _, err := a.authenticate(t.Context(), key); err != nil || asked != 2 {
			t.Fatalf("asked %d times: %v", asked, err)
		}
	}
	now = now.Add(keyRetry)
	if _, err := a.authenticate(t.Context(), key); err != nil || asked != 3 {
		t.Fatalf("asked %d times: %v", asked, err)
	}
	now = now.Add(keyUsable)
	if _, err := a.authenticate(t.Context(), key); err == nil || apierr.From(err).Code != errcode.SYS002 {
		t.Errorf("a minute is over: %v", err)
	}
}

// However long a key was not used, a request that comes while it is looked up waits for the result: it may be revoked by now.
func TestARevokedKeyIsRefusedToAllAtOnce(t *testing.T) {
	t.Parallel()
	var now atomic.Int64
	var revoked atomic.Pointer[time.Time]
	asking, goOn := make(chan struct{}, 9), make(chan struct{})
	a := NewAuthenticator(func(context.Context, []byte) (*Key, error) {
		if revoked.Load() != nil {
			asking <- struct{}{}
			<-goOn
		}
		return &Key{ID: "key_1", RevokedAt: revoked.Load()}, nil
	}, 8, nil, func() time.Time { return time.Unix(now.Load(), 0) })
	const key = "og_test_a_good_key_for_this_test"
	if _, err := a.authenticate(t.Context(), as(key)); err != nil {
		t.Fatal(err)
	}
	revoked.Store(&time.Time{})
	now.Add(50)
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			if _, err := a.authenticate(t.Context(), as(key)); err == nil || apierr.From(err).Code != errcode.AUTH004 {
				t.Errorf("let in: %v", err)
			}
		})
	}
	<-asking
	close(goOn)
	all.Wait()
}
