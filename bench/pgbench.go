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

	"github.com/ordergate/ordergate/internal/pg"
)

// pgbench is the limit of the write path: the SQL of one order a transaction, without any program around it.
type pgbench struct {
	program, url, dir string
	variables         []string // options that set the scripts' a1, a2, ...
	function          string   // a script: the statements of an order as one function
}

var (
	comments  = regexp.MustCompile(`(?m)^--.*\n`)
	parameter = regexp.MustCompile(`\$(\d+)::(\w+\[])`)
)

// pgbench places an order, records its SQL, and makes a function of everything between BEGIN and COMMIT. Each call of the script has an
// id that grows with time, a key and a lock of its own; everything else is the same for all.
func (g *gateway) pgbench(ctx context.Context) *pgbench {
	p := &pgbench{program: "pgbench", url: g.primary, dir: g.dir}
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
	p.function = p.script("place", "SELECT place("+strings.Join(arguments, ", ")+");\n")
	return p
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
		id: "(:prefix::text || lpad(to_hex(:u::bigint), 16, '0'))", key: "('pgbench-' || :prefix::text || :u::bigint)",
	} {
		if rest := strings.ReplaceAll(list, same, ""); rest != list && strings.Trim(rest, "{,}") == "" {
			return "('" + strings.ReplaceAll(list, same, "' || "+own+" || '") + "')"
		}
	}
	p.variables = append(p.variables, fmt.Sprintf("--define=a%d=%s", len(p.variables)+1, list))
	return fmt.Sprint(":a", len(p.variables))
}

// load has pgbench run a script until end, once its connections are warm: new ones fill their caches, with which 128 of them keep two cores busy for
// 2 s. It logs each transaction.
func (p *pgbench) load(ctx context.Context, pace pace, script string, clients int) *load {
	warm := time.Duration(0)
	if pace == whole.pace {
		warm = time.Duration(clients) * time.Second / 40
	}
	dir := try(os.MkdirTemp(p.dir, "pgbench-"))
	seconds := int((time.Second + warm + pace.warm + pace.measure + 2*time.Second - 1) / time.Second)
	args := slices.Concat(p.variables, []string{"-n", "-M", "prepared", "-f", script, "-c", strconv.Itoa(clients), "-j", strconv.Itoa(min(2, clients)), "-P", "1",
		"-T", strconv.Itoa(seconds), "-l", "--log-prefix=" + filepath.Join(dir, "log"), "-D", "n=0", "-D", fmt.Sprintf("prefix=%012x7000", time.Now().UnixMilli()), p.url})
	var options strings.Builder
	session := maps.Clone(pg.Session)
	session["lock_timeout"] = "10s" // pgbench ends at its first error, and 128 clients may wait longer to extend a table
	for name, value := range session {
		options.WriteString(" -c " + name + "=" + strings.ReplaceAll(value, " ", `\ `))
	}
	cmd := exec.CommandContext(ctx, p.program, args...)
	cmd.Env = append(os.Environ(), "PGOPTIONS="+options.String())
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
	<-begun
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
