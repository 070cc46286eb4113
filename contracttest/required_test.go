package contracttest

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// knowing answers as an address that knows some keys, no origin and no secret.
func knowing(keys map[string]string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		code, known := keys[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
		switch {
		case r.Header.Get("Authorization") == "":
			refusing(http.StatusUnauthorized, "AUTH_007", "")(w, r)
		case !known:
			refusing(http.StatusUnauthorized, "AUTH_002", "")(w, r)
		default:
			refusing(http.StatusForbidden, code, "")(w, r)
		}
	}
}

// TestARequiredOptionThatDoesNotWorkEndsTheRun, if a part that was chosen needs it. One that is not required is skipped.
func TestARequiredOptionThatDoesNotWorkEndsTheRun(t *testing.T) {
	t.Parallel()
	keys := map[string]string{"og_test_x": "REQ_007", "og_test_narrow": "AUTH_005", "og_test_expired": "AUTH_003", "og_test_revoked": "AUTH_004"}
	narrow := func(keys ...string) Options { return Options{NarrowKeys: keys, Required: []string{"narrow-key"}} }
	for name, tt := range map[string]struct {
		o    Options
		only string
		want string
	}{
		"a narrow key that is not known":        {narrow("og_test_narrow", "og_test_nope"), "getOrder", "key 2 of --narrow-key is refused with AUTH_002"},
		"a narrow key that was revoked":         {narrow("og_test_revoked"), "getOrder", "key 1 of --narrow-key is refused with AUTH_004"},
		"a narrow key that works":               {narrow("og_test_narrow"), "getOrder", ""},
		"a narrow key, and it is not needed":    {narrow("og_test_nope"), "placing", ""},
		"a narrow key for public operations":    {narrow("og_test_nope"), "listErrors", ""},
		"a narrow key that nobody asked for":    {Options{NarrowKeys: []string{"og_test_nope"}}, "getOrder", ""},
		"an expired key that is not known":      {Options{ExpiredKey: "og_test_nope", Required: []string{"expired-key"}}, "getOrder", "key 1 of --expired-key is refused with AUTH_002"},
		"an expired key that works":             {Options{ExpiredKey: "og_test_expired", Required: []string{"expired-key"}}, "getOrder", ""},
		"a revoked key that is not known":       {Options{RevokedKey: "og_test_nope", Required: []string{"revoked-key"}}, "getOrder", "key 1 of --revoked-key is refused with AUTH_002"},
		"a revoked key that works":              {Options{RevokedKey: "og_test_revoked", Required: []string{"revoked-key"}}, "getOrder", ""},
		"an origin that is not allowed":         {Options{Origin: "https://evil.example", Required: []string{"origin"}}, "cors", "the address allows no page of https://evil.example: --origin"},
		"an origin, and it is not needed":       {Options{Origin: "https://evil.example", Required: []string{"origin"}}, "placing", ""},
		"a secret that is another":              {Options{ProviderSecret: "another", Required: []string{"provider-secret"}}, "callbacks", "the address refuses what --provider-secret signs: it has another secret"},
		"a secret, and no operation takes it":   {Options{ProviderSecret: "another", Required: []string{"provider-secret"}}, "getOrder", ""},
		"a secret of a run that was not chosen": {Options{ProviderSecret: "another", Required: []string{"provider-secret"}}, "placing", ""},
	} {
		tt.o.Only = []string{tt.only}
		var progress bytes.Buffer
		tt.o.Progress = &progress
		s := addressed(t, tt.o, knowing(keys))
		s.began = false
		result := s.run(t.Context(), part{"key", "", (*suite).key})
		r := s.report(false)
		if tt.want == "" {
			if s.dead {
				t.Errorf("%s: %s", name, r.Reason)
			}
			continue
		}
		if !s.dead || r.Code() != 2 || r.Reason != tt.want || len(r.Findings) > 0 || result.Result != Skipped || r.String() != "verdict     COULD NOT RUN: "+tt.want {
			t.Errorf("%s: %d %v, %v\n%s", name, r.Code(), result, r.Findings, r)
		}
		if strings.Contains(progress.String(), tt.want) {
			t.Errorf("%s: the cause is told twice: %s", name, &progress)
		}
	}
}

// TestOptionsThatCannotBeMeant are refused before anything is asked.
func TestOptionsThatCannotBeMeant(t *testing.T) {
	t.Parallel()
	for _, origin := range []string{"shop", "shop.example", "https://", "https://shop.example/", "https://shop.example?x", "https://u@shop.example", "https://Shop.example", "https://shop.example:", "null", "*", "https://a b"} {
		if err := (Options{BaseURL: "http://127.0.0.1:1", Origin: origin}).Validate(); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q is no origin", origin)) {
			t.Errorf("%s: %v", origin, err)
		}
	}
	for _, origin := range []string{"", "https://shop.example", "http://localhost:3000", "http://[::1]:8080", "capacitor://localhost"} {
		if err := (Options{BaseURL: "http://127.0.0.1:1", Origin: origin}).Validate(); err != nil {
			t.Errorf("%s: %v", origin, err)
		}
	}
	for want, o := range map[string]Options{
		"it requires origin, which is empty":         {Required: []string{"origin"}},
		"it requires rubbish":                        {Required: []string{"rubbish"}},
		"the key of the run is also one of the keys": {Key: "og_test_x", NarrowKeys: []string{"og_test_x"}},
	} {
		o.BaseURL = "http://127.0.0.1:1"
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestOneUnknownKeyLeavesTheOthers: a key that the address does not know is skipped alone.
func TestOneUnknownKeyLeavesTheOthers(t *testing.T) {
	t.Parallel()
	asked := map[string]int{}
	answer := knowing(map[string]string{"og_test_revoked": "AUTH_004", "og_test_narrow": "AUTH_005"})
	s := addressed(t, Options{ExpiredKey: "og_test_nope", RevokedKey: "og_test_revoked", NarrowKeys: []string{"og_test_narrow", "og_test_nope"}, Only: []string{"getOrder"}}, func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/v1/orders") {
			asked[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]++
		}
		answer(w, r)
	})
	s.otherKeys(t.Context())
	if asked["og_test_revoked"] == 0 || asked["og_test_nope"]+asked["og_test_narrow"] > 0 || s.lacking != "the address does not know the keys of --expired-key, --narrow-key" {
		t.Errorf("%v %q", asked, s.lacking)
	}
}

// TestTheReportTellsHowToRepeatTheRun with all that was asked for, and no secret.
func TestTheReportTellsHowToRepeatTheRun(t *testing.T) {
	t.Parallel()
	s, err := newSuite(Options{
		BaseURL: "http://127.0.0.1:1", Key: "og_live_1", NarrowKeys: []string{"og_live_2", "og_live_3"}, ExpiredKey: "og_live_4", RevokedKey: "og_live_5", ProviderSecret: "s", Origin: "https://shop.example",
		Required: []string{"narrow-key", "expired-key", "revoked-key", "provider-secret", "origin"}, Patience: time.Minute, Seed: 7, Requests: 9, Only: []string{"wrong bodies"},
	})
	if err != nil {
		t.Fatal(err)
	}
	key := PartResult{Name: "key", Result: Passed}
	s.results = []PartResult{key, {Name: "wrong bodies", Result: Passed}}
	text := s.report(false).String()
	const want = `repeat      --url http://127.0.0.1:1 --key "$KEY" --live --narrow-key "$NARROW_KEY,$NARROW_KEY2" --expired-key "$EXPIRED_KEY" --revoked-key "$REVOKED_KEY" ` +
		`--provider-secret "$PROVIDER_SECRET" --origin https://shop.example --patience 1m0s --only wrong-bodies --seed 7 --requests 9 ` +
		"# with KEY, NARROW_KEY, NARROW_KEY2, EXPIRED_KEY, REVOKED_KEY, PROVIDER_SECRET of this run\n"
	if !strings.Contains(text, want) || strings.Contains(text, "og_") {
		t.Error(text)
	}
	if !strings.Contains(text, "fuzzing     nothing, so that --requests and --seed change nothing: --only leaves it out (--only wrong-bodies,fuzzing)") {
		t.Error(text)
	}
	s, err = newSuite(Options{BaseURL: "http://127.0.0.1:1", Key: "og_test_1", NarrowKeys: []string{"og_test_2"}, Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	s.results = []PartResult{key, {Name: "admission", Result: Passed}}
	if text = s.report(false).String(); !strings.Contains(text, "repeat      --url http://127.0.0.1:1 --key \"$KEY\" --seed 7 --requests 0 # with KEY of this run\n") || !strings.Contains(text, "fuzzing     nothing: --requests 0\n") {
		t.Error(text)
	}
}
