// Package deploy holds the files that run Ordergate in containers. Its tests read these files as Docker would, but need no Docker.
package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/ordergate/ordergate/internal/app"
)

// root is the project's folder.
const root = ".."

func TestCompose(t *testing.T) {
	quiet(t)
	file := read(t, root, "compose.yaml")
	for _, fault := range composeFaults(t, file) {
		t.Error(fault)
	}
	// Each case replaces old by new in the file, and has a fault.
	for _, c := range []struct{ name, old, new, fault string }{
		{"a service is missing", "\n  redis: #", "\n  cache: #", `depends on undefined service "redis"`},
		{"an unknown setting", "ORDERGATE_PSP_DIR:", "ORDERGATE_PSP_FOLDER:", "psp: ORDERGATE_PSP_FOLDER is no setting"},
		{"a setting of a wrong type", "ORDERGATE_ADDR: 0.0.0.0:8080", "ORDERGATE_PAYMENT_TIMEOUT: soon", `serve: env: parse error on field "PaymentTimeout"`},
		{"a setting is missing", "  ORDERGATE_PRIMARY_URL: *primary-url\n  ORDERGATE_REPLICA_URLS", "  ORDERGATE_REPLICA_URLS", "serve: ORDERGATE_PRIMARY_URL is not set"},
		{"the worker has no provider", "      ORDERGATE_PSP_URL: http://psp:8090\n", "", "worker: ORDERGATE_PSP_URL is not set"},
		{"the secret is too short", "this-secret-stands-in-a-public-file-set-ORDERGATE_SECRET", "", "serve: ORDERGATE_SECRET needs 64 characters"},
		{"another secret", "ORDERGATE_SECRET: *secret # for the sample and `keys`", "ORDERGATE_SECRET: " + strings.Repeat("b", 64), "has another ORDERGATE_SECRET"},
		{"no secret", "      ORDERGATE_SECRET: *secret # for the sample and `keys`\n", "", "migrate has another ORDERGATE_SECRET"},
		{"the secret cannot be set", "${ORDERGATE_SECRET:-for-local-use-only-this", "for-local-use-only-this", "does not take ORDERGATE_SECRET from the environment"},
		{"another secret of the provider", "ORDERGATE_PROVIDER_SECRET: *provider-secret\n    volumes", "ORDERGATE_PROVIDER_SECRET: " + strings.Repeat("b", 64) + "\n    volumes", "serve has another ORDERGATE_PROVIDER_SECRET than psp"},
		{"no secret of the provider", "      ORDERGATE_PROVIDER_SECRET: *provider-secret\n    volumes", "    volumes", "psp: ORDERGATE_PROVIDER_SECRET is not set"},
		{"the secret of the provider cannot be set", "${ORDERGATE_PROVIDER_SECRET:-for-local-use-only-this", "for-local-use-only-this", "does not take ORDERGATE_PROVIDER_SECRET from the environment"},
		{"callbacks lead nowhere", "http://serve:8080/v1", "http://gateway:8080/v1", "psp: ORDERGATE_PSP_CALLBACK_URL: there is no service gateway"},
		{"callbacks to a wrong port", "http://serve:8080/v1", "http://serve:8081/v1", "psp: ORDERGATE_PSP_CALLBACK_URL: serve listens on 0.0.0.0:8080"},
		{"a password cannot be set", "POSTGRES_PASSWORD: ${POSTGRES_PASSWORD:-for-local-use-only} # counts", "POSTGRES_PASSWORD: for-local-use-only # counts", "primary: POSTGRES_PASSWORD does not reach"},
		{"an unknown subcommand", "command: [worker]", "command: [work]", `no subcommand "work"`},
		{"an unknown flag", "-sample, demo", "-samples, demo", "migrate: flag provided but not defined"},
		{"a wrong host", "@replica:5432", "@standby:5432", "serve: ORDERGATE_REPLICA_URLS: there is no service standby"},
		{"a wrong port of the provider", "http://psp:8090\n", "http://psp:8091\n", "worker: ORDERGATE_PSP_URL: psp listens on 0.0.0.0:8090"},
		{"listens on loopback", "ORDERGATE_ADDR: 0.0.0.0", "ORDERGATE_ADDR: 127.0.0.1", "serve: its port 8080 is published, it listens on 127.0.0.1:8080"},
		{"probes a wrong port", `"http://127.0.0.1:8081/readyz"`, `"http://127.0.0.1:8080/readyz"`, "probes 127.0.0.1:8080"},
		{"root", `  user: "65532:65532"`, `  user: "0:0"`, "psp runs as root"},
		{"no user", `    user: "999:1000"` + "\n", "", "redis runs as root"},
		{"a moving image", "redis:7.2.8-alpine", "redis:latest", "redis: image redis:latest is not pinned"},
		{"an image without a tag", "postgres:15.14-alpine3.22", "postgres", "primary: image postgres is not pinned"},
		{"can write", "  read_only: true\n  stop_grace_period", "  stop_grace_period", "serve can write to its image"},
		{"keeps capabilities", "  cap_drop: [ALL]\n", "", "serve keeps capabilities"},
		{"new privileges", "no-new-privileges:true", "no-new-privileges:false", "serve may gain privileges"},
		{"hasty stop", "stop_grace_period: 30s", "stop_grace_period: 10s", "worker has too little time to stop"},
		{"a second published port", "    command: [worker]\n", "    command: [worker]\n    ports: [\"8081:8081\"]\n", "worker publishes a port"},
		{"the database is published", "  replica:\n    <<: *postgres\n", "  replica:\n    <<: *postgres\n    ports: [\"5432:5432\"]\n", "replica publishes a port"},
		{"the API is for all to reach", `"127.0.0.1:${SERVE_PORTS`, `"${SERVE_PORTS`, "serve publishes its port to other machines"},
		{"a fixed name cannot be scaled", "    command: [worker]\n", "    command: [worker]\n    container_name: worker\n", "worker cannot be scaled"},
		{"starts too early", "      migrate: {condition: service_completed_successfully}\n      replica", "      migrate: {condition: service_started}\n      replica", "does not wait for migrate: service_completed_successfully"},
		{"migrates too early", `    depends_on:
      primary: {condition: service_healthy}

  serve`, "\n  serve", "migrate does not wait for primary: service_healthy"},
		{"no health check", "redis-cli, ping]", "redis-cli, ping]\n      disable: true", "redis has no health check"},
		{"Redis writes", `--save, ""`, `--save, "60 1"`, "redis keeps data"},
		{"no eviction", "allkeys-lru", "noeviction", "redis keeps data, or does not evict by LRU"},
		{"a replica with less", "    entrypoint: [sh, /replica.sh]\n", "    entrypoint: [sh, /replica.sh]\n    command: [postgres]\n", "primary and replica have different settings"},
		{"the ledger is lost", "- psp:/var/lib/ordergate\n", "- psp:/elsewhere\n", "psp: its ledger is in no volume"},
		{"a missing script", "./deploy/replica.sh", "./deploy/standby.sh", "standby.sh"},
		{"two build one image", "    command: [worker]\n", "    command: [worker]\n    build: .\n", "exactly one service builds"},
		{"pulls what is ours", "  pull_policy: never # migrate builds it\n", "", "serve may pull"},
	} {
		t.Run(c.name, func(t *testing.T) {
			faults := composeFaults(t, replace(t, file, c.old, c.new))
			if !strings.Contains(strings.Join(faults, "\n"), c.fault) {
				t.Errorf("want %q, have %q", c.fault, faults)
			}
		})
	}
}

// ours are the services that run our image, each with the conditions that it waits for.
var ours = map[string]map[string]string{
	"psp":     {},
	"migrate": {"primary": types.ServiceConditionHealthy},
	"serve": {"migrate": types.ServiceConditionCompletedSuccessfully, "replica": types.ServiceConditionHealthy,
		"redis": types.ServiceConditionHealthy},
	"worker": {"migrate": types.ServiceConditionCompletedSuccessfully, "replica": types.ServiceConditionHealthy,
		"redis": types.ServiceConditionHealthy, "psp": types.ServiceConditionHealthy},
}

// composeFaults returns the faults of a compose file.
func composeFaults(t *testing.T, file []byte) (faults []string) {
	t.Helper()
	fault := func(format string, a ...any) { faults = append(faults, fmt.Sprintf(format, a...)) }
	p, err := load(t, file, nil)
	if err != nil {
		return []string{err.Error()}
	}
	for _, name := range []string{"primary", "replica", "redis", "psp", "migrate", "serve", "worker"} {
		if _, ok := p.Services[name]; !ok {
			fault("there is no service %s", name)
		}
	}
	if faults != nil {
		return faults
	}
	builders, configs := 0, map[string]app.Config{}
	for name, s := range p.Services {
		uid, _, _ := strings.Cut(s.User, ":")
		if !regexp.MustCompile(`^[1-9][0-9]*$`).MatchString(uid) {
			fault("%s runs as root, or as a user without a number: %q", name, s.User)
		}
		if !pinned(s.Image) {
			fault("%s: image %s is not pinned", name, s.Image)
		}
		if !slices.Contains(s.CapDrop, "ALL") || len(s.CapAdd) > 0 {
			fault("%s keeps capabilities", name)
		}
		if !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || s.Privileged {
			fault("%s may gain privileges", name)
		}
		if len(s.Ports) > 0 && name != "serve" {
			fault("%s publishes a port", name)
		}
		if name != "migrate" && (s.HealthCheck == nil || s.HealthCheck.Disable || len(s.HealthCheck.Test) < 2) {
			fault("%s has no health check", name)
		}
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeBind {
				if _, err := os.Stat(v.Source); err != nil {
					fault("%s: %v", name, err)
				}
			}
		}
		if waits, is := ours[name]; is {
			if s.Build != nil {
				builders++
			}
			c, err := ourFaults(name, s, waits, fault)
			if err != nil {
				fault("%s: %v", name, err)
			}
			configs[name] = c
		} else if hasOurSettings(s) {
			fault("%s has settings of ours", name)
		}
	}
	if builders != 1 { // two that export one tag at a time fail: "already exists"
		fault("exactly one service builds the image, not %d", builders)
	}
	if err := app.Check(configs["psp"], "psp"); err != nil {
		fault("psp: %v", err)
	}
	for _, name := range []string{"serve", "worker"} {
		if err := app.Check(configs[name], name); err != nil {
			fault("%s: %v", name, err)
		}
		if configs[name].ProviderSecret != configs["psp"].ProviderSecret {
			fault("%s has another ORDERGATE_PROVIDER_SECRET than psp", name)
		}
		if p.Services[name].ContainerName != "" {
			fault("%s cannot be scaled: its container has a name", name)
		}
	}
	for _, name := range []string{"migrate", "worker"} {
		if configs[name].Secret != configs["serve"].Secret {
			fault("%s has another ORDERGATE_SECRET than serve", name)
		}
	}
	faults = append(faults, addressFaults(p, configs)...)
	faults = append(faults, overrideFaults(t, file)...)

	redis := strings.Join(p.Services["redis"].Command, " ")
	for _, want := range []string{"--save  ", "--appendonly no", "--maxmemory ", "--maxmemory-policy allkeys-lru"} {
		if !strings.Contains(redis, want) {
			fault("redis keeps data, or does not evict by LRU: no %q", want)
		}
	}
	// A replica with fewer connections than its primary does not start.
	if !slices.Equal(p.Services["primary"].Command, p.Services["replica"].Command) {
		fault("primary and replica have different settings")
	}
	if !slices.ContainsFunc(p.Services["psp"].Volumes, func(v types.ServiceVolumeConfig) bool {
		return v.Type == types.VolumeTypeVolume && strings.HasPrefix(configs["psp"].PSPDir, v.Target+"/")
	}) {
		fault("psp: its ledger is in no volume")
	}
	return faults
}

// ourFaults reports the faults of a service that runs our image, and returns the service's configuration.
func ourFaults(name string, s types.ServiceConfig, waits map[string]string, fault func(string, ...any)) (app.Config, error) {
	if s.Build == nil && s.PullPolicy != types.PullPolicyNever || s.Build != nil && s.PullPolicy != types.PullPolicyBuild {
		fault("%s may pull an image of our name", name)
	}
	if !s.ReadOnly {
		fault("%s can write to its image", name)
	}
	if s.StopGracePeriod == nil || time.Duration(*s.StopGracePeriod) < 20*time.Second {
		fault("%s has too little time to stop", name)
	}
	for other, condition := range waits {
		if s.DependsOn[other].Condition != condition {
			fault("%s does not wait for %s: %s", name, other, condition)
		}
	}
	if len(s.Entrypoint) > 0 {
		fault("%s replaces the entrypoint", name)
	}
	if err := commandFault(s.Command); err != nil {
		fault("%s: %v", name, err)
	}
	known := settings()
	values := map[string]string{}
	for key, value := range s.Environment {
		if value == nil {
			fault("%s: %s has no value", name, key)
			continue
		}
		if !slices.Contains(known, key) {
			fault("%s: %s is no setting", name, key)
		}
		values[key] = *value
	}
	return env.ParseAsWithOptions[app.Config](env.Options{Environment: values})
}

// commandFault runs a command line without settings and with a context that has ended. It returns errors about the command line only.
func commandFault(args []string) error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := app.Main(ctx, args, nil, io.Discard, io.Discard)
	if len(args) == 0 {
		err = errors.New("no command")
	}
	if err != nil && regexp.MustCompile(`no subcommand|no command|flag`).MatchString(err.Error()) {
		return err
	}
	return nil
}

// quiet unsets all settings, so that the developer's do not change the tests.
func quiet(t *testing.T) {
	t.Helper()
	for _, name := range settings() {
		t.Setenv(name, "")
	}
	t.Setenv("ORDERGATE_PSP_ADDR", "127.0.0.1:0")
	t.Setenv("ORDERGATE_PSP_DIR", t.TempDir())
}

// settings are the names of all our environment variables.
func settings() (names []string) {
	for _, f := range reflect.VisibleFields(reflect.TypeFor[app.Config]()) {
		names = append(names, f.Tag.Get("env"))
	}
	return names
}

func hasOurSettings(s types.ServiceConfig) bool {
	for key := range s.Environment {
		if strings.HasPrefix(key, "ORDERGATE_") {
			return true
		}
	}
	return false
}

// addressFaults returns the addresses that lead nowhere.
func addressFaults(p *types.Project, configs map[string]app.Config) (faults []string) {
	fault := func(format string, a ...any) { faults = append(faults, fmt.Sprintf(format, a...)) }
	for name, c := range configs {
		urls := map[string]string{"ORDERGATE_PRIMARY_URL": c.PrimaryURL, "ORDERGATE_REDIS_URL": c.RedisURL, "ORDERGATE_PSP_URL": c.PSPURL,
			"ORDERGATE_PSP_CALLBACK_URL": c.PSPCallbackURL}
		for _, u := range c.ReplicaURLs {
			urls["ORDERGATE_REPLICA_URLS"] = u
		}
		for setting, text := range urls {
			if text == "" {
				continue
			}
			u, err := url.Parse(text)
			if err != nil {
				fault("%s: %s: %v", name, setting, err)
			} else if _, ok := p.Services[u.Hostname()]; !ok {
				fault("%s: %s: there is no service %s", name, setting, u.Hostname())
			} else if _, port, _ := net.SplitHostPort(configs["psp"].PSPAddr); setting == "ORDERGATE_PSP_URL" && u.Port() != port {
				fault("%s: %s: psp listens on %s", name, setting, configs["psp"].PSPAddr)
			} else if _, port, _ := net.SplitHostPort(configs["serve"].Addr); setting == "ORDERGATE_PSP_CALLBACK_URL" && u.Port() != port {
				fault("%s: %s: serve listens on %s", name, setting, configs["serve"].Addr)
			}
		}
		probed := c.AdminAddr
		if name == "psp" {
			probed = c.PSPAddr
		}
		if name != "migrate" {
			host, port, _ := net.SplitHostPort(probed)
			if host != "0.0.0.0" {
				fault("%s listens on %s, which others in the network do not reach", name, probed)
			}
			check := p.Services[name].HealthCheck
			if check == nil || len(check.Test) != 4 || !slices.Equal(check.Test[:3], []string{"CMD", "/ordergate", "probe"}) {
				fault("%s is not probed", name)
			} else if u, err := url.Parse(check.Test[3]); err != nil || u.Host != "127.0.0.1:"+port {
				fault("%s probes %s, it listens on %s", name, u.Host, probed)
			}
		}
	}
	for _, port := range p.Services["serve"].Ports {
		if addr := configs["serve"].Addr; addr != fmt.Sprintf("0.0.0.0:%d", port.Target) {
			fault("serve: its port %d is published, it listens on %s", port.Target, addr)
		}
		if port.HostIP != "127.0.0.1" { // the secret and the passwords stand in a public file
			fault("serve publishes its port to other machines")
		}
	}
	if len(p.Services["serve"].Ports) != 1 {
		fault("serve publishes %d ports", len(p.Services["serve"].Ports))
	}
	return faults
}

// overrideFaults returns the settings (secret, password, ports) that do not take their value from the environment.
func overrideFaults(t *testing.T, file []byte) (faults []string) {
	t.Helper()
	const secret, password = "another-secret", "another-password"
	p, err := load(t, file, types.Mapping{"ORDERGATE_SECRET": secret, "ORDERGATE_PROVIDER_SECRET": secret, "POSTGRES_PASSWORD": password, "SERVE_PORTS": "8080-8081"})
	if err != nil {
		return []string{err.Error()}
	}
	for name, s := range p.Services {
		for key, value := range s.Environment {
			switch {
			case strings.HasSuffix(key, "_SECRET") && *value != secret:
				faults = append(faults, name+" does not take "+key+" from the environment")
			case (strings.Contains(*value, "postgres:") || strings.HasSuffix(key, "PASSWORD")) && !strings.Contains(*value, password):
				faults = append(faults, fmt.Sprintf("%s: POSTGRES_PASSWORD does not reach %s", name, key))
			}
		}
	}
	if ports := p.Services["serve"].Ports; len(ports) != 1 || ports[0].Published != "8080-8081" {
		faults = append(faults, fmt.Sprintf("SERVE_PORTS gives %v", ports))
	}
	return faults
}

func TestDockerfile(t *testing.T) {
	file, mod := read(t, "Dockerfile"), read(t, root, "go.mod")
	for _, fault := range dockerfileFaults(file, mod) {
		t.Error(fault)
	}
	p, err := load(t, read(t, root, "compose.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name := range ours {
		if user := p.Services[name].User; !bytes.Contains(file, []byte("\nUSER "+user+"\n")) {
			t.Errorf("%s runs as %s, not as the image's user", name, user)
		}
	}
	for _, c := range []struct{ name, old, new, fault string }{
		{"an older Go", "golang:1.26", "golang:1.25", "go.mod wants Go 1.26"},
		{"a moving builder", "golang:1.26-bookworm", "golang", "golang is not pinned"},
		{"a moving base", "static-debian12:nonroot", "static-debian12", "static-debian12 is not pinned"},
		{"root", "USER 65532:65532", "USER 0", "USER 0 is not"},
		{"a user without a number", "USER 65532:65532", "USER nonroot", "USER nonroot is not"},
		{"no user", "USER 65532:65532\n", "", "USER  is not"},
		{"another package", "-o /out/ordergate . ", "-o /out/ordergate ./cmd ", "does not build ."},
		{"cgo", "ENV CGO_ENABLED=0", "ENV CGO_ENABLED=1", "the static image cannot run what cgo links"},
		{"paths of the builder", "-trimpath", "-a", "-trimpath"},
		{"another program", `ENTRYPOINT ["/ordergate"]`, `ENTRYPOINT ["/gateway"]`, "ENTRYPOINT"},
		{"a shell", `CMD ["serve"]`, `CMD serve`, "CMD serve"},
		{"an unknown command", `CMD ["serve"]`, `CMD ["server"]`, "no subcommand"},
		{"no program", "COPY --from=build /out/ordergate /\n", "", "/ordergate is not copied"},
		{"a ledger that the user cannot write", "--chown=65532:65532 ", "", "the user cannot write to a volume"},
		{"another owner", "--chown=65532:65532 ", "--chown=70:70 ", "the user cannot write to a volume"},
		{"a port is missing", "EXPOSE 8080 8081", "EXPOSE 8080", "EXPOSE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if faults := dockerfileFaults(replace(t, file, c.old, c.new), mod); !strings.Contains(strings.Join(faults, "\n"), c.fault) {
				t.Errorf("want %q, have %q", c.fault, faults)
			}
		})
	}
}

// dockerfileFaults returns the faults of a Dockerfile.
func dockerfileFaults(file, mod []byte) (faults []string) {
	fault := func(format string, a ...any) { faults = append(faults, fmt.Sprintf(format, a...)) }
	var stages [][][2]string // per FROM its instructions: name, arguments
	text := regexp.MustCompile(`(?m)^\s*#.*\n`).ReplaceAllString(string(file), "")
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		name, args, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "FROM" {
			stages = append(stages, nil)
			if image, _, _ := strings.Cut(args, " "); !pinned(image) {
				fault("%s is not pinned", image)
			}
		}
		if name != "" && len(stages) > 0 {
			stages[len(stages)-1] = append(stages[len(stages)-1], [2]string{name, strings.Join(strings.Fields(args), " ")})
		}
	}
	if len(stages) != 2 {
		return append(faults, fmt.Sprintf("there are %d stages", len(stages)))
	}
	last := func(stage int, name string) (args string) {
		for _, i := range stages[stage] {
			if i[0] == name {
				args = i[1]
			}
		}
		return args
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(mod)
	if version == nil || !strings.HasPrefix(last(0, "FROM"), fmt.Sprintf("golang:%s-", version[1])) {
		fault("FROM %s: go.mod wants Go %s", last(0, "FROM"), version[1])
	}
	if last(0, "ENV") != "CGO_ENABLED=0" {
		fault("the static image cannot run what cgo links")
	}
	if run := last(0, "RUN"); !regexp.MustCompile(`go build [^&]*-trimpath [^&]*-o /out/ordergate \.( |$)`).MatchString(run) {
		fault("RUN %s does not build . into /out/ordergate with -trimpath", run)
	}
	if user := last(1, "USER"); !regexp.MustCompile(`^[1-9][0-9]*(:[1-9][0-9]*)?$`).MatchString(user) {
		fault("USER %s is not a number other than 0", user)
	}
	if !slices.Contains(stages[1], [2]string{"COPY", "--from=build /out/ordergate /"}) {
		fault("/ordergate is not copied")
	}
	if !slices.Contains(stages[1], [2]string{"COPY", "--from=build --chown=" + last(1, "USER") + " /out/data/ /var/lib/ordergate/"}) {
		fault("the user cannot write to a volume at /var/lib/ordergate: a new one takes over the owner of the image's folder")
	}
	if e := last(1, "ENTRYPOINT"); e != `["/ordergate"]` {
		fault("ENTRYPOINT %s", e)
	}
	var command []string
	if err := json.Unmarshal([]byte(last(1, "CMD")), &command); err != nil {
		fault("CMD %s: %v", last(1, "CMD"), err)
	} else if err := commandFault(command); err != nil {
		fault("CMD: %v", err)
	}
	if e := last(1, "EXPOSE"); e != "8080 8081" {
		fault("EXPOSE %s", e)
	}
	return faults
}

func TestTheBuildContextHasWhatTheBuildNeeds(t *testing.T) {
	ignored := ignorer(string(read(t, "Dockerfile.dockerignore")))
	for path, want := range map[string]bool{
		"main.go": false, "gen/api/openapi.json": false, "deploy/Dockerfile": true, "web/x/y.ts": true,
		".git": true, "bin/ordergate": true, "order/order_test.go": true, "gen/ts/src/index.ts": true, "internal/psp/testdata/x": true,
	} {
		if ignored(path) != want {
			t.Errorf("%s: ignored is %v", path, !want)
		}
	}
	dir := t.TempDir()
	if err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		switch {
		case err != nil || rel == ".":
			return err
		case d.IsDir() && ignored(rel):
			return fs.SkipDir
		case d.IsDir():
			return os.Mkdir(filepath.Join(dir, rel), 0o700)
		case ignored(rel) || !d.Type().IsRegular():
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, rel), b, 0o600)
	}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "list", "-deps", ".") // finds every package and every embedded file
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("go list -deps .: %v\n%s", err, out)
	}
}

// ignorer matches paths as Docker does: a pattern begins at the root and covers all that is below; the last match decides.
func ignorer(file string) func(path string) bool {
	type rule struct {
		match  *regexp.Regexp
		ignore bool
	}
	var rules []rule
	for line := range strings.Lines(file) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		pattern, negated := strings.CutPrefix(line, "!")
		pattern = regexp.QuoteMeta(strings.Trim(pattern, "/"))
		pattern = strings.ReplaceAll(pattern, `\*\*/`, `(.*/)?`)
		pattern = strings.ReplaceAll(pattern, `\*`, `[^/]*`)
		rules = append(rules, rule{regexp.MustCompile("^" + pattern + "(/.*)?$"), !negated})
	}
	return func(path string) (ignored bool) {
		for _, r := range rules {
			if r.match.MatchString(filepath.ToSlash(path)) {
				ignored = r.ignore
			}
		}
		return ignored
	}
}

func TestDocsListAllSettings(t *testing.T) {
	page := string(read(t, root, "docs", "running.md"))
	for _, f := range reflect.VisibleFields(reflect.TypeFor[app.Config]()) {
		cell := ""
		if value := f.Tag.Get("envDefault"); value != "" {
			cell = "`" + value + "`"
		}
		row := strings.ReplaceAll(fmt.Sprintf("| `%s` | %s |", f.Tag.Get("env"), cell), "  ", " ")
		if !strings.Contains(page, "\n"+row) {
			t.Errorf("docs/running.md has no row %q", row)
		}
	}
	for _, name := range regexp.MustCompile(`ORDERGATE_[A-Z_]+`).FindAllString(page, -1) {
		if !slices.Contains(settings(), name) {
			t.Errorf("docs/running.md: %s is no setting", name)
		}
	}
}

func TestProbe(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ready" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	nobody := httptest.NewServer(nil)
	nobody.Close()
	for address, healthy := range map[string]bool{server.URL + "/ready": true, server.URL + "/stopping": false, nobody.URL: false, "": false} {
		if err := app.Main(t.Context(), []string{"probe", address}, nil, io.Discard, io.Discard); (err == nil) != healthy {
			t.Errorf("probe %q: %v", address, err)
		}
	}
}

func TestScriptsAreShell(t *testing.T) {
	scripts, _ := filepath.Glob("*.sh")
	if len(scripts) == 0 {
		t.Fatal("there are none")
	}
	for _, script := range scripts {
		if out, err := exec.Command("sh", "-n", script).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
	}
}

// pinned tells whether an image has a tag with a version.
func pinned(image string) bool {
	name, tag, _ := strings.Cut(image[strings.LastIndex(image, "/")+1:], ":")
	return name != "" && tag != "" && tag != "latest"
}

func load(t *testing.T, file []byte, environment types.Mapping) (*types.Project, error) {
	t.Helper()
	dir, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	return loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir: dir, ConfigFiles: []types.ConfigFile{{Filename: "compose.yaml", Content: file}}, Environment: environment,
	})
}

func read(t *testing.T, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// replace fails if before is missing: the test would test nothing.
func replace(t *testing.T, file []byte, before, after string) []byte {
	t.Helper()
	if !bytes.Contains(file, []byte(before)) {
		t.Fatalf("there is no %q", before)
	}
	return bytes.ReplaceAll(file, []byte(before), []byte(after))
}
