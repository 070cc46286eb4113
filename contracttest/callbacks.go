package contracttest

import (
	"context"
	"net/http"
	"time"

	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/signature"
)

// signed is a call with the signature of the payment provider, if its operation wants one.
func (s *suite) signed(c call) call {
	if op := s.contract.operations[c.op]; op == nil || !op.signed {
		return c
	}
	text, raw := c.body.([]byte)
	if !raw {
		text = encode(c.body)
	}
	c.body = text
	return c.with("Authorization", "", signature.Header, signature.Sign(s.ProviderSecret, time.Now().Add(s.facts.skew), text))
}

// canSign tells whether the provider's secret was given and is that of the address. It asks once, with a message that is refused for its form.
func (s *suite) canSign(ctx context.Context) bool {
	if s.ProviderSecret == "" || s.signs != nil {
		return s.signs != nil && *s.signs
	}
	r, ok := s.send(ctx, s.signed(call{op: providerCallback, arg: s.madeUp("provider"), body: []byte(`{}`)}))
	yes := ok && r.problem.Code != string(errcode.AUTH007)
	s.signs = &yes
	return yes
}

// providerCallback is the operation that a provider signs.
const providerCallback = "takeProviderCallback"

// signedCallbacks: what the provider itself is refused for, and a message that nobody waits for, which is taken once.
func (s *suite) signedCallbacks(ctx context.Context) {
	op := s.contract.operations[providerCallback]
	switch {
	case s.ProviderSecret == "" || op == nil:
		s.skipf("the provider's secret was not given: --provider-secret")
		return
	case !s.canSign(ctx):
		s.skipf("the address refuses what --provider-secret signs: it has another secret")
		return
	}
	good := s.harmless(op)
	send := func(change func(*call)) reply {
		c := good
		change(&c)
		r, _ := s.send(ctx, c)
		return r
	}
	signed := func(body any) func(*call) { return func(c *call) { c.body = body; *c = s.signed(*c) } }
	r := send(signed(good.body))
	s.foundIf(r.status != http.StatusNoContent, r, "/status", "of a message that is signed is not 204%s", why(r))
	r = send(signed(good.body))
	s.foundIf(r.status != http.StatusNoContent, r, "/status", "of a message that comes again is not 204%s", why(r))
	for _, c := range []struct {
		code   errcode.Code
		change func(*call)
	}{
		{errcode.REQ001, signed([]byte(`{"id":`))},
		{errcode.REQ002, signed([]byte(`{}`))},
		{errcode.REQ003, func(c *call) { signed(good.body)(c); c.query = values("unknown", "x") }},
		{errcode.REQ007, func(c *call) { signed(good.body)(c); *c = c.with("Accept", "image/png") }},
		{errcode.REQ009, func(c *call) { signed(good.body)(c); *c = c.with("Content-Type", "text/plain") }},
		{errcode.AUTH007, func(c *call) {
			signed(good.body)(c)
			c.body = append(c.body.([]byte), ' ') //nolint:forcetypeassert // as signed makes it
		}},
	} {
		r := send(c.change)
		s.foundIf(r.problem.Code != string(c.code), r, "/body/code", "is not %s%s", c.code, why(r))
	}
}
