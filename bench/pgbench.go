package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
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

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/internal/pg"
)

// pgbench runs the SQL of one order a transaction, without any program around it.
type pgbench struct {
	program, url, dir string
	variables         []string // options that set the scripts' a1, a2, ...
	function          string   // a script: one call of a function with all statements of an order. It is the limit of the write path
	statements        string   // a script: BEGIN, each statement, COMMIT; a round trip each
	begun             []string // the statements of statements
	recorded          *recorder
	key               string // of the order that was recorded
	id                uuid.UUID
}

var (
	comments  = regexp.MustCompile(`(?m)^--.*\n`)
	parameter = regexp.MustCompile(`\$(\d+)::(\w+\[])`)
)

// pgbench places an order, records its SQL, and makes a function of everything between BEGIN and COMMIT, and a script. Each order of pgbench has an
// id that grows with time, a key and a lock of its own; everything else is the same for all.
func (g *gateway) pgbench(ctx context.Context, name string, draft api.PlaceOrder) *pgbench {
	p := &pgbench{program: "pgbench", url: g.primary, dir: g.dir, key: uuid.NewString(), recorded: &recorder{Tracer: otelpgx.NewTracer()}}
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pgbench"); len(found) > 0 {
		p.program = found[len(found)-1]
	}
	pool := g.pool(ctx, p.recorded)
	defer pool.Close()
	p.id = uuid.UUID(try(g.place(ctx, g.components.NewCommands(pool, nil), p.key, draft)).OrderID)
	all := slices.Concat(p.recorded.trips...)
	begin := slices.IndexFunc(all, func(s pgx.TraceQueryStartData) bool { return strings.HasPrefix(s.SQL, "begin") })
	commit := slices.IndexFunc(all, func(s pgx.TraceQueryStartData) bool { return s.SQL == "commit" })
	var body strings.Builder
	var arguments []string
	p.begun = []string{"BEGIN"}
	for _, s := range all[begin+1 : commit] {
		text := strings.TrimSpace(comments.ReplaceAllString(s.SQL, ""))
		var own []string // arguments of this statement
		line := parameter.ReplaceAllStringFunc(text, func(m string) string {
			found := parameter.FindStringSubmatch(m)
			number, kind, list := try(strconv.Atoi(found[1])), found[2], ""
			must(g.db.QueryRow(ctx, "SELECT COALESCE($1::"+kind+"::text, '{}')", s.Args[number-1]).Scan(&list))
			own = append(own, "("+p.argument(list, p.id.String(), p.key)+")::"+kind)
			arguments = append(arguments, strings.TrimSuffix(own[len(own)-1], "::"+kind))
			return fmt.Sprintf("$%d::%s", len(arguments), kind)
		})
		inline := parameter.ReplaceAllStringFunc(text, func(string) string {
			first := own[0]
			own = own[1:]
			return first
		})
		p.begun = append(p.begun, strings.ReplaceAll(inline, "T00:00:00Z", "T000000Z")) // :00 would be a variable
		if rest, reads := strings.CutPrefix(line, "SELECT"); reads {
			line = "PERFORM" + rest
		}
		body.WriteString(line + ";\n")
	}
	_ = try(g.db.Exec(ctx, "CREATE OR REPLACE FUNCTION "+name+"("+strings.TrimSuffix(strings.Repeat("text,", len(arguments)), ",")+
		") RETURNS void LANGUAGE plpgsql AS $place$ BEGIN\n"+body.String()+"END $place$"))
	p.function = p.script(name, "SELECT "+name+"("+strings.Join(arguments, ", ")+");\n")
	p.statements = p.script(name+"-statements", strings.Join(p.begun, ";\n")+";\nCOMMIT;\n")
	return p
}

// pool is a pool of the primary whose statements a tracer sees, and nothing but those of an order.
func (g *gateway) pool(ctx context.Context, tracer pgx.QueryTracer) *pgxpool.Pool {
	c := g.components.Primary.Config()
	c.ConnConfig.Tracer, c.AfterConnect, c.MinIdleConns = tracer, nil, 0
	return try(pgxpool.NewWithConfig(ctx, c))
}

// locking is the script of a shop that locks the stock of the order's skus first, by SELECT FOR UPDATE, and holds these locks over the round trips of all other
// statements. Those in last come before COMMIT.
func (p *pgbench) locking(name string, g *gateway, skus []string, last ...string) string {
	skus = slices.Sorted(slices.Values(skus))
	lock := fmt.Sprintf("SELECT on_hand, reserved FROM stock WHERE account = %d AND mode = '%s' AND sku IN ('%s') ORDER BY sku FOR UPDATE", g.owner.Account, g.owner.Mode, strings.Join(skus, "', '"))
	all := slices.Concat(p.begun[:1], []string{lock}, p.begun[1:], last, []string{"COMMIT"})
	return p.script(name, strings.Join(all, ";\n")+";\n")
}

// script writes a script of one order, whose number is u.
func (p *pgbench) script(name, text string) string {
	file := filepath.Join(p.dir, name+".sql")
	must(os.WriteFile(file, []byte("\\set n :n + 1\n\\set u :n * 1024 + :client_id\n"+text), 0o600))
	return file
}

// lock is the list of one large number, as the lock of a key is and nothing else.
var lock = regexp.MustCompile(`^{-?\d{13,}}$`)

// argument is the expression for a list: a variable of pgbench that holds it as text, unless it differs from order to order.
func (p *pgbench) argument(list, id, key string) string {
	if lock.MatchString(list) {
		return "('{' || :u::bigint || '}')"
	}
	for same, own := range map[string]string{
		id: orderID, key: "('pgbench-' || :prefix::text || :u::bigint)",
	} {
		if rest := strings.ReplaceAll(list, same, ""); rest != list && strings.Trim(rest, "{,}") == "" {
			return "('" + strings.ReplaceAll(list, same, "' || "+own+" || '") + "')"
		}
	}
	p.variables = append(p.variables, fmt.Sprintf("--define=a%d=%s", len(p.variables)+1, list))
	return fmt.Sprint(":a", len(p.variables))
}

// orderID is the id of an order of pgbench, whose number is u.
const orderID = "(:prefix::text || lpad(to_hex(:u::bigint), 16, '0'))"

// load has pgbench run a script until end, once its connections are warm: new ones fill their caches, with which 128 of them keep two cores busy for
// 2 s. It logs each transaction.
func (p *pgbench) load(ctx context.Context, pace pace, script string, clients int) *load {
	warm := time.Duration(clients) * time.Second / 40
	seconds := int((time.Second + warm + pace.warm + pace.measure + 2*time.Second - 1) / time.Second)
	if pace == trial.pace {
		warm, seconds = 0, 1
	}
	dir := try(os.MkdirTemp(p.dir, "pgbench-"))
	cmd := p.command(ctx, script, "-c", strconv.Itoa(clients), "-j", strconv.Itoa(min(2, clients)), "-P", "1", "-T", strconv.Itoa(seconds),
		"-l", "--log-prefix="+filepath.Join(dir, "log"))
	out := try(cmd.StderrPipe())
	must(cmd.Start())
	begun, said := make(chan struct{}), make(chan string, 1)
	go func() { // until the end of its output
		var all bytes.Buffer
		lines, once := bufio.NewScanner(out), false
		for lines.Scan() {
			all.WriteString(lines.Text() + "\n")
			if strings.HasPrefix(lines.Text(), "progress: ") && !once {
				once = true
				close(begun)
			}
		}
		if !once {
			close(begun)
		}
		said <- all.String()
	}()
	if pace == trial.pace {
		pause(ctx, 300*time.Millisecond)
	} else {
		<-begun // it tells of its first second
	}
	pause(ctx, warm)
	return &load{
		clients: func() time.Duration { t, _ := cpuOf(cmd.Process.Pid); return t },
		end: func() (all []answered) {
			text := <-said
			if err := cmd.Wait(); err != nil {
				must(fmt.Errorf("pgbench: %w\n%.2000s", err, text))
			}
			defer func() { must(os.RemoveAll(dir)) }()
			for _, file := range try(filepath.Glob(filepath.Join(dir, "log.*"))) {
				for line := range bytes.Lines(try(os.ReadFile(file))) { // client, transaction, us, script, second of its end, us of it
					fields := bytes.Fields(line)
					if len(fields) < 6 {
						must(errors.New("pgbench: a line of its log is " + string(line)))
					}
					number := func(i int) int64 { return try(strconv.ParseInt(string(fields[i]), 10, 64)) }
					all = append(all, answered{at: time.Unix(number(4), number(5)*1000), took: time.Duration(number(2)) * time.Microsecond})
				}
			}
			return all
		},
	}
}

// one places one order.
func (p *pgbench) one(ctx context.Context, script string) {
	if out, err := p.command(ctx, script, "-t", "1").CombinedOutput(); err != nil {
		must(fmt.Errorf("pgbench: %w\n%.2000s", err, out))
	}
}

func (p *pgbench) command(ctx context.Context, script string, args ...string) *exec.Cmd {
	args = slices.Concat(p.variables, []string{"-n", "-M", "prepared", "-f", script, "-D", "n=0", "-D", fmt.Sprintf("prefix=%012x7000", time.Now().UnixMilli())},
		args, []string{p.url})
	var options strings.Builder
	session := maps.Clone(pg.Session)
	session["lock_timeout"], session["statement_timeout"] = "1min", "1min" // pgbench ends at its first error, and 128 clients may wait for one row
	for name, value := range session {
		options.WriteString(" -c " + name + "=" + strings.ReplaceAll(value, " ", `\ `))
	}
	cmd := exec.CommandContext(ctx, p.program, args...)
	cmd.Env = append(os.Environ(), "PGOPTIONS="+options.String())
	return cmd
}

// recorder keeps the statements of a connection by their round trips, and is otherwise the tracer that the connection had.
type recorder struct {
	*otelpgx.Tracer
	trips [][]pgx.TraceQueryStartData
}

func (r *recorder) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	r.trips = append(r.trips, []pgx.TraceQueryStartData{d})
	return ctx
}

func (r *recorder) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	r.trips = append(r.trips, nil)
	return ctx
}

func (r *recorder) TraceBatchQuery(_ context.Context, _ *pgx.Conn, d pgx.TraceBatchQueryData) {
	r.trips[len(r.trips)-1] = append(r.trips[len(r.trips)-1], pgx.TraceQueryStartData{SQL: d.SQL, Args: d.Args})
}
