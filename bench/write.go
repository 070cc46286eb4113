package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ordergate/ordergate/command"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/internal/pg"
)

const (
	writeRounds = 5
	sagaOrders  = 1500
	sagaClients = 16
)

// placeGoals were reached by an experiment with group commit.
var placeGoals = map[string]string{"over HTTP": ">= 1.8", "in process": ">= 3.4"}

// writeParts measure figures of the write path. The orders of pgbench are for no worker, so the saga is before them.
var writeParts = []struct {
	name    string
	measure func(context.Context, *gateway) []figure
}{{"saga", measureSaga}, {"place", measurePlace}}

// runWrite measures the write path: all parts of it, or those that are named.
func runWrite(ctx context.Context, parts []string) {
	r := newResults(ctx, "write")
	g := start(ctx)
	defer g.stop(ctx)
	for _, part := range writeParts {
		if len(parts) == 0 || slices.Contains(parts, part.name) {
			r.figures = append(r.figures, part.measure(ctx, g)...)
		}
	}
	g.check(ctx)
	r.print()
	if len(parts) == 0 {
		r.write(ctx)
	}
}

// measurePlace compares orders placed, while no worker runs, with pgbench at as many clients.
func measurePlace(ctx context.Context, g *gateway) (figures []figure) {
	p := g.pgbench(ctx)
	for _, clients := range []int{16, 128} {
		r := interleave(fmt.Sprintf("place, %d clients", clients), writeRounds,
			contender{"over HTTP", func() float64 { return overHTTP(ctx, g.addr, clients, nil, g.send) }},
			contender{"pgbench", func() float64 { return p.run(ctx, clients) }},
			contender{"in process", func() float64 {
				return drive(ctx, clients, nil, func(int) error {
					n := g.sent.Add(1)
					_, err := g.place(ctx, g.components.Commands, fmt.Sprintf("in-process-%012d", n), g.draft(n))
					return err
				})
			}},
		)
		for _, ours := range []string{"over HTTP", "in process"} {
			name := fmt.Sprintf("place %s / pgbench, one function, %d clients", ours, clients)
			figures = append(figures, newFigure(name, "orders/s", placeGoals[ours], r[ours], r["pgbench"]))
		}
	}
	return figures
}

// measureSaga compares orders that are confirmed and paid with pgbench, which has the machine to itself. The orders are placed over HTTP
// while a worker, a process of its own, runs their sagas.
func measureSaga(ctx context.Context, g *gateway) []figure {
	provider := g.child(ctx, g.psp, nil, program, "psp")
	worker := g.child(ctx, "", nil, program, "worker")
	paid := func() {
		for n, last := 1, time.Now().Add(time.Minute); n > 0; <-time.After(20 * time.Millisecond) {
			must(g.db.QueryRow(ctx, "SELECT count(*) FROM orders WHERE (status, payment_status) <> ('confirmed', 'paid')").Scan(&n))
			if time.Now().After(last) {
				must(fmt.Errorf("%d orders are not confirmed and paid after a minute", n))
			}
		}
	}
	begin, accepted := time.Now(), g.accepted.Load()
	overHTTP(ctx, g.addr, sagaClients, func() bool { return g.accepted.Load() < accepted+sagaOrders }, g.send)
	placed, orders := time.Since(begin).Seconds(), float64(g.accepted.Load()-accepted)
	paid()
	took := time.Since(begin).Seconds()
	sayf("saga: %.0f orders placed after %.1f s, all of them confirmed and paid after %.1f s", orders, placed, took)
	worker.end()
	provider.end()
	return []figure{newFigure(fmt.Sprintf("saga to confirmed and paid / pgbench, one function, %d clients", sagaClients), "orders/s", "",
		[]float64{orders / took}, []float64{g.pgbench(ctx).run(ctx, sagaClients)})}
}

// draft is the order of a number: two lines and a payment.
func (g *gateway) draft(n int64) api.PlaceOrder {
	sku := func(n int64) string { return g.skus[n%int64(len(g.skus))] }
	return api.PlaceOrder{
		Currency: "EUR", CustomerRef: fmt.Sprint("c-", n%1000), Payment: &api.PlaceOrderPayment{MethodToken: "pm_ok"},
		Lines: []api.PlaceOrderLine{{Sku: sku(n), Quantity: 1}, {Sku: sku(n + 7), Quantity: 2}},
	}
}

func (g *gateway) place(ctx context.Context, c *command.Commands, key string, w api.PlaceOrder) (command.Result, error) {
	r := command.Envelope{Owner: g.owner, Operation: "placeOrder", Key: key, Actor: "key_bench"}
	r.Problem.TraceID = uuid.NewString()
	a, err := c.PlaceOrder(ctx, r, w)
	if err == nil {
		g.accepted.Add(1)
	}
	var refusal interface{ Retryable() bool }
	if errors.As(err, &refusal) && refusal.Retryable() {
		err = errRefused
	}
	return a, err
}

func (g *gateway) send(_ int, w *wire) error {
	n := g.sent.Add(1)
	body, err := json.Marshal(g.draft(n))
	if err != nil {
		return err
	}
	err = w.do(fmt.Appendf(nil, "POST /v1/orders HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"+
		"Idempotency-Key: over-http-%012d\r\nContent-Length: %d\r\n\r\n%s", g.addr, g.key, n, len(body), body))
	switch {
	case err != nil:
	case w.hasStatus("202"):
		g.accepted.Add(1)
	case w.retryable():
		err = errRefused
	default:
		err = fmt.Errorf("place over HTTP: %s%s", w.head, w.body)
	}
	return err
}

// pgbench is the limit of the write path: the SQL of one order a transaction, without any program around it.
type pgbench struct {
	program, url, script string
	variables            []string // options that set the script's a1, a2, ...
}

var (
	comments  = regexp.MustCompile(`(?m)^--.*\n`)
	parameter = regexp.MustCompile(`\$(\d+)::(\w+\[])`)
)

// pgbench places an order, records its SQL, and makes a function of everything between BEGIN and COMMIT. Each call of the script has an
// id that grows with time, a key and a lock of its own; everything else is the same for all.
func (g *gateway) pgbench(ctx context.Context) *pgbench {
	p := &pgbench{program: "pgbench", url: g.primary, script: filepath.Join(g.dir, "place.sql")}
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pgbench"); len(found) > 0 {
		p.program = found[len(found)-1]
	}
	recorded := &recorder{Tracer: otelpgx.NewTracer()}
	c := g.components.Primary.Config()
	c.ConnConfig.Tracer, c.AfterConnect, c.MinIdleConns = recorded, nil, 0 // nothing but the order's statements
	pool := try(pgxpool.NewWithConfig(ctx, c))
	defer pool.Close()
	key := uuid.NewString()
	placed := try(g.place(ctx, g.components.NewCommands(pool, nil), key, g.draft(0)))
	begin := slices.IndexFunc(recorded.all, func(s pgx.TraceQueryStartData) bool { return strings.HasPrefix(s.SQL, "begin") })
	commit := slices.IndexFunc(recorded.all, func(s pgx.TraceQueryStartData) bool { return s.SQL == "commit" })
	var body strings.Builder
	var arguments []string
	for _, s := range recorded.all[begin+1 : commit] {
		text := strings.TrimSpace(comments.ReplaceAllString(s.SQL, ""))
		line := parameter.ReplaceAllStringFunc(text, func(m string) string {
			found := parameter.FindStringSubmatch(m)
			number, kind, list := try(strconv.Atoi(found[1])), found[2], ""
			must(g.db.QueryRow(ctx, "SELECT COALESCE($1::"+kind+"::text, '{}')", s.Args[number-1]).Scan(&list))
			arguments = append(arguments, p.argument(list, uuid.UUID(placed.OrderID).String(), key))
			return fmt.Sprintf("$%d::%s", len(arguments), kind)
		})
		if rest, reads := strings.CutPrefix(line, "SELECT"); reads {
			line = "PERFORM" + rest
		}
		body.WriteString(line + ";\n")
	}
	_ = try(g.db.Exec(ctx, "CREATE OR REPLACE FUNCTION place("+strings.TrimSuffix(strings.Repeat("text,", len(arguments)), ",")+
		") RETURNS void LANGUAGE plpgsql AS $place$ BEGIN\n"+body.String()+"END $place$"))
	script := "\\set n :n + 1\n\\set u :n * 1024 + :client_id\nSELECT place(" + strings.Join(arguments, ", ") + ");\n"
	must(os.WriteFile(p.script, []byte(script), 0o600))
	return p
}

// lock is the list of one large number, as the lock of a key is and nothing else.
var lock = regexp.MustCompile(`^{-?\d{13,}}$`)

// argument is the expression for a list: a variable of pgbench that holds it as text, unless it differs from order to order.
func (p *pgbench) argument(list, id, key string) string {
	if lock.MatchString(list) {
		return "('{' || :u::bigint || '}')"
	}
	for same, own := range map[string]string{
		id: "(:prefix::text || lpad(to_hex(:u::bigint), 16, '0'))", key: "('pgbench-' || :prefix::text || :u::bigint)",
	} {
		if rest := strings.ReplaceAll(list, same, ""); rest != list && strings.Trim(rest, "{,}") == "" {
			return "('" + strings.ReplaceAll(list, same, "' || "+own+" || '") + "')"
		}
	}
	p.variables = append(p.variables, fmt.Sprintf("--define=a%d=%s", len(p.variables)+1, list))
	return fmt.Sprint(":a", len(p.variables))
}

var progress = regexp.MustCompile(`progress: .* s, ([\d.]+) tps`)

// run is the transactions per second in the last two seconds. Before, new connections fill their caches: 128 of them
// keep two cores busy for 2 s with that.
func (p *pgbench) run(ctx context.Context, clients int) float64 {
	args := slices.Concat(p.variables, []string{"-n", "-M", "prepared", "-f", p.script, "-c", strconv.Itoa(clients), "-j", "2", "-P", "1",
		"-T", strconv.Itoa(3 + clients/40), "-D", "n=0", "-D", fmt.Sprintf("prefix=%012x7000", time.Now().UnixMilli()), p.url})
	var options strings.Builder
	for name, value := range pg.Session {
		if name == "lock_timeout" { // pgbench ends at its first error, and 128 clients may wait longer to extend a table
			value = "10s"
		}
		options.WriteString(" -c " + name + "=" + strings.ReplaceAll(value, " ", `\ `))
	}
	cmd := exec.CommandContext(ctx, p.program, args...)
	var out bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), "PGOPTIONS="+options.String()), &out, &out
	err := cmd.Run()
	seconds := progress.FindAllStringSubmatch(out.String(), -1)
	if err != nil || len(seconds) < 2 {
		must(fmt.Errorf("pgbench: %w\n%.2000s", err, out.Bytes()))
	}
	last := seconds[len(seconds)-2:]
	return (try(strconv.ParseFloat(last[0][1], 64)) + try(strconv.ParseFloat(last[1][1], 64))) / 2
}

// recorder keeps the statements of a connection, and is otherwise the tracer that the connection had.
type recorder struct {
	*otelpgx.Tracer
	all []pgx.TraceQueryStartData
}

func (r *recorder) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	r.all = append(r.all, d)
	return ctx
}

func (r *recorder) TraceBatchQuery(_ context.Context, _ *pgx.Conn, d pgx.TraceBatchQueryData) {
	r.all = append(r.all, pgx.TraceQueryStartData{SQL: d.SQL, Args: d.Args})
}
