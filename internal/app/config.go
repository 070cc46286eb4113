package app

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap/zapcore"

	"github.com/ordergate/ordergate/internal/edge"
	"github.com/ordergate/ordergate/internal/telemetry"
	"github.com/ordergate/ordergate/query"
)

// Config is everything that can be set, read once from the environment. Durations are Go's ("30s").
type Config struct {
	Env            string        `env:"ORDERGATE_ENV" envDefault:"production"`            // production or development: how loudly it fails, and whether it may fail on purpose
	Addr           string        `env:"ORDERGATE_ADDR" envDefault:"127.0.0.1:8080"`       // of the API
	AdminAddr      string        `env:"ORDERGATE_ADMIN_ADDR" envDefault:"127.0.0.1:8081"` // of /livez, /readyz, /metrics, /debug/pprof
	PrimaryURL     string        `env:"ORDERGATE_PRIMARY_URL" mask:"true"`                // as a member of ordergate_app; migrate: the owner
	ReplicaURLs    []string      `env:"ORDERGATE_REPLICA_URLS" mask:"true"`               // comma separated; none: reads go to the primary
	RedisURL       string        `env:"ORDERGATE_REDIS_URL" mask:"true"`                  // of one Redis, a Cluster or Sentinels; none: that tier is left out
	RedisPrefix    string        `env:"ORDERGATE_REDIS_PREFIX" envDefault:"og:"`          // of every key and channel
	PSPURL         string        `env:"ORDERGATE_PSP_URL" mask:"true"`                    // the payment provider
	Secret         string        `env:"ORDERGATE_SECRET" mask:"true"`                     // signs ids, tokens and cursors; never changes
	ProviderSecret string        `env:"ORDERGATE_PROVIDER_SECRET" mask:"true"`            // signs the provider's callbacks
	Origins        []string      `env:"ORDERGATE_ORIGINS"`                                // allowed by CORS, comma separated
	PaymentTimeout time.Duration `env:"ORDERGATE_PAYMENT_TIMEOUT" envDefault:"30s"`       // of an authorization
	ReservationTTL time.Duration `env:"ORDERGATE_RESERVATION_TTL" envDefault:"15m"`       // how long stock is held for an unconfirmed order
	PSPAddr        string        `env:"ORDERGATE_PSP_ADDR" envDefault:"127.0.0.1:8090"`   // of `ordergate psp`
	PSPDir         string        `env:"ORDERGATE_PSP_DIR" envDefault:".ordergate/psp"`    // where it keeps its ledger
	PSPCallbackURL string        `env:"ORDERGATE_PSP_CALLBACK_URL" mask:"true"`           // where it posts outcomes; empty: nowhere
	DataDir        string        `env:"ORDERGATE_DATA_DIR"`                               // of `ordergate run`; empty: see docs/running.md
	DrainDelay     time.Duration `env:"ORDERGATE_DRAIN_DELAY" envDefault:"2s"`            // from a failing /readyz to the end of listening
	LogLevel       zapcore.Level `env:"ORDERGATE_LOG_LEVEL" envDefault:"info"`            // debug, info, warn, error
	MaxConnections int32         `env:"ORDERGATE_PRIMARY_CONNECTIONS" envDefault:"32"`    // to the primary, of API and worker each
	Console        *bool         `env:"ORDERGATE_CONSOLE"`                                // whether /console is served; nil: in development
	Key            string        `env:"ORDERGATE_KEY" mask:"true"`                        // of `ordergate contract`: an API key
	Failpoints     string        `env:"ORDERGATE_FAILPOINTS"`                             // where it fails on purpose, if it is built to
}

// ReadConfig reads an environment of NAME=VALUE. A name that is not set there has its value from defaults, else from the tags above.
func ReadConfig(environ []string, defaults map[string]string) (Config, error) {
	set := env.ToMap(environ)
	for name, value := range defaults {
		set[name] = cmp.Or(set[name], value)
	}
	c, err := env.ParseAsWithOptions[Config](env.Options{Environment: set})
	if all, ok := errors.AsType[env.AggregateError](err); ok {
		for i, e := range all.Errors {
			if e, ok := errors.AsType[env.ParseError](e); ok {
				field, _ := reflect.TypeFor[Config]().FieldByName(e.Name)
				name := field.Tag.Get("env")
				all.Errors[i] = fmt.Errorf("cannot parse %s: %w", name, e.Err)
				delete(set, name) // it has its default then, which no later check complains of
			}
		}
		err = errors.Join(all.Errors...)
		c, _ = env.ParseAsWithOptions[Config](env.Options{Environment: set})
	}
	return c, err
}

// The values of ORDERGATE_ENV.
const production, development = "production", "development"

// showsConsole: the console is a demo. In production it is there if it is asked for.
func (c Config) showsConsole() bool {
	if c.Console != nil {
		return *c.Console
	}
	return c.Env == development
}

// minSecret is 256 bits in hex, the strength of the HMACs made with it.
const minSecret = 64

// Check returns everything at once that keeps a subcommand from starting with c. `run` has servers and a secret of its own.
func Check(c Config, subcommand string) error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	is := func(names ...string) bool { return slices.Contains(names, subcommand) }
	need := func(name, value string, schemes ...string) {
		u, err := url.Parse(value)
		switch {
		case value == "":
			fault("%s is not set: a %s URL", name, strings.Join(schemes, " or "))
			return
		case schemes[0] == "redis":
			if err := query.CheckRedis(value); err != nil {
				fault("cannot parse %s: %w. Its forms stand in docs/running.md", name, err)
			}
			return
		case err == nil && schemes[0] == "postgres":
			_, err = pgxpool.ParseConfig(value)
		}
		if err != nil || !slices.Contains(schemes, u.Scheme) || schemes[0] == "http" && u.Host == "" { // err may hold the password
			fault("cannot parse %s: its form (a %s URL), a parameter or a file that it names is wrong", name, strings.Join(schemes, " or "))
		}
	}
	group, _, _ := strings.Cut(subcommand, " ")
	operates := is("verify", "replay", "export", "erase") || slices.Contains([]string{"keys", "coupons", "parked"}, group)
	running := c.PrimaryURL == "" && operates // it works on the stack of `run`
	if is("serve", "worker", "migrate") || operates && !running {
		need("ORDERGATE_PRIMARY_URL", c.PrimaryURL, "postgres", "postgresql")
	}
	if is("serve", "worker") {
		for _, r := range c.ReplicaURLs {
			need("ORDERGATE_REPLICA_URLS", r, "postgres", "postgresql")
		}
		if c.RedisURL != "" {
			need("ORDERGATE_REDIS_URL", c.RedisURL, query.RedisSchemes...)
		}
	}
	if is("worker") || is("verify") && c.PSPURL != "" {
		need("ORDERGATE_PSP_URL", c.PSPURL, "http", "https")
	}
	if (is("serve", "worker") || is("keys create", "keys rotate", "erase") && !running) && len(c.Secret) < minSecret {
		fault("ORDERGATE_SECRET needs %d characters at least, the same in all processes: openssl rand -hex 32", minSecret)
	}
	if is("serve", "worker", "psp") && c.ProviderSecret != "" && len(c.ProviderSecret) < minSecret {
		fault("ORDERGATE_PROVIDER_SECRET needs %d characters at least, the same as the provider's: openssl rand -hex 32", minSecret)
	}
	if is("psp") && c.PSPCallbackURL != "" {
		need("ORDERGATE_PSP_CALLBACK_URL", c.PSPCallbackURL, "http", "https")
		if c.ProviderSecret == "" {
			fault("ORDERGATE_PROVIDER_SECRET is not set: ORDERGATE_PSP_CALLBACK_URL needs it, to sign callbacks")
		}
	}
	if is("run", "serve", "worker") {
		if c.Env != production && c.Env != development {
			fault("ORDERGATE_ENV must be %s or %s", production, development)
		}
		for _, o := range c.Origins { // of another form, it would never equal what a browser sends
			u, err := url.Parse(o)
			if o != "*" && o != edge.Localhost && (err != nil || u.Host == "" || strings.Contains(o, "*") || o != u.Scheme+"://"+strings.ToLower(u.Host) ||
				slices.Contains([]string{"http:80", "https:443"}, u.Scheme+":"+u.Port())) {
				fault("ORDERGATE_ORIGINS: %q must be scheme://host or scheme://host:port, in small letters and without the usual port, or %s, or *", o, edge.Localhost)
			}
		}
		if c.PaymentTimeout < time.Second || c.ReservationTTL < time.Second {
			fault("ORDERGATE_PAYMENT_TIMEOUT and ORDERGATE_RESERVATION_TTL need one second at least")
		}
		if c.MaxConnections < 16 {
			fault("ORDERGATE_PRIMARY_CONNECTIONS needs 16 at least")
		}
		_, err := telemetry.Exports(os.Getenv)
		faults = append(faults, err, checkGC(os.Getenv))
	}
	listeners := map[string]map[string]string{
		"run":    {"ORDERGATE_ADDR": c.Addr, "ORDERGATE_ADMIN_ADDR": c.AdminAddr, "ORDERGATE_PSP_ADDR": c.PSPAddr},
		"serve":  {"ORDERGATE_ADDR": c.Addr, "ORDERGATE_ADMIN_ADDR": c.AdminAddr},
		"worker": {"ORDERGATE_ADMIN_ADDR": c.AdminAddr},
		"psp":    {"ORDERGATE_PSP_ADDR": c.PSPAddr},
	}
	return errors.Join(append(faults, checkAddresses(listeners[subcommand]))...)
}

// checkAddresses refuses listeners that would take each other's port, however the address is written.
func checkAddresses(listeners map[string]string) error {
	var faults []error
	resolved := map[string]*net.TCPAddr{}
	everywhere := func(a *net.TCPAddr) bool { return a.IP == nil || a.IP.IsUnspecified() }
	for _, name := range slices.Sorted(maps.Keys(listeners)) {
		addr, err := net.ResolveTCPAddr("tcp", listeners[name])
		if err != nil {
			faults = append(faults, fmt.Errorf("cannot parse %s, which has the form 127.0.0.1:9080: %w", name, err))
			continue
		}
		for other, o := range resolved {
			if addr.Port != 0 && addr.Port == o.Port && (addr.IP.Equal(o.IP) || everywhere(addr) || everywhere(o)) {
				faults = append(faults, fmt.Errorf("%s and %s are the same address: %s and %s", other, name, listeners[other], listeners[name]))
			}
		}
		resolved[name] = addr
	}
	return errors.Join(faults...)
}

// Masked is the configuration for the log: secrets and addresses that may hold passwords are starred.
func (c Config) Masked() map[string]any {
	m := map[string]any{}
	v := reflect.ValueOf(c)
	for i, f := range reflect.VisibleFields(v.Type()) {
		value := v.Field(i).Interface()
		if f.Tag.Get("mask") != "" && !v.Field(i).IsZero() {
			value = "***"
		}
		if d, ok := value.(time.Duration); ok {
			value = d.String()
		}
		m[f.Tag.Get("env")] = value
	}
	return m
}
