package contracttest

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/ordergate/ordergate/gen/errcode"
)

// browserOrigin is how browsers write an origin.
var browserOrigin = regexp.MustCompile(`^[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?$`)

// checkGiven refuses an origin that no browser sends, a key that is to be refused and is that of the run, and a word of
// Options.Required that names no option or one that is empty.
func (o Options) checkGiven() error {
	if o.Origin != "" && !browserOrigin.MatchString(o.Origin) {
		return fmt.Errorf("%q is no origin: it is scheme://host or scheme://host:port, in small letters and with nothing behind it, such as https://shop.example", o.Origin)
	}
	if o.Key != "" && slices.Contains(append(slices.Clone(o.NarrowKeys), o.ExpiredKey, o.RevokedKey), o.Key) {
		return errors.New("the key of the run is also one of the keys that lack scopes, have expired or were revoked")
	}
	given := map[string]bool{
		"narrow-key": len(o.NarrowKeys) > 0, "expired-key": o.ExpiredKey != "", "revoked-key": o.RevokedKey != "", "provider-secret": o.ProviderSecret != "", "origin": o.Origin != "",
	}
	for _, name := range o.Required {
		if !given[name] {
			return errors.New("it requires " + name + ", which is empty or is none of " + strings.Join(sortedKeys(given), ", "))
		}
	}
	return nil
}

// requireGiven ends the run before anything is made if one of Options.Required does not work and a part that was chosen needs it.
func (s *suite) requireGiven(ctx context.Context) {
	for _, name := range s.Required {
		if why := s.unusable(ctx, name); why != "" {
			s.mu.Lock()
			s.endf("%s", why)
			s.mu.Unlock()
			return
		}
	}
}

// unusable says why an option does not work, unless nothing that was chosen needs it.
func (s *suite) unusable(ctx context.Context, name string) string {
	needed := func(of func(*operation) bool, parts ...string) bool {
		return slices.ContainsFunc(s.parts, func(p part) bool { return slices.Contains(parts, p.name) }) &&
			slices.ContainsFunc(s.operationIDs(), func(id string) bool { return of(s.contract.operations[id]) })
	}
	closed := func(op *operation) bool { return !op.public && !op.signed }
	var keys []string
	switch name {
	case "origin":
		if needed(func(*operation) bool { return true }, "cors") && s.allowedOrigin(ctx) == "" {
			return s.lacking
		}
	case "provider-secret":
		if needed(func(op *operation) bool { return op.signed }, "callbacks", "wrong bodies", "faults") && !s.canSign(ctx) {
			return "the address refuses what --provider-secret signs: it has another secret"
		}
	case "narrow-key":
		keys = s.NarrowKeys
	case "expired-key":
		keys = []string{s.ExpiredKey}
	case "revoked-key":
		keys = []string{s.RevokedKey}
	}
	if keys == nil || !needed(closed, "other keys") {
		return ""
	}
	for i, key := range keys {
		if code := s.refusalOf(ctx, key); code == errcode.AUTH001 || code == errcode.AUTH002 ||
			name == "narrow-key" && (code == errcode.AUTH003 || code == errcode.AUTH004) {
			return fmt.Sprintf("key %d of --%s is refused with %s", i+1, name, code)
		}
	}
	return ""
}

// refusalOf is the code that a key is refused with, if it is.
func (s *suite) refusalOf(ctx context.Context, key string) errcode.Code {
	r, _ := s.send(ctx, call{op: "listOrders", query: values("limit", "1")}.with("Authorization", "Bearer "+key))
	return errcode.Code(r.problem.Code)
}

// repeatFlags are the flags of `ordergate contract` that ask for the same again. Keys and secrets are variables, as in Finding.Repeat, and a comment names them.
func (s *suite) repeatFlags() string {
	flags, secrets := []string{"--url", s.BaseURL}, []string{}
	add := func(flag string, variables ...string) {
		secrets = append(secrets, variables...)
		flags = append(flags, flag, `"$`+strings.Join(variables, ",$")+`"`)
	}
	add("--key", "KEY")
	if strings.HasPrefix(s.Key, "og_live_") {
		flags = append(flags, "--live")
	}
	for _, name := range s.Required {
		switch name {
		case "narrow-key":
			names := make([]string, len(s.NarrowKeys))
			for i, key := range s.NarrowKeys {
				names[i] = s.keyName(key)
			}
			add("--narrow-key", names...)
		case "expired-key":
			add("--expired-key", "EXPIRED_KEY")
		case "revoked-key":
			add("--revoked-key", "REVOKED_KEY")
		}
	}
	if s.ProviderSecret != "" {
		add("--provider-secret", "PROVIDER_SECRET")
	}
	if s.Origin != "" {
		flags = append(flags, "--origin", s.Origin)
	}
	if s.Patience != defaultPatience {
		flags = append(flags, "--patience", s.Patience.String())
	}
	if len(s.Only) > 0 {
		flags = append(flags, "--only", strings.Join(s.Only, ","))
	}
	return fmt.Sprintf("%s --seed %d --requests %d # with %s of this run", strings.Join(flags, " "), s.Seed, s.Requests, strings.Join(secrets, ", "))
}
