package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// variant is one text of the source that is another one while the environment names the variant.
type variant struct {
	name, what    string
	file, old, by string // the text stands once in the file. Where `by` names it, bug is the variant's name
}

// bugs are faults that the checker must find, each the smallest that breaks its rule. Where a text is not in the source any more, the part
// cannot run and says so: take the text that does the same now.
var bugs = []variant{
	{
		name: "dropped", what: "every second write is neither stored in Redis nor told to the other process, and its repair by the outbox is not, either",
		file: "query/evict.go", old: `len(entries) == 0 ||`, by: `len(entries) == 0 || bug == "dropped" && entries[0].Rev%2 == 0 ||`,
	}, {
		// One byte more is never seen: a replica that has not replayed a commit stands before its record, which has 34 bytes at least.
		name: "known-at", what: "what is read from a replica claims to be newer than it is, by the length of one commit record",
		file: "query/fresh.go", old: `KnownAt: uint64(p.before.Lsn)`, by: `KnownAt: uint64(p.before.Lsn) + map[string]uint64{"known-at": 64}[bug]`,
	}, {
		name: "delete", what: "a write deletes the entry in Redis, and a read stores what it found, instead of both setting it if it is newer",
		file: "query/redis.go", old: `eval(ctx, pipe, []string{name}, e.encoded(name), spread(ttl).Milliseconds())`,
		by: `switch {
			case bug == "delete" && publish:
				pipe.Del(ctx, name)
			case bug == "delete":
				pipe.Set(ctx, name, e.encoded(name), ttl)
			default:
				eval(ctx, pipe, []string{name}, e.encoded(name), spread(ttl).Milliseconds())
			}`,
	},
}

// slowFills is no bug. Between its read of the database and its write to the caches, a load sleeps.
var slowFills = variant{
	name: "slow-fills", file: "query/cache.go", old: `if healthy && !e.disconnected {`, by: `if bug == "slow-fills" {
			time.Sleep(150 * time.Millisecond)
		}
		if healthy && !e.disconnected {`,
}

const (
	bugSetting = "CHAOS_BUG" // names the variant of a process
	bugSource  = "package query\n\nimport \"os\"\n\nvar bug = os.Getenv(\"" + bugSetting + "\")\n"
)

// buildVariants builds a program that has all variants, in dir. The source stays as it is: Go's overlay replaces files for one build.
func buildVariants(ctx context.Context, dir string) (program string, err error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	root := strings.TrimSpace(string(out))
	sources := map[string]string{"query/chaos_bug.go": bugSource}
	for _, v := range append([]variant{slowFills}, bugs...) {
		if _, is := sources[v.file]; !is {
			b, err := os.ReadFile(filepath.Join(root, v.file))
			if err != nil {
				return "", err
			}
			sources[v.file] = string(b)
		}
		if n := strings.Count(sources[v.file], v.old); n != 1 {
			return "", fmt.Errorf("%s of internal/chaos/freshness_bugs.go cannot be built: %s has the text %q %d times, not once. Take the text that does the same now",
				v.name, v.file, v.old, n)
		}
		sources[v.file] = strings.Replace(sources[v.file], v.old, v.by, 1)
	}
	replace := map[string]string{}
	for file, source := range sources {
		changed := filepath.Join(dir, filepath.Base(file))
		replace[filepath.Join(root, file)] = changed
		if err = os.WriteFile(changed, []byte(source), 0o600); err != nil {
			return "", err
		}
	}
	overlay := filepath.Join(dir, "overlay.json")
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	if err = os.WriteFile(overlay, b, 0o600); err != nil {
		return "", err
	}
	program = filepath.Join(dir, "ordergate-bugs")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-overlay", overlay, "-o", program, ".")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0") // as make builds it: most is in Go's cache
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program with bugs: %w\n%s", err, out)
	}
	return program, nil
}
