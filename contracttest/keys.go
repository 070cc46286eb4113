package contracttest

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/ordergate/ordergate/gen/errcode"
)

// otherKeys: a key that has expired, one that was revoked and one without the scope are refused by each operation.
func (s *suite) otherKeys(ctx context.Context) {
	if s.ExpiredKey == "" && s.RevokedKey == "" && len(s.NarrowKeys) == 0 {
		s.skipf("no other key was given: --expired-key, --revoked-key, --narrow-key")
		return
	}
	var unknown []string
	known := func(flag string, keys ...string) bool {
		for _, key := range keys {
			if key != "" && s.refusalOf(ctx, key) == errcode.AUTH002 {
				unknown = append(unknown, flag)
				return false
			}
		}
		return strings.Join(keys, "") != ""
	}
	expired, revoked, narrow := known("--expired-key", s.ExpiredKey), known("--revoked-key", s.RevokedKey), known("--narrow-key", s.NarrowKeys...)
	if len(unknown) > 0 {
		s.skipf("the address does not know the keys of %s", strings.Join(unknown, ", "))
	}
	if !expired && !revoked && !narrow {
		return
	}
	for _, id := range s.operationIDs() {
		op := s.contract.operations[id]
		if op.public || op.signed {
			continue
		}
		as := func(key string) call { return s.harmless(op).with("Authorization", "Bearer "+key) }
		if expired {
			s.refused(ctx, errcode.AUTH003, as(s.ExpiredKey))
		}
		if revoked {
			s.refused(ctx, errcode.AUTH004, as(s.RevokedKey))
		}
		if narrow {
			s.narrowed(ctx, op, as)
		}
	}
}

// narrowed: an operation is refused to one of the keys that lack scopes, with the scopes that the contract says.
func (s *suite) narrowed(ctx context.Context, op *operation, as func(key string) call) {
	scopes := op.scopes()
	if len(scopes) == 0 {
		return
	}
	var r reply
	for _, key := range s.NarrowKeys {
		var ok bool
		if r, ok = s.send(ctx, as(key)); !ok {
			return
		}
		switch errcode.Code(r.problem.Code) { //nolint:exhaustive // any other one comes after the check of the scope
		case errcode.AUTH005:
			var lacks struct {
				Scopes []string `json:"required_scopes"`
			}
			decode(r, &lacks)
			s.foundIf(!slices.Equal(slices.Sorted(slices.Values(lacks.Scopes)), scopes), r, "/body/required_scopes", "are %v and not those of the contract, %v", lacks.Scopes, scopes)
			return
		case errcode.AUTH002, errcode.AUTH003, errcode.AUTH004:
			s.skipf("a key of --narrow-key is refused with %s", r.problem.Code)
			return
		}
	}
	s.foundf(r, "/body/code", "is never AUTH_005: no key that lacks scopes is refused, and it needs %v (each operation must be beyond one of --narrow-key)", scopes)
}

// keyName is the variable that stands for a key in a curl.
func (s *suite) keyName(key string) string {
	switch i := slices.Index(s.NarrowKeys, key); {
	case i >= 0:
		return "NARROW_KEY" + strings.Repeat(strconv.Itoa(i+1), min(i, 1))
	case key == s.ExpiredKey:
		return "EXPIRED_KEY"
	case key == s.RevokedKey:
		return "REVOKED_KEY"
	}
	return "KEY"
}
