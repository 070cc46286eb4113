// Package app puts the components together: it alone knows all of them.
package app

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/ordergate/ordergate/internal/devstack"
	"github.com/ordergate/ordergate/internal/failpoint"
	"github.com/ordergate/ordergate/internal/panics"
	"github.com/ordergate/ordergate/internal/psp"
	"github.com/ordergate/ordergate/internal/telemetry"
)

// subcommand is a row of the table that Main dispatches by. setup declares the flags and returns the function that runs.
type subcommand struct {
	name  string // one or two words
	args  string // names of the arguments behind it; one in brackets may be left out
	help  string // one line
	setup func(*flag.FlagSet) runner
}

type runner func(context.Context, process) error

// process is the input of a runner.
type process struct {
	cfg    Config
	args   []string
	stdin  io.Reader
	stdout io.Writer
	logs   io.Writer
}

var subcommands = []subcommand{
	{"run", "", "everything on this machine: PostgreSQL with a replica, Redis, payment simulator, API, worker", withoutFlags(run)},
	{"serve", "", "the API", serve},
	{"worker", "", "relay, consumers, saga steps", withoutFlags(func(ctx context.Context, proc process) error {
		return proc.withComponents(ctx, true, func(ctx context.Context, c *Components) error { return c.Work(ctx) })
	})},
	{"migrate", "", "brings the database to the newest schema", migrate},
	{"psp", "", "the payment provider simulator", simulate},
	{"keys create", "", "makes an API key and prints its text, once", createKey},
	{"keys list", "", "lists the API keys", withoutFlags(listKeys)},
	{"keys limit", "KEY_ID", "changes how many requests an API key may make, within seconds", limitKey},
	{"keys revoke", "KEY_ID", "ends an API key, within seconds", withoutFlags(revokeKey)},
	{"keys rotate", "KEY_ID", "makes a new API key in place of one that goes on for a while", rotateKey},
	{"coupons create", "CODE", "makes a coupon with one discount, and conditions and limits of its use", createCoupon},
	{"coupons list", "", "lists the coupons and how often they are used", withoutFlags(listCoupons)},
	{"coupons disable", "CODE", "ends a coupon: no new order can use it", disableCoupon},
	{"parked list", "", "lists messages that could not be handled, with their causes", listParked},
	{"parked show", "ID", "shows a parked message, its payload and what waits behind it", showParked},
	{"parked retry", "[ID]", "sends parked messages again: one and those that wait behind it, those of an order, or all", retryParked},
	{"parked drop", "ID", "deletes a parked message, which is never handled then; asks first", dropParked},
	{"verify", "", "looks whether orders, stock, payments and messages fit together; changes nothing", verifyAll},
	{"replay", "", "rebuilds orders, payments, refunds, shipments and stock from their events, while orders come in", withoutFlags(replayAll)},
	{"export", "", "writes what is kept of a customer to stdout, as JSON; changes nothing", exportCustomer},
	{"erase", "", "erases the shipping addresses of a customer's orders; asks first", eraseCustomer},
	{"contract", "", "tests any address against the contract: no Go needed. Exit status 0 passed, 1 failed, 2 could not run", testContract},
	{"probe", "URL", "succeeds if a GET of the URL is answered 200 within 3 s, for health checks", withoutFlags(probe)},
	{"version", "", "prints what was built", withoutFlags(version)},
}

// neededFlags are those that a subcommand cannot do without.
var neededFlags = map[string][]string{
	"contract": {"url", "key"}, "coupons create": {"account"}, "coupons disable": {"account"},
	"erase": {"customer"}, "export": {"customer"}, "keys create": {"account"}, "keys limit": {"rate"},
}

// serve is `ordergate serve`.
func serve(flags *flag.FlagSet) runner {
	faults := flags.Bool("faults", false, "requests of test keys may ask for failures (docs/running.md); never in production")
	return func(ctx context.Context, proc process) error {
		if *faults && proc.cfg.Env == production {
			return errors.New("-faults lets requests fail on purpose: it is refused in production, set ORDERGATE_ENV=development")
		}
		return proc.withComponents(ctx, false, func(ctx context.Context, c *Components) error {
			c.faults = *faults
			return c.serve(ctx, nil, "", func() {})
		})
	}
}

func withoutFlags(run runner) func(*flag.FlagSet) runner {
	return func(*flag.FlagSet) runner { return run }
}

// Main runs a subcommand until it is done or ctx ends. Logs go to stderr as JSON lines, output for a person to stdout.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if len(args) == 0 || isHelp(args[0]) {
		_, err := fmt.Fprintf(stdout, "Ordergate, an API gateway for orders.\n\n%s\n"+
			"-h behind a subcommand lists its flags. Settings come from the environment: docs/running.md\n", usage(""))
		return err
	}
	if args[0] == "--version" {
		args = []string{"version"}
	}
	i := slices.IndexFunc(subcommands, func(s subcommand) bool { return strings.HasPrefix(strings.Join(args, " ")+" ", s.name+" ") })
	if i < 0 {
		group := usage(args[0] + " ")
		if group != "" && isHelp(args[len(args)-1]) && len(args) == 2 {
			_, err := io.WriteString(stdout, group)
			return err
		}
		return fmt.Errorf("no subcommand %q, there are\n%s", strings.Join(args, " "), cmp.Or(group, usage("")))
	}
	sub := subcommands[i]
	flags := flag.NewFlagSet("ordergate "+sub.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	run := sub.setup(flags)
	positional, err := sub.parse(flags, args[len(strings.Fields(sub.name)):])
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(stdout, "%s: %s\n", sub.synopsis(flags), sub.help)
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		return nil
	}
	if err != nil {
		return sub.failure(fmt.Errorf("%w\nusage: %s", err, sub.synopsis(flags)))
	}
	cfg, err := ReadConfig(os.Environ(), defaults[sub.name])
	if err = errors.Join(err, Check(cfg, sub.name), failpoint.Arm(cfg.Failpoints)); err == nil {
		err = run(ctx, process{cfg, positional, stdin, stdout, stderr})
	}
	err = sub.failure(err)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil && ExitStatus(err) == 1 {
		err = nil // it was asked to stop
	}
	return err
}

// failure marks the errors of `verify` and `contract` that are no violations: they did not see that all is well.
func (s subcommand) failure(err error) error {
	if err != nil && s.name == "verify" && !errors.Is(err, errViolations) {
		err = fmt.Errorf("%w: %w", errCannotVerify, err)
	}
	if err != nil && s.name == "contract" && !errors.Is(err, errBroken) && !errors.Is(err, errContract) {
		err = fmt.Errorf("%w: %w", errContract, err)
	}
	return err
}

// ExitStatus is the status of a process that ends with an error of Main: 2 if `verify` could not look or `contract` not run, else 1.
func ExitStatus(err error) int {
	if errors.Is(err, errCannotVerify) || errors.Is(err, errContract) {
		return 2
	}
	return 1
}

func isHelp(arg string) bool { return slices.Contains([]string{"help", "-h", "-help", "--help"}, arg) }

// usage lists the subcommands whose names begin with prefix; without any it is empty.
func usage(prefix string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, s := range subcommands {
		if strings.HasPrefix(s.name, prefix) {
			fmt.Fprintf(w, "  ordergate %s\t%s\n", strings.TrimSpace(s.name+" "+s.args), s.help)
		}
	}
	_ = w.Flush()
	return b.String()
}

func (s subcommand) synopsis(flags *flag.FlagSet) string {
	words := append([]string{"ordergate", s.name}, strings.Fields(s.args)...)
	needed := neededFlags[s.name]
	for _, name := range needed {
		value, _ := flag.UnquoteUsage(flags.Lookup(name))
		words = append(words, "-"+name, value)
	}
	flags.VisitAll(func(f *flag.Flag) {
		if !slices.Contains(needed, f.Name) {
			words = append(words, "[-"+f.Name+"]")
		}
	})
	return strings.Join(words, " ")
}

// parse reads flags and arguments in any order. An argument with a control character, or that is no UTF-8, cannot be what is meant, and
// PostgreSQL would refuse it in the middle of the work.
func (s subcommand) parse(flags *flag.FlagSet, args []string) (positional []string, err error) {
	for _, arg := range args {
		if !utf8.ValidString(arg) || strings.ContainsFunc(arg, unicode.IsControl) {
			return nil, fmt.Errorf("ordergate %s does not take %q: an argument is UTF-8 without control characters", s.name, arg)
		}
	}
	for err = flags.Parse(args); err == nil && flags.NArg() > 0; err = flags.Parse(flags.Args()[1:]) {
		positional = append(positional, flags.Arg(0))
	}
	names := strings.Fields(s.args)
	required := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return strings.HasPrefix(name, "[") })
	switch {
	case err != nil:
		return nil, expected(flags, err)
	case len(positional) > len(names):
		return nil, fmt.Errorf("ordergate %s does not take %q", s.name, positional[len(names)])
	case len(positional) < len(required):
		return nil, fmt.Errorf("ordergate %s needs %s", s.name, required[len(positional)])
	}
	return positional, nil
}

// expected says what a flag takes where package flag says "parse error" alone.
func expected(flags *flag.FlagSet, err error) error {
	said, parsed := strings.CutSuffix(err.Error(), ": parse error")
	if !parsed {
		return err
	}
	flags.VisitAll(func(f *flag.Flag) {
		value, typed := f.Value.(flag.Getter)
		if !typed || !strings.HasSuffix(said, " -"+f.Name) {
			return
		}
		form := "a whole number"
		switch value.Get().(type) {
		case time.Duration:
			form = "a duration such as 30s or 16m"
		case uint, uint64:
			form = "a whole number from 0 on"
		case bool:
			form = "true or false"
		}
		err = fmt.Errorf("%s: expected %s", said, form)
	})
	return err
}

// withTelemetry runs fn, and logs that it was asked to stop, with the signal, and that it stopped. A reader of the logs that goes away does not end
// the process: by default SIGPIPE would.
func (proc process) withTelemetry(ctx context.Context, fn func(*telemetry.Telemetry) error) error {
	broken := make(chan os.Signal, 1) // nobody reads it; ignoring the signal would be inherited by child processes
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	tel, err := telemetry.New(ctx, os.Getenv, proc.cfg.LogLevel, proc.logs)
	if err != nil {
		return err
	}
	defer keepLines(tel)() // until Close has written the last lines
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		tel.Close(ctx)
	}()
	log.SetFlags(0)
	log.SetOutput(stdLog{tel.Log})
	logged := make(chan struct{})
	unasked := context.AfterFunc(ctx, func() {
		defer panics.Sync(tel.Log)
		defer close(logged)
		tel.Log.Info("stopping", zap.String("cause", context.Cause(ctx).Error()))
		_ = tel.Log.Sync() // a second signal may end it at once
	})
	err = fn(tel)
	if !unasked() {
		<-logged
	}
	if err != nil && (ctx.Err() == nil || !errors.Is(err, context.Canceled)) {
		tel.Log.Error("stopped", zap.Error(err))
	} else {
		tel.Log.Info("stopped")
	}
	return err
}

// lastWrite is how long the lines of the log may take to be written before the process ends without them: their reader may stand still, and
// the stacks may be wanted for that.
const lastWrite = time.Second

// keepLines has the lines of the log written before SIGQUIT or SIGABRT has Go's runtime print all stacks and end the process, until the
// function that it returns is called: of a signal that came before that, it does not return. A second such signal is the runtime's at once.
func keepLines(tel *telemetry.Telemetry) (stop func()) {
	signals, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, syscall.SIGQUIT, syscall.SIGABRT)
	go func() {
		defer panics.Sync(tel.Log)
		defer close(done)
		s, came := <-signals
		if !came {
			return
		}
		signal.Reset(syscall.SIGQUIT, syscall.SIGABRT)
		self, _ := os.FindProcess(os.Getpid())
		end := func() {
			_ = self.Signal(s)
			select {}
		}
		time.AfterFunc(lastWrite, end)
		tel.Last(end)
	}()
	return func() {
		signal.Stop(signals) // it sends nothing any more; what it has sent is received before the end of the channel
		close(signals)
		<-done
	}
}

// stdLog writes messages of libraries to our log. It cuts the bytes off that net/http adds when a provider sends some unasked:
// they may be personal data.
type stdLog struct{ log *zap.Logger }

func (l stdLog) Write(b []byte) (int, error) {
	text, _, _ := strings.Cut(string(b), " starting with ")
	l.log.Warn("library", zap.String("message", text[:min(len(text), 200)]))
	return len(b), nil
}

// withComponents runs fn with the configuration's components and the admin listener beside it. When ctx ends, the admin listener
// outlives fn, so that a balancer sees the process stop.
func (proc process) withComponents(ctx context.Context, worker bool, fn func(context.Context, *Components) error) error {
	return proc.withTelemetry(ctx, func(tel *telemetry.Telemetry) error {
		tel.Log.Info("configuration", zap.Any("settings", proc.cfg.Masked()), zap.Any("memory", tuneGC(os.Getenv, os.DirFS("/"))))
		c, err := Assemble(ctx, proc.cfg, tel)
		if err != nil {
			return err
		}
		defer c.Close()
		outlive, stop := context.WithCancel(context.WithoutCancel(ctx))
		defer stop()
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error {
			defer panics.Sync(tel.Log)
			return c.admin(outlive, ctx.Err, worker)
		})
		g.Go(func() error {
			defer panics.Sync(tel.Log)
			defer stop()
			return fn(ctx, c)
		})
		return g.Wait()
	})
}

func simulate(flags *flag.FlagSet) runner {
	var faults psp.Faults
	flags.Func("faults", "`LIST` of faults that happen by themselves, such as timeout=0.2,error=0.1,double=0.1,late=0.05,"+
		"callback-lost=0.2,callback-double=0.2,callback-delay=2s", func(text string) (err error) {
		faults, err = psp.ParseFaults(text)
		return err
	})
	seed := flags.Uint64("seed", 1, "`NUMBER` that decides, with its key, which operation meets which fault")
	return func(ctx context.Context, proc process) error {
		faults.Seed = *seed
		return proc.simulate(ctx, faults)
	}
}

func (proc process) simulate(ctx context.Context, faults psp.Faults) error {
	l, err := listen(ctx, "ORDERGATE_PSP_ADDR", proc.cfg.PSPAddr)
	if err != nil {
		return err
	}
	defer l.Close()
	return proc.withTelemetry(ctx, func(tel *telemetry.Telemetry) error {
		s, err := psp.New(psp.Config{ //nolint:contextcheck // Close ends its callbacks
			Dir: proc.cfg.PSPDir, CallbackURL: proc.cfg.PSPCallbackURL, CallbackSecret: proc.cfg.ProviderSecret, Faults: faults, Log: tel.Log,
		})
		if err != nil {
			return fmt.Errorf("cannot open the ledger in ORDERGATE_PSP_DIR: %w", err)
		}
		file := filepath.Join(proc.cfg.PSPDir, "psp.test") // a full disk shows now, not at the first payment
		if err = devstack.WriteFile(file, make([]byte, 4096)); err != nil {
			err = fmt.Errorf("cannot write in ORDERGATE_PSP_DIR: %w", devstack.DiskFull(proc.cfg.PSPDir, err))
		} else {
			tel.Log.Info("listening", zap.String("provider", l.Addr().String()), zap.String("ledger", proc.cfg.PSPDir),
				zap.String("callback_url", proc.cfg.PSPCallbackURL), zap.Any("faults", faults))
			err = errors.Join(os.Remove(file), s.Serve(ctx, l))
		}
		return errors.Join(err, s.Close())
	})
}

// probe is `ordergate probe`, the health check of an image that has no shell.
func probe(ctx context.Context, proc process) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return get(ctx, proc.args[0], proc.stdout)
}

// get fails unless a GET of url is answered 200. The beginning of the response goes to out.
func get(ctx context.Context, url string, out io.Writer) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(out, io.LimitReader(res.Body, 4000))
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}

func version(_ context.Context, proc process) error {
	build, _ := debug.ReadBuildInfo()
	_, err := fmt.Fprintln(proc.stdout, "ordergate", build.Main.Version, build.GoVersion)
	return err
}
