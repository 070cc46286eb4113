package app

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/ordergate/ordergate/order"
)

// TestDemoKeysHaveIDs: cause.actor names a demo key by an id, as any key, which is the same at every start.
func TestDemoKeysHaveIDs(t *testing.T) {
	first, second := demoKeys(order.Owner{Account: 1, Mode: "test"}, time.Now()), demoKeys(order.Owner{Account: 2, Mode: "test"}, time.Now())
	ids := map[string]bool{}
	for text, key := range first {
		if _, err := keyID(key.ID); err != nil || second[text].ID != key.ID {
			t.Errorf("%s: %v, then %s", text, err, second[text].ID)
		}
		ids[key.ID] = true
	}
	if len(ids) != 5 {
		t.Errorf("%d ids", len(ids))
	}
}

// The demo keys show what each kind of key is answered with.
func TestDemoKeysOfEachKind(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	api, err := g.assemble().API(demoKeys(order.Owner{Account: 1, Mode: "test"}, time.Now().Add(-time.Minute)))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	for key, want := range map[string][2]string{
		DemoKey: {"", "CAT_005"}, demoReads: {"", "AUTH_005"}, demoWrites: {"AUTH_005", "CAT_005"}, demoExpired: {"AUTH_003", "AUTH_003"}, demoRevoked: {"AUTH_004", "AUTH_004"},
	} {
		read := g.at(server.URL).do("GET", "/v1/orders", nil, "Authorization", "Bearer "+key)
		write := g.at(server.URL).do("POST", "/v1/orders", draft("NONE", 1, ""), "Authorization", "Bearer "+key)
		if got := [2]string{read.body.Code, write.body.Code}; got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}
