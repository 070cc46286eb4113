package app

import (
	"flag"
	"strings"
	"testing"
)

func TestContractRefusesWhatItWasNotMeantFor(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"--key", "og_live_x"}, {"--narrow-key", "og_test_a,og_live_b"}, {"--expired-key", "og_live_x"}, {"--revoked-key", "og_live_x"}, {"--only", ","},
	} {
		flags := flag.NewFlagSet("contract", flag.ContinueOnError)
		run := testContract(flags)
		if err := flags.Parse(append([]string{"--url", "http://127.0.0.1:1", "--key", "og_test_x"}, args...)); err != nil {
			t.Fatal(err)
		}
		want := map[bool]string{true: "--only names nothing", false: "a key is of live mode"}[args[0] == "--only"]
		if err := run(t.Context(), process{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", args, err)
		}
	}
}
