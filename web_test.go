package main

import (
	"bytes"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// checkWeb returns a finding for every package-lock.json below root that names a registry or has no .npmrc beside it that lets no package
// run a script and holds it to its versions, for every program that takes the address of a file for its path, and for every script that installs
// packages which no lock pins.
func checkWeb(root string) (findings []string, err error) {
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{"node_modules", ".node"}, d.Name()) {
			return filepath.SkipDir
		}
		if d.IsDir() || d.Name() != "package-lock.json" && path.Ext(name) != ".mjs" && path.Ext(name) != ".sh" {
			return nil
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if d.Name() != "package-lock.json" {
			if bytes.Contains(content, []byte("import.meta.url).pathname")) {
				findings = append(findings, name+": the path of an address has %20 for a blank: take import.meta.dirname")
			}
			if path.Ext(name) == ".sh" && bytes.Contains(content, []byte("npm install")) {
				findings = append(findings, name+": no hash of ours pins what npm install fetches: take npm ci")
			}
			return nil
		}
		if bytes.Contains(content, []byte(`"resolved"`)) {
			findings = append(findings, name+" names addresses of a registry")
		}
		npmrc, err := os.ReadFile(filepath.Join(filepath.Dir(name), ".npmrc"))
		lines := strings.Fields(string(npmrc))
		for _, want := range []string{"omit-lockfile-registry-resolved=true", "save-exact=true", "ignore-scripts=true", "engine-strict=true", "fund=false", "audit=false"} {
			if err != nil || !slices.Contains(lines, want) {
				findings = append(findings, name+" has no .npmrc beside it that says "+want)
			}
		}
		return nil
	})
	return findings, err
}

// TestLayoutOfWeb: npm runs no script of a package, and a checkout works in any folder.
func TestLayoutOfWeb(t *testing.T) {
	findings, err := checkWeb("web")
	if err != nil {
		t.Fatal(err)
	}
	for _, finding := range findings {
		t.Error(finding)
	}
	for file, want := range map[string]struct {
		text     string
		findings int
	}{
		"a/package-lock.json": {`{"packages": {"node_modules/a": {"resolved": "https://registry/a.tgz"}}}`, 7},
		"b/package-lock.json": {`{}`, 6},
		"c/run.mjs":           {`const here = new URL('.', import.meta.url).pathname;`, 1},
		"d/run.mjs":           {`const here = import.meta.dirname;`, 0},
		"e/install.sh":        {`npm install npm@11`, 1},
	} {
		if findings, err := checkWeb(tree(t, file, want.text)); err != nil || len(findings) != want.findings {
			t.Errorf("%s: %d findings, want %d: %q %v", file, len(findings), want.findings, findings, err)
		}
	}
}

// TestLayoutOfExamples: the keys of changes that our examples make are new ones in every shell. %N is a letter on macOS, and $RANDOM empty in sh: two
// changes of a second would have one key.
func TestLayoutOfExamples(t *testing.T) {
	for _, pattern := range []string{"README.md", "docs/*.md", "openapi/guides/*.md", "web/portal/samples/*", "web/console/src/*", "internal/app/banner.txt"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(pattern, err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(content, []byte("%N)")) || bytes.Contains(content, []byte("$RANDOM")) {
				t.Errorf("%s: a key of a change needs /dev/urandom", file)
			}
		}
	}
}
