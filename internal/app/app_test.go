package app

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"math"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/internal/telemetry"
)

// TestHelp: every subcommand answers -h with its own line and its own flags, without settings, servers or a valid environment.
func TestHelp(t *testing.T) {
	t.Setenv("ORDERGATE_PRIMARY_URL", "")
	t.Setenv("ORDERGATE_PAYMENT_TIMEOUT", "rubbish")
	main := func(args ...string) (string, error) {
		var out bytes.Buffer
		err := Main(t.Context(), args, nil, &out, &out)
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
	for _, command := range []string{"create", "limit"} { // what has this limit is the same in both, and in docs/running.md
		if out, err := main("keys", command, "-h"); err != nil || !strings.Contains(out, "requests in a window, of all processes of one Redis together;") {
			t.Errorf("keys %s -h: %v %q", command, err, out)
		}
	}
	for _, group := range []string{"keys", "coupons", "parked"} {
		if out, err := main(group, "-h"); err != nil || strings.Count(out, "ordergate ") != strings.Count(out, "ordergate "+group) {
			t.Errorf("%s -h: %v %q", group, err, out)
		}
	}
	if out, err := main(); err != nil || strings.Count(out, "\n  ordergate ") != len(subcommands) {
		t.Errorf("usage: %v %q", err, out)
	}
	for _, customer := range []string{"a\xff", "a\x00", "a\nb"} {
		if _, err := main("export", "-customer", customer); err == nil || !strings.Contains(err.Error(), "UTF-8 without control characters") {
			t.Errorf("%q: %v", customer, err)
		}
	}
	for args, want := range map[string]string{
		"nonsense": "no subcommand", "nonsense -h": "no subcommand", "keys": "no subcommand \"keys\", there are\n  ordergate keys create", "keys nonsense -h": "ordergate keys list",
		"contract -patience 5": "-patience: expected a duration such as 30s", "contract -requests x": "-requests: expected a whole number\n", "contract -seed -1": "-seed: expected a whole number from 0 on",
		"contract -json=x": "-json: expected true or false", "contract -patience": "usage: ordergate contract -url address -key key [-expired-key]",
		"keys revoke": "needs KEY_ID", "probe a b": `does not take "b"`, "keys list -overlap 1h": "-overlap",
	} {
		if _, err := main(strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}

// TestNoFaultsInProduction: a production process that would let clients make requests fail does not start.
func TestNoFaultsInProduction(t *testing.T) {
	for name, value := range map[string]string{
		"ORDERGATE_PRIMARY_URL": "postgres://nobody@127.0.0.1:1/none", "ORDERGATE_SECRET": strings.Repeat("0", minSecret), "ORDERGATE_ENV": "",
		"ORDERGATE_ADMIN_ADDR": "127.0.0.1:0",
	} {
		t.Setenv(name, value)
	}
	var out bytes.Buffer
	if err := Main(t.Context(), []string{"serve", "-faults"}, nil, &out, &out); err == nil || !strings.Contains(err.Error(), "refused in production") || out.Len() > 0 {
		t.Errorf("%v %s", err, &out)
	}
	t.Setenv("ORDERGATE_ENV", development)
	if err := Main(t.Context(), []string{"serve", "-faults"}, nil, &out, &out); err == nil || !strings.Contains(err.Error(), "cannot connect to the primary") {
		t.Errorf("%v %s", err, &out)
	}
}

// TestStopIsLogged: the log ends with why the process stopped, and that it did.
func TestStopIsLogged(t *testing.T) {
	const stopped = `{"level":"info","msg":"stopped"}`
	asked := `{"level":"info","msg":"stopping","cause":"terminated signal received"}`
	for name, c := range map[string]struct {
		asked bool
		err   error
		want  string
	}{
		"it was asked":                   {true, nil, asked + "\n" + stopped},
		"it was asked, a part says so":   {true, context.Canceled, asked + "\n" + stopped},
		"it was asked, and a part fails": {true, io.ErrUnexpectedEOF, asked + "\n" + `{"level":"error","msg":"stopped","error":"unexpected EOF"}`},
		"it fails":                       {false, io.ErrUnexpectedEOF, `{"level":"error","msg":"stopped","error":"unexpected EOF"}`},
		"it was cancelled within":        {false, context.Canceled, `{"level":"error","msg":"stopped","error":"context canceled"}`},
		"it is done":                     {false, nil, stopped},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		var out bytes.Buffer
		err := process{logs: &out}.withTelemetry(ctx, func(*telemetry.Telemetry) error {
			if c.asked {
				cancel(errors.New("terminated signal received"))
			}
			return c.err
		})
		cancel(nil)
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v", name, err)
		}
		lines := regexp.MustCompile(`"time":"[^"]+",`).ReplaceAllString(out.String(), "")
		if lines != c.want+"\n" {
			t.Errorf("%s: the log is\n%s", name, lines)
		}
	}
}

// TestUnparsableSettings: the message names the variables, all of them.
func TestUnparsableSettings(t *testing.T) {
	c, err := ReadConfig([]string{"ORDERGATE_PAYMENT_TIMEOUT=x", "ORDERGATE_PRIMARY_CONNECTIONS=y"}, nil)
	if c.PaymentTimeout != 30*time.Second || c.MaxConnections != 32 {
		t.Errorf("a setting that cannot be parsed is judged as %v and %d", c.PaymentTimeout, c.MaxConnections)
	}
	for _, want := range []string{"cannot parse ORDERGATE_PAYMENT_TIMEOUT", "cannot parse ORDERGATE_PRIMARY_CONNECTIONS"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	c, err = ReadConfig([]string{"ORDERGATE_PRIMARY_URL=mysql://x", "ORDERGATE_ADDR=:8081", "ORDERGATE_SECRET=short"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(Check(c, "serve"), Check(c, "worker"))
	for _, want := range []string{"cannot parse ORDERGATE_PRIMARY_URL", "ORDERGATE_PSP_URL is not set", "ORDERGATE_SECRET needs", "same address"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestWrongSettings: each subcommand names every setting that it uses and that is missing or wrong, at once and before anything is started.
func TestWrongSettings(t *testing.T) {
	wrong := map[string]string{
		"ORDERGATE_LOG_LEVEL": "foo", "ORDERGATE_PAYMENT_TIMEOUT": "x", "ORDERGATE_PRIMARY_CONNECTIONS": "3", "ORDERGATE_ORIGINS": "localhost:3000",
		"ORDERGATE_ADDR": "9080", "ORDERGATE_ADMIN_ADDR": "9081", "ORDERGATE_PSP_ADDR": "9082", "OTEL_TRACES_EXPORTER": "zipkin",
		"ORDERGATE_PRIMARY_URL": "postgres://user:password@host/db?sslmode=x", "ORDERGATE_REPLICA_URLS": "host=x:1", "ORDERGATE_REDIS_URL": "redis://host/x",
		"ORDERGATE_PSP_URL": "http:host", "ORDERGATE_SECRET": "", "ORDERGATE_DATA_DIR": t.TempDir(), "ORDERGATE_FAILPOINTS": "relay=kill",
		"ORDERGATE_ENV": "staging", "ORDERGATE_CONSOLE": "maybe", "ORDERGATE_PROVIDER_SECRET": "short", "ORDERGATE_PSP_CALLBACK_URL": "host/v1/provider-callbacks/psp",
		"GOGC": "abc",
	}
	for name, value := range wrong {
		t.Setenv(name, value)
	}
	process := "ORDERGATE_ENV ORDERGATE_CONSOLE ORDERGATE_LOG_LEVEL ORDERGATE_PAYMENT_TIMEOUT ORDERGATE_PRIMARY_CONNECTIONS ORDERGATE_ORIGINS ORDERGATE_ADMIN_ADDR OTEL_TRACES_EXPORTER ORDERGATE_FAILPOINTS GOGC "
	servers := "ORDERGATE_PRIMARY_URL ORDERGATE_REPLICA_URLS ORDERGATE_REDIS_URL ORDERGATE_SECRET ORDERGATE_PROVIDER_SECRET "
	every := "ORDERGATE_CONSOLE ORDERGATE_LOG_LEVEL ORDERGATE_PAYMENT_TIMEOUT ORDERGATE_FAILPOINTS "
	for subcommand, want := range map[string]string{
		"run": process + "ORDERGATE_ADDR ORDERGATE_PSP_ADDR", "serve": process + servers + "ORDERGATE_ADDR", "worker": process + servers + "ORDERGATE_PSP_URL",
		"psp": every + "ORDERGATE_PSP_ADDR ORDERGATE_PROVIDER_SECRET ORDERGATE_PSP_CALLBACK_URL", "keys list": every + "ORDERGATE_PRIMARY_URL", "parked list": every + "ORDERGATE_PRIMARY_URL",
		"coupons list":       every + "ORDERGATE_PRIMARY_URL",
		"export -customer x": every + "ORDERGATE_PRIMARY_URL", "erase -customer x": every + "ORDERGATE_PRIMARY_URL ORDERGATE_SECRET",
		"keys create -account x": every + "ORDERGATE_PRIMARY_URL ORDERGATE_SECRET", "migrate": every + "ORDERGATE_PRIMARY_URL", "verify": every + "ORDERGATE_PRIMARY_URL ORDERGATE_PSP_URL",
		"replay": every + "ORDERGATE_PRIMARY_URL",
	} {
		var out bytes.Buffer
		err := Main(t.Context(), strings.Fields(subcommand), nil, &out, &out)
		for name := range wrong {
			if named := err != nil && strings.Contains(err.Error(), name); named != slices.Contains(strings.Fields(want), name) {
				t.Errorf("%s: %s is named: %v\n%v", subcommand, name, named, err)
			}
		}
		if out.Len() > 0 || strings.Contains(err.Error(), "password") {
			t.Errorf("%s: %s %v", subcommand, &out, err)
		}
	}
}

// TestRedisSettings: each form of the URL is checked before anything is started.
func TestRedisSettings(t *testing.T) {
	for value, good := range map[string]bool{
		"redis://:password@h/1": true, "rediss+cluster://:password@h?addr=i:1": true, "redis+sentinel://h?addr=i:1&master_name=m&password=password": true,
		"redis+ring://:password@h": false, "redis+cluster://:password@h?addr=password": false, "redis+sentinel://:password@h": false, "redis://:password@h/x": false,
		"redis+cluster://:password@h/1": false, "redis://:password@h:65536": false, "redis://:password@h:x": false, "redis://:password@h?password=1": false,
	} {
		c := Config{RedisURL: value}
		err := Check(c, "serve")
		refused := err != nil && strings.Contains(err.Error(), "cannot parse ORDERGATE_REDIS_URL: ") && strings.Contains(err.Error(), "docs/running.md")
		if err == nil || refused == good || strings.Contains(err.Error(), "password") {
			t.Errorf("%s: %v", value, err)
		}
	}
}

// TestSimulatorSettings: callbacks need a secret, and rubbish in the fault profile is refused before anything listens.
func TestSimulatorSettings(t *testing.T) {
	for name, value := range map[string]string{
		"ORDERGATE_PSP_ADDR": "127.0.0.1:0", "ORDERGATE_PSP_DIR": t.TempDir(), "ORDERGATE_PSP_CALLBACK_URL": "http://127.0.0.1:1/x", "ORDERGATE_PROVIDER_SECRET": "",
	} {
		t.Setenv(name, value)
	}
	for args, want := range map[string]string{
		"psp":                     "ORDERGATE_PROVIDER_SECRET is not set",
		"psp -faults rubbish":     `invalid value "rubbish" for flag -faults: there is no fault "rubbish"; there are timeout, error`,
		"psp -faults timeout=2":   `invalid value "timeout=2" for flag -faults: timeout="2": a share from 0 to 1 is needed`,
		"psp -seed x":             `invalid value "x" for flag -seed`,
		"psp -faults late=1 more": `does not take "more"`,
	} {
		var out bytes.Buffer
		if err := Main(t.Context(), strings.Fields(args), nil, &out, &out); err == nil || !strings.Contains(err.Error(), want) || out.Len() > 0 {
			t.Errorf("%s: %v, want %q\n%s", args, err, want, &out)
		}
	}
}

// TestOrigins: an origin that no browser sends is refused, because CORS would fail without a word.
func TestOrigins(t *testing.T) {
	for value, good := range map[string]bool{
		"": true, "*": true, "localhost": true, "https://shop.example,localhost": true, "http://localhost:3000": true, "https://shop.example,http://[::1]:3000": true, "capacitor://localhost": true,
		"localhost:3000": false, "http://localhost:3000/": false, "https://shop.example,https://shop.example/x": false, "https://Shop.example": false,
		"HTTPS://shop.example": false, "https://shop.example:443": false, "http://shop.example:80": false, "shop.example": false, "null": false,
		"https://": false, "https://shop.example, https://other.example": false, "https://user@shop.example": false, "https://*.shop.example": false,
	} {
		c, err := ReadConfig([]string{"ORDERGATE_ORIGINS=" + value}, nil)
		if err = errors.Join(err, Check(c, "run")); (err == nil) != good {
			t.Errorf("%s: %v", value, err)
		}
	}
}

// TestLocalURL: what `ordergate run` prints can be used as it stands.
func TestLocalURL(t *testing.T) {
	for addr, want := range map[string]string{
		"0.0.0.0:9080": "127.0.0.1", "[::]:9080": "127.0.0.1", "127.0.0.2:9080": "127.0.0.2", "[::1]:9080": "[::1]",
	} {
		if got := localURL(addr); got != "http://"+want+":9080" {
			t.Errorf("%s is printed as %s", addr, got)
		}
	}
}

// TestTakenAddresses: a port of the API that is taken ends the start with an example to copy, the simulator says why it goes elsewhere.
func TestTakenAddresses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var said []string
	say := func(line string) { said = append(said, line) }
	taken, free := l.Addr().String(), "127.0.0.1:0"
	for _, c := range []Config{{Addr: taken, AdminAddr: free, PSPAddr: free}, {Addr: free, AdminAddr: taken, PSPAddr: free}} {
		err := takeAddresses(t.Context(), &c, say)
		if err == nil || !strings.Contains(err.Error(), "ORDERGATE_ADDR=127.0.0.1:9080 ORDERGATE_ADMIN_ADDR=127.0.0.1:9081 make run") || len(said) > 0 {
			t.Errorf("%v %q", err, said)
		}
	}
	c := Config{Addr: free, AdminAddr: ":0", PSPAddr: taken}
	if err := takeAddresses(t.Context(), &c, say); err != nil || c.PSPAddr == taken || "http://"+c.PSPAddr != c.PSPURL ||
		len(said) != 1 || !strings.Contains(said[0], "ORDERGATE_PSP_ADDR: listen tcp "+taken) {
		t.Errorf("%v %+v %q", err, c, said)
	}
	if strings.HasSuffix(c.Addr, ":0") || strings.HasSuffix(c.AdminAddr, ":0") || !strings.HasPrefix(localURL(c.AdminAddr), "http://127.0.0.1:") {
		t.Error("the address is not known:", c.Addr, c.AdminAddr)
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

// TestALoopSurvivesAPanic: a round that panics is logged, and the next one runs.
func TestALoopSurvivesAPanic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.ErrorLevel)
		c := &Components{tel: &telemetry.Telemetry{Log: zap.New(core)}}
		ctx, stop := context.WithCancel(t.Context())
		rounds := 0
		if err := c.keepRunning(ctx, func(context.Context) {
			if rounds++; rounds == 3 {
				stop()
				return
			}
			panic("a bug")
		}); err != nil || rounds != 3 || logs.Len() != 2 {
			t.Error(err, rounds, logs.Len())
		}
	})
}

// TestHealthMetrics: /metrics has the figures of /readyz, and no label has a space.
func TestHealthMetrics(t *testing.T) {
	t.Parallel()
	g := startGateway(t, func(c *Config, _ *pgtest.DB) {
		c.ReplicaURLs = append(c.ReplicaURLs, "postgres://ordergate@127.0.0.1:1/ordergate")
	})
	g.stock("A", 10)
	g.do("POST", "/v1/orders", draft("A", 1, "pm_ok"))
	until(t, "the replica is measured", func() bool {
		_, _, err := g.components.Queries.ReplicaLag(0)
		return err == nil
	})
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
	if used := got["ordergate_replica_used replica_1"]; used != 1 {
		t.Error("the replica is used:", used)
	}
	if used, ok := got["ordergate_replica_used replica_2"]; used != 0 || !ok {
		t.Error("a replica that does not answer is used:", used, ok)
	}
}
