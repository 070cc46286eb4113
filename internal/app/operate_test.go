package app

import (
	"strings"
	"testing"

	"github.com/ordergate/ordergate/internal/pgtest"
)

// TestSample: `migrate -sample` says what it did, and leaves an account alone that has products.
func TestSample(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	run := commandLine(t, Config{PrimaryURL: db.PrimaryURL, Secret: strings.Repeat("s", minSecret)})
	said := func(want string) {
		t.Helper()
		out, err := run("migrate -sample fresh")
		must(t, err)
		if _, line, _ := strings.Cut(out, "\n"); line != want+"\n" {
			t.Errorf("%q, want %q", line, want)
		}
	}
	count := func(table string) (n int) {
		t.Helper()
		must(t, db.Pool.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&n))
		return n
	}
	_, err := db.Pool.Exec(t.Context(), `INSERT INTO accounts (id, name) VALUES (1, 'fresh')`)
	must(t, err)
	_, err = db.Pool.Exec(t.Context(), `INSERT INTO products (account, mode, sku, name, description, active, prices) VALUES (1, 'test', 'OWN', 'own', '', true, '{}')`)
	must(t, err)
	said("account fresh has products already (1): it was left alone")
	if products, coupons := count("products"), count("coupons"); products != 1 || coupons != 0 {
		t.Errorf("%d products, %d coupons", products, coupons)
	}
	_, err = db.Pool.Exec(t.Context(), `DELETE FROM products`)
	must(t, err)
	said("account fresh: loaded 216 sample products; its sample coupons: WELCOME10, FIVEOFF, ONCE, LIMITED, EXPIRED")
	said("account fresh has products already (216): it was left alone")
}

// TestKeys: an operator makes, rotates and revokes keys, and reads what happened to which.
func TestKeys(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	run := commandLine(t, Config{PrimaryURL: db.PrimaryURL, Secret: strings.Repeat("s", minSecret)})
	made, err := run("keys create -account demo")
	must(t, err)
	id := strings.Fields(made)[1]
	const unknown = "key_0198f3c2a4b57d3e8c1f2a3b4c5d6e81"
	for _, c := range []struct{ line, want string }{
		{"keys rotate " + id + " -overlap 1h", "id   key_"},
		{"keys limit " + id + " -rate 5 -window 1m", "key " + id + " has the limit 5/1m0s: within 5 s, and in a process that the primary does not answer within a minute\n"},
		{"keys rotate " + id, "id   key_"}, // it keeps the limit
		{"keys limit " + id + " -rate 0", "key " + id + " has the limit none: within 5 s, and in a process that the primary does not answer within a minute\n"},
		{"keys limit " + id, "-rate must be given, from 0 (no limit) to 1000000"},
		{"keys limit " + id + " -rate 1000001", "-rate must be given, from 0 (no limit) to 1000000"},
		{"keys limit " + id + " -rate 5 -window 1500ms", "-window must be whole seconds"},
		{"keys limit " + id + " -rate 5 -window 25h", "-window must be whole seconds"},
		{"keys limit " + unknown + " -rate 1", "no key " + unknown + ": ordergate keys list"},
		{"keys create -account demo -rate 0", "id   key_"},
		{"keys create -account demo -rate -1", "-rate must be given, from 0 (no limit) to 1000000"},
		{"keys revoke " + id, "key " + id + " is revoked: it is refused within 5 s, and by a process that the primary does not answer within a minute, or once its replicas know of it\n"},
		{"keys revoke " + id, "key " + id + " is revoked"},
		{"keys rotate " + id, "the key is no longer valid: create another one"},
		{"keys revoke " + unknown, "no key " + unknown + ": ordergate keys list"},
		{"keys rotate " + unknown, "no key " + unknown + ": ordergate keys list"},
		{"keys create -account -x", "the name of an account has"},
		{"keys create -account " + strings.Repeat("a", 65), "the name of an account has"},
		{"keys create -account demo -name " + strings.Repeat("a", 201), "-name has at most 200 bytes"},
		{"keys revoke demo", `"demo" is not the id of a key: ordergate keys list`},
		{"keys rotate demo", `"demo" is not the id of a key: ordergate keys list`},
	} {
		out, err := run(c.line)
		if err != nil {
			out += err.Error()
		}
		if !strings.HasPrefix(out, c.want) {
			t.Errorf("%s: %q, want %q", c.line, out, c.want)
		}
	}
	for _, valid := range []string{"1h", "1ns"} {
		_, err = run("keys create -account demo -valid " + valid)
		must(t, err)
	}
	list, err := run("keys list")
	must(t, err)
	var states, limits []string
	for line := range strings.Lines(list) {
		fields := strings.Fields(line)
		states, limits = append(states, fields[len(fields)-2]), append(limits, fields[4])
	}
	if got := strings.Join(states[1:], " "); strings.Count(got, "revoked") != 1 || strings.Count(got, "until") != 2 || strings.Count(got, "expired") != 1 || len(states) != 7 {
		t.Errorf("%s\n%s", got, list)
	}
	none := t.TempDir()
	run = commandLine(t, Config{DataDir: none})
	for _, line := range []string{"list", "create -account demo", "limit " + id + " -rate 5", "rotate " + id, "revoke " + id} {
		if err := Check(Config{}, "keys "+strings.Fields(line)[0]); err != nil {
			t.Errorf("keys %s needs more than the stack of run: %v", line, err)
		}
		if _, err := run("keys " + line); err == nil || !strings.Contains(err.Error(), "no stack runs in "+none) {
			t.Errorf("keys %s: %v", line, err)
		}
	}
	if got := strings.Join(limits[1:], " "); got != "none 100/1s 5/1m0s none 100/1s 100/1s" {
		t.Errorf("limits %s\n%s", got, list)
	}
}
