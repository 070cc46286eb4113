package devstack

import (
	"cmp"
	"context"
	_ "embed" // install.sh
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

// oldest is the oldest major version of PostgreSQL that the stack works with (pg_backup_start is new in it).
const oldest = 15

//go:embed install.sh
var installScript string

// Install runs install.sh where PostgreSQL or Redis is missing. Its output goes to out.
func Install(ctx context.Context, out io.Writer) error {
	missing := func() error {
		_, pg := postgresBin(0)
		_, redis := redisServer()
		return errors.Join(pg, redis)
	}
	if missing() == nil {
		return nil
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", installScript)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, out, out
	cmd.Cancel = func() error { return nil } // the installer ends by itself
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("install PostgreSQL and Redis: %w", cmp.Or(ctx.Err(), err))
	}
	return missing()
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
