package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// runMake runs a target of our Makefile in dir, with further words on its command line. A Make around us has no say.
func runMake(t *testing.T, dir string, words ...string) (string, error) {
	t.Helper()
	makefile, err := filepath.Abs("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("make", append([]string{"--no-print-directory", "-C", dir, "-f", makefile}, words...)...)
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKEOVERRIDES=", "RUN=", "PKG=", "STACK=")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestSomeTests: `make test RUN=...` fails if no test has that name.
func TestSomeTests(t *testing.T) {
	for run, want := range map[string]string{"TestTypo": "no test has a name that matches RUN=TestTypo in ./internal/panics ./internal/token", "TestCatch": "", "Test": ""} {
		out, err := runMake(t, ".", "test", "STACK=", "RUN="+run, "PKG=./internal/panics ./internal/token")
		if failed := err != nil; failed != (want != "") || !strings.Contains(out, want) || !strings.Contains(out, "ok") {
			t.Errorf("RUN=%s: %v\n%s", run, err, out)
		}
	}
	if out, err := runMake(t, ".", "test", "STACK=", "RUN=Test", "PKG=./nowhere"); err == nil || strings.Contains(out, "matches RUN") {
		t.Errorf("a package that is not there: %v\n%s", err, out)
	}
}

// TestNoStaleTests: the root package, whose tests run npm, is not taken from Go's cache, which does not know the files that npm reads.
func TestNoStaleTests(t *testing.T) {
	out, err := runMake(t, ".", "-n", "test")
	if err != nil || !strings.Contains(out, "go test -count=1 .'") || strings.Contains(out, "go test ./...") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestFirstBuild: the first build says how far it is and when it is done, and that it downloads only if it does.
func TestFirstBuild(t *testing.T) {
	for name, c := range map[string]struct{ goProgram, want string }{
		"modules are there": {`case $1 in list) seq 60;; build) seq 60;; esac`,
			"building bin/ordergate, the first time all 60 packages\n  50 of 60 packages are built\nbin/ordergate is built\n"},
		"modules are missing": {`case $1 in list) [ "$GOPROXY" != off ] && seq 2;; build) seq 2;; esac`,
			"downloading Go modules\nbuilding bin/ordergate, the first time all 2 packages\nbin/ordergate is built\n"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "go"), []byte("#!/bin/sh\n"+c.goProgram), 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", os.ExpandEnv(dir+":$PATH"))
		if out, err := runMake(t, dir, "build"); err != nil || out != c.want {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "go"), []byte("#!/bin/sh\n[ $1 = list ] || { echo 'x.go:1: a fault'; exit 1; }"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", os.ExpandEnv(dir+":$PATH"))
	if out, err := runMake(t, dir, "build"); err == nil || strings.Contains(out, "is built") || !strings.Contains(out, "a fault") {
		t.Errorf("a build that fails: %v\n%s", err, out)
	}
}

// TestRefusedAtOnce: what a target cannot do is refused before anything is built or started, with what it can do.
func TestRefusedAtOnce(t *testing.T) {
	for words, want := range map[string]string{
		"bench-read PART=nonsense": `bench: there is no part "nonsense": there are memory, cached, tiers, `,
		"chaos PART=nonsense":      `chaos: there is no part "nonsense": there are failpoints, idempotency, `,
		"soak MINUTES=abc":         "chaos: MINUTES=abc is not a number of minutes from 0.1 to 10080, a week\nexit status 2\n",
		"soak MINUTES=-1":          "chaos: MINUTES=-1 is not a number of minutes",
	} {
		out, err := runMake(t, ".", strings.Fields(words)...)
		if err == nil || !strings.HasPrefix(out, want) || !strings.Contains(out, "exit status 2") {
			t.Errorf("make %s: %v\n%s", words, err, out)
		}
	}
}
