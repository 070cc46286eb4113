// Command breaking compares the bundled contract with the newest released one:
//
//	go run ./internal/breaking            fails on a change that may break a client which follows the released contract
//	go run ./internal/breaking changelog  writes openapi/CHANGELOG.md: the changes from release to release, and since the newest
//	go run ./internal/breaking release    keeps the contract as openapi/released/<info.version>.json, for ever
//
// A change that breaks is allowed for an operation that carries `deprecated: true` and a day as `x-sunset`, and is named. The operation itself may go
// once that day, in the released contract, is over.
package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	present   = "gen/api/openapi.json"
	released  = "openapi/released"
	changelog = "openapi/CHANGELOG.md"
)

func main() {
	command := strings.Join(os.Args[1:], " ")
	if err := run(os.Stdout, command, ".", time.Now()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run does a command in the project's folder, and says what it did.
func run(out io.Writer, command, root string, now time.Time) error {
	text, err := os.ReadFile(filepath.Join(root, present))
	if err != nil {
		return err
	}
	contract, err := parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", present, err)
	}
	releases, err := readReleases(filepath.Join(root, released))
	if err != nil {
		return err
	}
	switch command {
	case "":
		return check(out, releases, contract, now)
	case "changelog":
		return writeChangelog(root, releases, contract)
	case "release":
		name := filepath.Join(root, released, contract.version+".json")
		if before, err := os.ReadFile(name); err == nil && !bytes.Equal(before, text) {
			return fmt.Errorf("%s stays as it is: raise info.version, and run make gen", name)
		}
		if err = errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, text, 0o644)); err != nil {
			return err
		}
		_, _ = fmt.Fprintf(out, "%s is %s now\n", name, contract.version)
		if releases, err = readReleases(filepath.Dir(name)); err != nil {
			return err
		}
		return writeChangelog(root, releases, contract)
	}
	return fmt.Errorf("breaking %s: there is no such command", command)
}

// check prints what differs from the newest released contract. The error has a line for each change that breaks its clients.
func check(out io.Writer, releases []*document, contract *document, now time.Time) error {
	if len(releases) == 0 {
		_, err := fmt.Fprintf(out, "No contract is released yet: any change is allowed until make release-contract writes the first file of %s.\n", released)
		return err
	}
	newest := releases[len(releases)-1]
	found, err := changes(newest, contract)
	if err != nil {
		return err
	}
	judge(found, now)
	var breaking, ending []string
	for _, c := range found {
		switch line := "  " + c.where + ": " + c.text; {
		case c.ending:
			ending = append(ending, line)
		case c.breaks:
			breaking = append(breaking, line)
		}
	}
	if len(breaking) > 0 {
		return fmt.Errorf("%d changes break clients of the released contract %s:\n%s\nTake them back, or give the operation "+
			"`deprecated: true` and `x-sunset` (docs/contract.md#released-contracts)", len(breaking), newest.version, strings.Join(breaking, "\n"))
	}
	if len(ending) > 0 {
		_, err = fmt.Fprintf(out, "%d changes break clients of operations that carry a sunset, who must hear of it before:\n%s\n", len(ending), strings.Join(ending, "\n"))
		return err
	}
	_, err = fmt.Fprintf(out, "Nothing breaks clients of the released contract %s; there are %d other changes.\n", newest.version, len(found))
	return err
}

// writeChangelog writes openapi/CHANGELOG.md below root.
func writeChangelog(root string, releases []*document, contract *document) error {
	text, err := render(releases, contract)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, changelog), []byte(text), 0o644)
}

// readReleases returns the released contracts, the oldest first. There may be none.
func readReleases(dir string) ([]*document, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	var all []*document
	for _, name := range names {
		text, readErr := os.ReadFile(name)
		d, parseErr := parse(text)
		if err = errors.Join(err, readErr, parseErr); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if filepath.Base(name) != d.version+".json" {
			return nil, fmt.Errorf("%s: its info.version is %s: %w", name, d.version, fs.ErrInvalid)
		}
		if !releaseName.MatchString(d.version) {
			return nil, fmt.Errorf("%s: a released version is major.minor.patch: %w", name, fs.ErrInvalid)
		}
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b *document) int { return compareVersions(a.version, b.version) })
	return all, err
}

var releaseName = regexp.MustCompile(`^\d+\.\d+\.\d+$`)

// compareVersions compares major.minor.patch by number.
func compareVersions(a, b string) int {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(x), len(y)) {
		m, _ := strconv.Atoi(x[i])
		n, _ := strconv.Atoi(y[i])
		if c := cmp.Compare(m, n); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(x), len(y))
}
