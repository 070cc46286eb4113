package app

import (
	"bytes"
	"flag"
	"math"
	"strings"
	"testing"

	"github.com/ordergate/ordergate/internal/pgtest"
)

// TestHelp: every subcommand answers -h with its own line and its own flags, without settings, servers or a valid environment.
func TestHelp(t *testing.T) {
	t.Setenv("ORDERGATE_PRIMARY_URL", "")
	t.Setenv("ORDERGATE_PAYMENT_TIMEOUT", "rubbish")
	main := func(args ...string) (string, error) {
		var out bytes.Buffer
		err := Main(t.Context(), args, &out, &out)
		return out.String(), err
	}
	all := map[string]int{} // flags of all subcommands
	for _, s := range subcommands {
		flags := flag.NewFlagSet("", flag.ContinueOnError)
		s.setup(flags)
		flags.VisitAll(func(f *flag.Flag) { all[f.Name]++ })
	}
	if len(all) == 0 {
		t.Fatal("no subcommand has flags")
	}
	for _, s := range subcommands {
		for _, help := range []string{"-h", "-help", "--help"} {
			out, err := main(append(strings.Fields(s.name), help)...)
			if err != nil || !strings.HasPrefix(out, strings.TrimSpace("ordergate "+s.name+" "+s.args)) || !strings.Contains(out, s.help) {
				t.Errorf("%s %s: %v %q", s.name, help, err, out)
			}
			flags := flag.NewFlagSet("", flag.ContinueOnError)
			s.setup(flags)
			for name := range all {
				if shown, own := strings.Contains(out, "  -"+name), flags.Lookup(name) != nil; shown != own {
					t.Errorf("%s %s: -%s is shown: %v, is its own: %v", s.name, help, name, shown, own)
				}
			}
		}
	}
	for _, group := range []string{"keys", "parked"} {
		if out, err := main(group, "-h"); err != nil || strings.Count(out, "ordergate ") != strings.Count(out, "ordergate "+group) {
			t.Errorf("%s -h: %v %q", group, err, out)
		}
	}
	if out, err := main(); err != nil || strings.Count(out, "\n  ordergate ") != len(subcommands) {
		t.Errorf("usage: %v %q", err, out)
	}
	for args, want := range map[string]string{
		"nonsense": "no subcommand", "keys": "needs one of", "keys revoke": "needs KEY_ID", "probe a b": `does not take "b"`, "keys list -overlap 1h": "-overlap",
	} {
		if _, err := main(strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}

// TestUnparsableSettings: the message names the variables, all of them.
func TestUnparsableSettings(t *testing.T) {
	_, err := ReadConfig([]string{"ORDERGATE_PAYMENT_TIMEOUT=x", "ORDERGATE_PRIMARY_CONNECTIONS=y"}, nil)
	for _, want := range []string{"cannot parse ORDERGATE_PAYMENT_TIMEOUT", "cannot parse ORDERGATE_PRIMARY_CONNECTIONS"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	c, err := ReadConfig([]string{"ORDERGATE_PRIMARY_URL=mysql://x", "ORDERGATE_ADDR=:8081", "ORDERGATE_SECRET=short"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = Check(c, true, true)
	for _, want := range []string{"cannot parse ORDERGATE_PRIMARY_URL", "ORDERGATE_PSP_URL is not set", "ORDERGATE_SECRET needs", "same address"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestSameAddress: two listeners on one address are refused, however it is written.
func TestSameAddress(t *testing.T) {
	for _, c := range []struct {
		api, admin string
		same       bool
	}{
		{"127.0.0.1:8080", "127.0.0.1:8080", true},
		{"127.0.0.1:8080", "localhost:8080", true},
		{"127.0.0.1:8080", ":8080", true},
		{"0.0.0.0:8080", "127.0.0.2:8080", true},
		{"[::]:8080", "127.0.0.1:8080", true},
		{":http", "127.0.0.1:80", true},
		{"127.0.0.1:8080", "127.0.0.1:8081", false},
		{"127.0.0.1:8080", "127.0.0.2:8080", false},
		{"127.0.0.1:0", "127.0.0.1:0", false},
	} {
		err := checkAddresses(map[string]string{"ORDERGATE_ADDR": c.api, "ORDERGATE_ADMIN_ADDR": c.admin})
		if got := err != nil && strings.Contains(err.Error(), "same address"); got != c.same || err != nil && !got {
			t.Errorf("%s and %s: %v", c.api, c.admin, err)
		}
	}
}

// TestHealthMetrics: /metrics has the figures of /readyz, and no label has a space.
func TestHealthMetrics(t *testing.T) {
	t.Parallel()
	g := startGateway(t, func(c *Config, _ *pgtest.DB) {
		c.ReplicaURLs = append(c.ReplicaURLs, "postgres://ordergate@127.0.0.1:1/ordergate")
	})
	g.stock("A", 10)
	g.do("POST", "/v1/orders", draft("A", 1, "pm_ok"))
	families, err := g.components.tel.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				if strings.Contains(l.GetValue(), " ") {
					t.Errorf("%s has the label value %q", name, l.GetValue())
				}
				name += " " + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue()
		}
	}
	if parked, ok := got["ordergate_parked_messages"]; !ok || parked != 0 {
		t.Error("parked messages:", parked, ok)
	}
	if lag, ok := got["ordergate_replica_lag_seconds replica_1"]; !ok || lag < 0 || math.IsInf(lag, 1) {
		t.Error("lag of the replica:", lag, ok)
	}
	if lag := got["ordergate_replica_lag_seconds replica_2"]; !math.IsInf(lag, 1) {
		t.Error("lag of a replica that does not answer:", lag)
	}
}
