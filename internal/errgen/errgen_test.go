package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestGolden(t *testing.T) {
	dir := t.TempDir()
	if *update {
		dir = "testdata"
	}
	names := []string{"errcode.go.golden", "errors.ts.golden"}
	if err := run("testdata/errors.yaml", filepath.Join(dir, names[0]), filepath.Join(dir, names[1])); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		got, gotErr := os.ReadFile(filepath.Join(dir, name))
		want, wantErr := os.ReadFile(filepath.Join("testdata", name))
		if gotErr != nil || wantErr != nil || string(got) != string(want) {
			t.Errorf("%s differs (%v, %v); -update writes it anew:\n%s", name, gotErr, wantErr, got)
		}
	}
}

func TestAnIncompleteRegistryIsRefused(t *testing.T) {
	text, err := os.ReadFile("testdata/errors.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ old, replacement, want string }{
		"form of the code": {"INV_002:", "INV_2:", "INV_2: is not of the form"},
		"status":           {"409", "209", "INV_002: status 209"},
		"no Chinese":       {", zh-CN: 不足", "", "INV_002: needs title"},
		"a third language": {", zh-CN: 不足", ", zh-CN: 不足, fr: peu", "field fr not found"},
		"variable text":    {"Not enough", "Not enough of %s", "INV_002: variable text"},
		"a reserved code":  {"zh-CN: 尚未", "zh-CN: ''", "SHP_001: needs title"},
		"misspelt key":     {"retryable", "retriable", "field retriable not found"},
		"rule, no Chinese": {", zh-CN: 不符合约定", "", "rule schema: needs en"},
		"rule, no place":   {"at most {}", "at most", "rule maxItems: needs en"},
		"code twice":       {"INV_002:", "SYS_002:", "already defined"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse([]byte(strings.Replace(string(text), c.old, c.replacement, 1)))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestTheRealRegistryKeepsItsPromises(t *testing.T) {
	text, err := os.ReadFile("../../openapi/errors.yaml")
	if err != nil {
		t.Fatal(err)
	}
	registry, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	var retryable []string
	for _, e := range registry.Codes {
		if e.Retryable {
			retryable = append(retryable, e.Code)
		}
		if e.Code == "PAY_003" && (e.Message.EN != "Payment timed out, please retry" || e.Message.ZH != "支付超时,请重试") {
			t.Errorf("PAY_003 says %q, %q", e.Message.EN, e.Message.ZH)
		}
		if e.Status == 503 && !e.Retryable {
			t.Errorf("%s: a 503 stores nothing, so it is retryable", e.Code)
		}
	}
	const want = "IDEM_003 INV_002 ORD_009 PAY_008 RATE_001 RATE_003 SYS_001 SYS_002 SYS_003 SYS_004 SYS_005 SYS_006"
	if got := strings.Join(retryable, " "); got != want {
		t.Errorf("retryable are %s, want %s", got, want)
	}
}
