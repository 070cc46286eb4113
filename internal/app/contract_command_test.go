package app

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// runContract runs `ordergate contract` with more arguments, against an address where nobody listens.
func runContract(t *testing.T, cfg Config, args ...string) error {
	t.Helper()
	flags := flag.NewFlagSet("contract", flag.ContinueOnError)
	run := testContract(flags)
	if err := flags.Parse(append([]string{"--url", "http://127.0.0.1:1"}, args...)); err != nil {
		t.Fatal(err)
	}
	return run(t.Context(), process{cfg: cfg, logs: t.Output(), stdout: t.Output()})
}

// TestContractRefusesWhatItWasNotMeantFor: each mistake has a sentence that says what is wrong, and the status is 2.
func TestContractRefusesWhatItWasNotMeantFor(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ want, option, value string }{
		{"a key is of live mode", "--key", "og_live_x"},
		{"a key is of live mode", "--narrow-key", "og_test_a, og_live_b"},
		{"a key is of live mode", "--expired-key", "og_live_x"},
		{"a key is of live mode", "--revoked-key", "og_live_x"},
		{"--only names nothing", "--only", ","},
		{`nothing is called "rubbish" (entries have commas between them)`, "--only", "wrong parameters, rubbish"},
		{`"ftp://x" is not of http or https`, "--url", "ftp://x"},
		{`"http://x?y" has a query`, "--url", "http://x?y"},
		{`"http://x/api" has a path`, "--url", "http://x/api/"},
		{`"http://u:xxxxx@x" has a user`, "--url", "http://u:secret@x"},
		{`"127.0.0.1:80" is no address`, "--url", "127.0.0.1:80"},
		{`"shop" is no origin`, "--origin", "shop"},
		{"has 6 bytes, and none has less than 64", "--provider-secret", "secret"},
		{"the key of the run is also one of the keys", "--revoked-key", "og_test_x"},
		{"cannot write the JUnit report: open", "--junit", filepath.Join(t.TempDir(), "nowhere", "report.xml")},
		{"there is no Ordergate at http://127.0.0.1:1", "--requests", "0"},
	} {
		err := runContract(t, Config{}, "--key", "og_test_x", tt.option, tt.value)
		if err == nil || !strings.Contains(err.Error(), tt.want) || ExitStatus(err) != 2 {
			t.Errorf("%s %s: status %d, %v", tt.option, tt.value, ExitStatus(err), err)
		}
	}
}

// TestContractRequiresWhatIsGivenByName: what stands on the command line must work, a default need not.
func TestContractRequiresWhatIsGivenByName(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v1/errors":
			fmt.Fprint(w, `{"data":[{"code":"REQ_007"}]}`)
		case r.Header.Get("Authorization") == "Bearer og_test_x":
			w.WriteHeader(http.StatusNotAcceptable)
			fmt.Fprint(w, `{"code":"REQ_007"}`)
		default:
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"code":"AUTH_002"}`)
		}
	}))
	t.Cleanup(server.Close)
	for _, tt := range []struct{ want, option, value string }{
		{"key 1 of --narrow-key is refused with AUTH_002", "--narrow-key", "og_test_nope"},
		{"key 1 of --expired-key is refused with AUTH_002", "--expired-key", "og_test_nope"},
		{"key 1 of --revoked-key is refused with AUTH_002", "--revoked-key", "og_test_nope"},
		{"the address allows no page of https://evil.example: --origin", "--origin", "https://evil.example"},
		{"", "--narrow-key", ""},
		{"", "--seed", "1"},
	} {
		var out bytes.Buffer
		flags := flag.NewFlagSet("contract", flag.ContinueOnError)
		run := testContract(flags)
		must(t, flags.Parse([]string{"--url", server.URL, "--key", "og_test_x", "--only", "getOrder", "--requests", "0", tt.option, tt.value}))
		err := run(t.Context(), process{logs: io.Discard, stdout: &out})
		ended := ExitStatus(err) == 2 && strings.HasSuffix(err.Error(), tt.want) && out.Len() == 0
		if tt.want == "" && ExitStatus(err) != 1 || tt.want != "" && !ended {
			t.Errorf("%s %s: %v\n%s", tt.option, tt.value, err, &out)
		}
	}
}

func TestContractTakesItsKeyFromTheSettings(t *testing.T) {
	t.Parallel()
	if err := runContract(t, Config{}); err == nil || !strings.Contains(err.Error(), "it needs --url and --key") {
		t.Error(err)
	}
	if err := runContract(t, Config{Key: "og_test_x"}); err == nil || !strings.Contains(err.Error(), "there is no Ordergate") {
		t.Error(err)
	}
}

// TestContractKeepsTheLastReport: the file of --junit is made once the options are right, before the run. It is never removed: it may be a link.
func TestContractKeepsTheLastReport(t *testing.T) {
	t.Parallel()
	file, link := filepath.Join(t.TempDir(), "report.xml"), filepath.Join(t.TempDir(), "link.xml")
	must(t, os.Symlink(file, link))
	typo := func() {
		t.Helper()
		for _, wrong := range [][]string{{"--only", "rubbish"}, {"--url", "ftp://x"}, {"--requests", "-1"}} {
			if err := runContract(t, Config{Key: "og_test_x"}, append(wrong, "--junit", link)...); ExitStatus(err) != 2 {
				t.Errorf("%v: %v", wrong, err)
			}
		}
		if to, err := os.Readlink(link); err != nil || to != file {
			t.Errorf("the link is gone: %v", err)
		}
	}
	typo()
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("a report is there: %v", err)
	}
	must(t, os.WriteFile(file, []byte("the last report"), 0o600))
	typo()
	if text, err := os.ReadFile(file); err != nil || string(text) != "the last report" {
		t.Errorf("the last report is %q: %v", text, err)
	}
	_ = runContract(t, Config{Key: "og_test_x"}, "--junit", link)
	if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), "there is no Ordergate") {
		t.Errorf("%s, %v", text, err)
	}
}
