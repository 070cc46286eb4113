package edge

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/guard"
	"github.com/ordergate/ordergate/internal/panics"
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
		}, nil, 8, nil, nil, time.Now, nil)
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				_, _, err := a.authenticate(t.Context(), as(fmt.Sprintf("og_test_made_up_key_number_%04d", i)), a.now())
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
	}, nil, 8, nil, nil, func() time.Time { return now }, nil)
	key := as("og_test_a_good_key_for_this_test")
	for range 2 {
		if _, _, err := a.authenticate(t.Context(), key, a.now()); err != nil || asked != 1 {
			t.Fatalf("asked %d times: %v", asked, err)
		}
	}
	away, now = true, now.Add(keyFresh)
	for range 10 {
		if _, _, err := a.authenticate(t.Context(), key, a.now()); err != nil || asked != 2 {
			t.Fatalf("asked %d times: %v", asked, err)
		}
	}
	now = now.Add(keyRetry)
	if _, _, err := a.authenticate(t.Context(), key, a.now()); err != nil || asked != 3 {
		t.Fatalf("asked %d times: %v", asked, err)
	}
	now = now.Add(keyUsable)
	if _, _, err := a.authenticate(t.Context(), key, a.now()); err == nil || apierr.From(err).Code != errcode.SYS002 {
		t.Errorf("a minute is over: %v", err)
	}
}

// A burst of our own keeps no key out that was good a moment ago, and does not make a revoked one good for longer than 10 s.
func TestKeysWhileOurQueueIsFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var blocked atomic.Bool
		asked := sha256.Sum256([]byte("og_test_the_key_of_this_test"))
		a := NewAuthenticator(func(ctx context.Context, hash []byte) (*Key, error) {
			if blocked.Load() && [32]byte(hash) != asked {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			if blocked.Load() {
				t.Error("there was a place")
			}
			return &Key{ID: "key_1"}, nil
		}, func(context.Context, []byte) (*Key, error) { t.Error("a replica is asked"); return nil, nil }, 1, nil, nil, time.Now, nil)
		ask := func(key string) error { _, _, err := a.authenticate(t.Context(), as(key), a.now()); return err }
		const key, other = "og_test_the_key_of_this_test", "og_test_another_key_of_this_test"
		for _, k := range []string{key, other} {
			if err := ask(k); err != nil {
				t.Fatal(err)
			}
		}
		begin := time.Now()
		for _, c := range []struct {
			after time.Duration
			code  errcode.Code
		}{{keyFresh, ""}, {keyQueued, errcode.RATE003}, {keyUsable / 2, errcode.RATE003}} {
			blocked.Store(true)
			<-time.After(c.after - time.Since(begin))
			var all sync.WaitGroup
			all.Go(func() { _ = ask(other) })
			synctest.Wait()
			err := ask(key)
			if c.code == "" && err != nil || c.code != "" && (err == nil || apierr.From(err).Code != c.code) {
				t.Errorf("after %v: %v", c.after, err)
			}
			all.Wait()
		}
		blocked.Store(false)
		if err := ask(key); err != nil {
			t.Error(err)
		}
	})
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
	}, nil, 8, nil, nil, func() time.Time { return time.Unix(now.Load(), 0) }, nil)
	const key = "og_test_a_good_key_for_this_test"
	if _, _, err := a.authenticate(t.Context(), as(key), a.now()); err != nil {
		t.Fatal(err)
	}
	revoked.Store(&time.Time{})
	now.Add(50)
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			if _, _, err := a.authenticate(t.Context(), as(key), a.now()); err == nil || apierr.From(err).Code != errcode.AUTH004 {
				t.Errorf("let in: %v", err)
			}
		})
	}
	<-asking
	close(goOn)
	all.Wait()
}

// While the primary is away a key that is not cached is looked up on a replica. What a replica does not have may be there all the same.
func TestKeysOnAReplica(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	past := now.Add(-time.Hour)
	unheard := &Key{ID: "key_3"} // its revocation has not come to the replica
	primary := map[string]*Key{"good": {ID: "key_1"}, "revoked": {ID: "key_3", RevokedAt: &past}}
	replica := map[string]*Key{"good": {ID: "key_1"}, "expired": {ID: "key_2", ExpiresAt: &past}, "gone": {ID: "key_4", RevokedAt: &past}, "revoked": unheard, "unused": {ID: "key_5"}}
	key := func(name string) string { return fmt.Sprintf("og_test_%s_key_for_this_test", name) }
	find := func(keys map[string]*Key, asked *int, away *error) finder {
		byHash := map[[32]byte]*Key{}
		for name, k := range keys {
			byHash[sha256.Sum256([]byte(key(name)))] = k
		}
		return func(_ context.Context, hash []byte) (*Key, error) {
			*asked++
			if *away != nil {
				return nil, *away
			}
			return byHash[[32]byte(hash)], nil
		}
	}
	var onPrimary, onReplica int
	var primaryAway, replicaAway error
	a := NewAuthenticator(find(primary, &onPrimary, &primaryAway), find(replica, &onReplica, &replicaAway), 8, nil, nil, func() time.Time { return now }, nil)
	want := func(name string, code errcode.Code, primary, replica int) {
		t.Helper()
		onPrimary, onReplica = 0, 0
		_, _, err := a.authenticate(t.Context(), as(key(name)), a.now())
		if code == "" && err != nil || code != "" && (err == nil || apierr.From(err).Code != code) {
			t.Errorf("%s: %v, want %q", name, err, code)
		}
		if onPrimary != primary || onReplica != replica {
			t.Errorf("%s: the primary was asked %d times, a replica %d times", name, onPrimary, onReplica)
		}
	}
	want("good", "", 1, 0)
	want("revoked", errcode.AUTH004, 1, 0)
	want("made-up", errcode.AUTH002, 1, 0)

	primaryAway = errors.New("away")
	now = now.Add(keyFresh)
	want("good", "", 1, 0) // it was there within the minute
	want("unused", "", 1, 1)
	want("unused", "", 0, 0)
	want("expired", errcode.AUTH003, 1, 1)
	want("gone", errcode.AUTH004, 1, 1)
	want("made-up", errcode.SYS002, 1, 1)
	want("made-up", errcode.SYS002, 1, 1)
	now = now.Add(keyUsable)
	want("good", "", 1, 1)
	want("good", "", 0, 0)
	want("revoked", errcode.AUTH004, 1, 0) // it was told so by the primary
	want("unused", "", 1, 1)

	now = now.Add(keyUsable)
	replicaAway = errors.New("away")
	want("good", errcode.SYS002, 1, 1)
	for range 30 {
		_, _, _ = a.authenticate(t.Context(), as(key("good")), a.now())
	}
	primaryAway, replicaAway = nil, nil
	want("good", errcode.SYS002, 0, 0) // both breakers are open
}

// The replica is asked at once while the primary's breaker is open, and a flood of made-up keys keeps no key out that was good.
func TestMadeUpKeysLeaveTheReplicaToGoodOnes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var away atomic.Bool
		good := sha256.Sum256([]byte("og_test_a_good_key_for_this_test"))
		a := NewAuthenticator(func(ctx context.Context, hash []byte) (*Key, error) {
			if away.Load() {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return &Key{ID: "key_1"}, nil
		}, func(_ context.Context, hash []byte) (*Key, error) {
			<-time.After(50 * time.Millisecond) // the database's time
			if [32]byte(hash) == good {
				return &Key{ID: "key_1"}, nil
			}
			return nil, nil
		}, 2, nil, nil, time.Now, nil)
		ask := func(key string) (time.Duration, error) {
			begin := time.Now()
			_, _, err := a.authenticate(t.Context(), as(key), a.now())
			return time.Since(begin), err
		}
		if _, err := ask("og_test_a_good_key_for_this_test"); err != nil {
			t.Fatal(err)
		}
		away.Store(true)
		<-time.After(keyUsable)
		for i := range 20 {
			if _, err := ask(fmt.Sprintf("og_test_made_up_key_number_%04d", i)); apierr.From(err).Code != errcode.SYS002 {
				t.Error(err)
			}
		}
		if took, err := ask("og_test_made_up_key_number_last"); took != 50*time.Millisecond || apierr.From(err).Code != errcode.SYS002 {
			t.Errorf("the primary's breaker is open, and it took %v: %v", took, err)
		}
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				_, err := ask(fmt.Sprintf("og_test_more_made_up_keys_%04d", i))
				if code := apierr.From(err).Code; code != errcode.SYS002 && code != errcode.RATE003 {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if _, err := ask("og_test_a_good_key_for_this_test"); err != nil {
			t.Error(err)
		}
		all.Wait()
	})
}

// Whatever panics while a key is looked up, the places for look-ups are free afterwards.
func TestAPanicOfALookUpKeepsNoPlace(t *testing.T) {
	t.Parallel()
	var healthy atomic.Bool
	find := func(context.Context, []byte) (*Key, error) {
		if !healthy.Load() {
			panic("oh")
		}
		return &Key{ID: "key_1"}, nil
	}
	registry := prometheus.NewRegistry()
	var minutes atomic.Int64
	a := NewAuthenticator(find, find, 2, nil, nil, func() time.Time { return time.Unix(60*minutes.Load(), 0) }, registry)
	ask := func(n int) error {
		_, _, err := a.authenticate(t.Context(), as(fmt.Sprintf("og_test_the_key_with_number_%03d", n)), a.now())
		return err
	}
	guards := []*guard.Guard{a.good.guard, a.good.replicas, a.others.guard, a.others.replicas}
	healthy.Store(true)
	if err := ask(0); err != nil {
		t.Fatal(err)
	}
	healthy.Store(false)
	for n := range 100 {
		for _, g := range guards {
			g.CloseBreaker()
		}
		minutes.Add(10)
		for _, key := range []int{0, 1 + n} { // one that was good, and another
			if err := ask(key); err == nil || apierr.From(err).Code != errcode.SYS002 || !errors.Is(err, panics.ErrPanic) {
				t.Fatal(key, err)
			}
		}
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	parts := 0
	for _, f := range families {
		if f.GetName() != "ordergate_guard_permits_in_use" {
			continue
		}
		for _, m := range f.GetMetric() {
			if parts++; m.GetGauge().GetValue() != 0 {
				t.Errorf("%v places of %v", m.GetGauge().GetValue(), m.GetLabel())
			}
		}
	}
	if parts != len(guards) {
		t.Errorf("%d guards are in the metrics", parts)
	}
	for _, g := range guards {
		g.CloseBreaker()
	}
	healthy.Store(true)
	var all sync.WaitGroup
	for n := range 2 {
		all.Go(func() {
			if err := ask(200 + n); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
