package devstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// oldest is the oldest major version of PostgreSQL that the stack works with (pg_backup_start is new in it).
const oldest = 15

// Install installs PostgreSQL and Redis where they are missing: with apt-get on Debian and Ubuntu (through sudo when we are not
// root), with Homebrew on macOS. What is there is neither upgraded nor restarted. Elsewhere the error says what to install. out
// hears what is done; the installer's own words come only with an error.
func Install(ctx context.Context, out io.Writer) error {
	_, pg := postgresBin(0)
	_, redis := redisServer()
	missing := func(ofPostgres, ofRedis string) (names []string) {
		if pg != nil {
			names = append(names, ofPostgres)
		}
		if redis != nil {
			names = append(names, ofRedis)
		}
		return names
	}
	var steps [][]string
	switch {
	case pg == nil && redis == nil:
		return nil
	case has("apt-get") && (os.Getuid() == 0 || has("sudo")):
		apt := []string{"env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=120"}
		if os.Getuid() != 0 {
			apt = append([]string{"sudo"}, apt...) // asks for a password only if it has to and there is a terminal
		}
		steps = [][]string{
			slices.Concat(apt, []string{"update"}),
			slices.Concat(apt, []string{"install", "-y", "--no-install-recommends"}, missing("postgresql", "redis-server")),
		}
	case runtime.GOOS == "darwin" && has("brew"):
		steps = [][]string{append([]string{"brew", "install"}, missing("postgresql@16", "redis")...)}
	}
	for _, step := range steps {
		fmt.Fprintln(out, "  installing PostgreSQL and Redis:", strings.Join(step, " "))
		cmd := exec.CommandContext(ctx, step[0], step[1:]...)
		var said bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, &said, &said // sudo asks at the terminal itself
		// A package that is half installed would be in the way the next time.
		cmd.Cancel = func() error {
			fmt.Fprintln(out, "  stopping when the packages are in")
			return nil
		}
		if err := cmd.Run(); err != nil && ctx.Err() != nil {
			return ctx.Err()
		} else if err != nil {
			return fmt.Errorf("install PostgreSQL and Redis: %w\n%s", err, said.Bytes()[max(0, said.Len()-2000):])
		}
	}
	_, pg = postgresBin(0)
	_, redis = redisServer()
	return errors.Join(pg, redis)
}

func has(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// postgresBin returns the folder with initdb and postgres of the wanted major version; 0 means the newest.
func postgresBin(want int) (string, error) {
	var found string
	var newest int
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin",
		"/usr/local/opt/postgresql@*/bin"} {
		bins, _ := filepath.Glob(pattern)
		for _, bin := range bins {
			if v := majorVersion(bin); v > newest && (want == 0 || v == want) {
				found, newest = bin, v
			}
		}
	}
	if initdb, err := exec.LookPath("initdb"); err == nil {
		// PATH may hold a link or a wrapper: PostgreSQL finds its files from where the program really is.
		if initdb, err = filepath.EvalSymlinks(initdb); err == nil {
			if v := majorVersion(filepath.Dir(initdb)); v > newest && (want == 0 || v == want) {
				found, newest = filepath.Dir(initdb), v
			}
		}
	}
	switch {
	case newest >= oldest:
		return found, nil
	case want > 0:
		return "", fmt.Errorf("the data was made by PostgreSQL %d, which is not installed any more: install it or remove the data folder", want)
	default:
		return "", fmt.Errorf("PostgreSQL %d or newer is needed (initdb and postgres): install it", oldest)
	}
}

func majorVersion(bin string) int {
	out, err := exec.Command(filepath.Join(bin, "postgres"), "--version").Output()
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(regexp.MustCompile(`\d+`).FindString(string(out)))
	return n
}

func redisServer() (string, error) {
	for _, name := range []string{"redis-server", "/opt/homebrew/bin/redis-server", "/usr/local/bin/redis-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("redis-server is needed: install Redis")
}
