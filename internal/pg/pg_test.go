package pg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ordergate/ordergate/internal/pgtest"
)

func TestInfrastructure(t *testing.T) {
	code := func(c string) error { return fmt.Errorf("query: %w", &pgconn.PgError{Code: c}) }
	_, refusedConn := pgx.Connect(t.Context(), "postgres://127.0.0.1:1/x")
	for _, c := range []struct {
		err              error
		infra, contested bool
	}{
		{code("08006"), true, false}, {code("53100"), true, false}, {code("53300"), true, false}, {code("57P01"), true, false},
		{code("57P03"), true, false}, {code("57014"), true, false}, {code("25006"), true, false},
		{code("40001"), true, true}, {code("40P01"), true, true}, {code("55P03"), true, true},
		{code("22021"), false, false}, {code("23505"), false, false}, {code("25P02"), false, false}, {code("42P01"), false, false},
		{code(""), false, false}, {nil, false, false}, {errors.New("refused by a rule"), false, false},
		{io.ErrUnexpectedEOF, false, false}, {context.Canceled, false, false}, {pgx.ErrTxCommitRollback, false, false},
		{context.DeadlineExceeded, true, false}, {fmt.Errorf("x: %w", pgconn.ErrConnClosed), true, false}, {refusedConn, true, false},
		{ErrOutcomeUnknown, true, false}, {ErrConnectionLost, true, false}, {ErrTimeOver, true, false},
	} {
		if Infrastructure(c.err) != c.infra || Contention(c.err) != c.contested {
			t.Errorf("%v: infrastructure %v, contention %v", c.err, Infrastructure(c.err), Contention(c.err))
		}
	}
}

func TestLockNotHad(t *testing.T) {
	for code, want := range map[string]bool{"55P03": true, "40P01": false, "55006": false, "": false} {
		if got := LockNotHad(fmt.Errorf("query: %w", &pgconn.PgError{Code: code})); got != want {
			t.Errorf("%q: %v", code, got)
		}
	}
	if LockNotHad(nil) || LockNotHad(context.DeadlineExceeded) {
		t.Error("it is no answer of the server")
	}
}

func TestInTx(t *testing.T) {
	t.Parallel()
	ctx, pool := t.Context(), pgtest.New(t).Pool
	exec := func(sql string, args ...any) {
		if _, err := pool.Exec(ctx, sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(`CREATE TABLE once (id integer UNIQUE DEFERRABLE INITIALLY DEFERRED)`)
	die := func(tx pgx.Tx) { exec(`SELECT pg_terminate_backend($1, 5000)`, tx.Conn().PgConn().PID()) }
	for name, c := range map[string]struct {
		do   func(tx pgx.Tx) error
		want error
	}{
		"a connection that dies inside f": {func(tx pgx.Tx) error { die(tx); _, err := tx.Exec(ctx, `SELECT 1`); return err }, ErrConnectionLost},
		"an EOF of a dead connection": {func(tx pgx.Tx) error {
			die(tx)
			_, _ = tx.Exec(ctx, `SELECT 1`)
			return io.ErrUnexpectedEOF
		}, ErrConnectionLost},
		"a connection that dies before COMMIT": {func(tx pgx.Tx) error { die(tx); return nil }, ErrOutcomeUnknown},
		"a COMMIT that is refused":             {func(tx pgx.Tx) error { _, err := tx.Exec(ctx, `INSERT INTO once VALUES (1), (1)`); return err }, nil},
		"a failure that f swallows":            {func(tx pgx.Tx) error { _, _ = tx.Exec(ctx, `SELECT 1/0`); return nil }, nil},
		"what f says":                          {func(pgx.Tx) error { return errors.New("no") }, nil},
	} {
		err := InTx(ctx, pool, c.do)
		if err == nil || Infrastructure(err) != (c.want != nil) || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	func() {
		defer func() { _ = recover() }()
		_ = InTx(ctx, pool, func(pgx.Tx) error { panic("bug") })
	}()
	for end, tick := time.Now().Add(10*time.Second), time.Tick(2*time.Millisecond); pool.Stat().AcquiredConns() > 0; <-tick {
		if time.Now().After(end) {
			t.Fatal("a connection is kept")
		}
	}
}

func TestPipeline(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	proxy, pool := db.BehindProxy(t)
	exec := func(sql string, args ...any) {
		if _, err := db.Pool.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(`CREATE TABLE once (name text UNIQUE DEFERRABLE INITIALLY DEFERRED)`)
	die := func(tx pgx.Tx) { exec(`SELECT pg_terminate_backend($1, 5000)`, tx.Conn().PgConn().PID()) }
	insert := `INSERT INTO once VALUES ($1)`
	for name, c := range map[string]struct {
		first string
		do    func(tx pgx.Tx, name string, ends *Ends) error
		want  error // nil: it is none of the marks
		code  string
		there bool
		ok    bool
	}{
		"all is well":                  {do: func(_ pgx.Tx, name string, ends *Ends) error { ends.Last.Queue(insert, name); return nil }, there: true, ok: true},
		"nothing to write":             {do: func(pgx.Tx, string, *Ends) error { return nil }, ok: true},
		"what f says":                  {do: func(_ pgx.Tx, name string, ends *Ends) error { ends.Last.Queue(insert, name); return errors.New("no") }},
		"a first statement that fails": {first: "SELECT 1/0", code: "22012"},
		"a last statement that fails": {do: func(_ pgx.Tx, name string, ends *Ends) error {
			ends.Last.Queue(insert, name)
			ends.Last.Queue("SELECT 1/0")
			return nil
		}, code: "22012"},
		"an argument that cannot be encoded": {do: func(_ pgx.Tx, name string, ends *Ends) error {
			ends.Last.Queue(insert, name)
			ends.Last.Queue("SELECT $1::integer", struct{}{})
			return nil
		}},
		"an argument behind COMMIT that cannot be encoded": {do: func(_ pgx.Tx, name string, ends *Ends) error {
			ends.Last.Queue(insert, name)
			ends.After.Queue("SELECT $1::integer", struct{}{})
			return nil
		}, want: ErrOutcomeUnknown, there: true},
		"a row that cannot be read": {do: func(_ pgx.Tx, name string, ends *Ends) error {
			ends.Last.Queue(insert, name)
			ends.Last.Queue("SELECT 1").QueryRow(func(pgx.Row) error { return errors.New("not read") })
			return nil
		}, want: ErrOutcomeUnknown, there: true},
		"a failure that f swallows": {do: func(tx pgx.Tx, name string, ends *Ends) error {
			_, _ = tx.Exec(t.Context(), "SELECT 1/0")
			ends.Last.Queue(insert, name)
			return nil
		}, code: "25P02"},
		"nothing after a failure that f swallows": {do: func(tx pgx.Tx, _ string, _ *Ends) error {
			_, _ = tx.Exec(t.Context(), "SELECT 1/0")
			return nil
		}, want: ErrRefusedAtCommit},
		"a COMMIT that is refused": {do: func(_ pgx.Tx, name string, ends *Ends) error {
			ends.Last.Queue(insert, name)
			ends.Last.Queue(insert, name)
			return nil
		}, want: ErrRefusedAtCommit, code: "23505"},
		"what fails behind COMMIT": {do: func(_ pgx.Tx, name string, ends *Ends) error {
			ends.Last.Queue(insert, name)
			ends.After.Queue("SELECT 1/0")
			return nil
		}, there: true, ok: true},
		"a connection that dies inside f": {do: func(tx pgx.Tx, _ string, _ *Ends) error {
			die(tx)
			_, err := tx.Exec(t.Context(), `SELECT 1`)
			return err
		}, want: ErrConnectionLost},
		"a connection that dies before COMMIT": {do: func(tx pgx.Tx, name string, ends *Ends) error { ends.Last.Queue(insert, name); die(tx); return nil }, want: ErrOutcomeUnknown},
		"an answer that is lost": {do: func(_ pgx.Tx, name string, ends *Ends) error {
			ends.Last.Queue(insert, name)
			proxy.CutAfter(pgtest.PipelinedCommit)
			return nil
		}, want: ErrOutcomeUnknown, there: true},
		"a COMMIT that is lost": {do: func(_ pgx.Tx, name string, ends *Ends) error {
			ends.Last.Queue(insert, name)
			proxy.CutBefore(pgtest.PipelinedCommit)
			return nil
		}, want: ErrOutcomeUnknown},
	} {
		conn, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pid := conn.Conn().PgConn().PID()
		err = Pipeline(t.Context(), conn.Conn(), func(first *pgx.Batch) {
			if c.first != "" {
				first.Queue(c.first)
			}
		}, func(tx pgx.Tx, ends *Ends) error { return c.do(tx, name, ends) })
		if status := conn.Conn().PgConn().TxStatus(); !conn.Conn().IsClosed() && status != 'I' {
			t.Errorf("%s: the transaction is %c", name, status)
		}
		conn.Release()
		for _, mark := range []error{ErrConnectionLost, ErrTimeOver, ErrOutcomeUnknown, ErrRefusedAtCommit} {
			if errors.Is(err, mark) != errors.Is(c.want, mark) {
				t.Errorf("%s: %v", name, err)
			}
		}
		code := ""
		if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.SeverityUnlocalized == "ERROR" {
			code = e.Code
		}
		if (err == nil) != c.ok || code != c.code {
			t.Errorf("%s: %v", name, err)
		}
		for gone, end := false, time.Now().Add(10*time.Second); !gone && time.Now().Before(end); { // a transaction of a lost connection may go on for a while
			if err := db.Pool.QueryRow(t.Context(), "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $1 AND state <> 'idle'", pid).Scan(&gone); err != nil {
				t.Fatal(err)
			}
		}
		there := false
		if err := db.Pool.QueryRow(t.Context(), "SELECT count(*) > 0 FROM once WHERE name = $1", name).Scan(&there); err != nil {
			t.Fatal(err)
		}
		if there != c.there {
			t.Errorf("%s: its row is there: %v", name, there)
		}
	}
	func() {
		defer func() { _ = recover() }()
		conn, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
		_ = Pipeline(t.Context(), conn.Conn(), func(*pgx.Batch) {}, func(pgx.Tx, *Ends) error { panic("bug") })
	}()
	if n := pool.Stat().AcquiredConns(); n > 0 {
		t.Errorf("%d connections are kept", n)
	}
}

// A COMMIT that was sent is in doubt, however the driver words the loss of its answer.
func TestACommitWithoutAnAnswerIsInDoubt(t *testing.T) {
	t.Parallel()
	proxy, pool := pgtest.New(t).BehindProxy(t)
	for name, cut := range map[string]func(string) <-chan struct{}{"the answer is lost": proxy.CutAfter, "COMMIT is lost": proxy.CutBefore} {
		cut("commit\x00")
		if err := InTx(t.Context(), pool, func(tx pgx.Tx) error { _, err := tx.Exec(t.Context(), "SELECT 1"); return err }); !errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A deadline or an end before COMMIT is named so: the connection is well, and serves the next transaction.
func TestATransactionWhoseTimeIsOver(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t).Pool
	ended := func() (context.Context, context.CancelFunc) { return context.WithCancel(t.Context()) }
	late := func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(t.Context(), 200*time.Millisecond)
	}
	for name, c := range map[string]struct {
		ctx    func() (context.Context, context.CancelFunc)
		before bool // it ends before BEGIN, else before COMMIT
		cause  error
	}{
		"canceled before COMMIT": {ended, false, context.Canceled},
		"late for COMMIT":        {late, false, context.DeadlineExceeded},
		"canceled before BEGIN":  {ended, true, context.Canceled},
		"late for BEGIN":         {late, true, context.DeadlineExceeded},
	} {
		ctx, cancel := c.ctx()
		end := func() {
			if errors.Is(c.cause, context.Canceled) {
				cancel()
			}
			<-ctx.Done()
		}
		conn, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if c.before {
			end()
		}
		err = InTx(ctx, conn, func(pgx.Tx) error { end(); return nil })
		if !errors.Is(err, ErrTimeOver) || errors.Is(err, ErrConnectionLost) || !errors.Is(err, c.cause) || !Infrastructure(err) {
			t.Errorf("%s: %v", name, err)
		}
		if !c.before && conn.Conn().IsClosed() {
			t.Errorf("%s: the connection is closed", name)
		}
		conn.Release()
		cancel()
	}
}

// The server ends the transaction of a process that is stopped (a frozen machine, SIGSTOP): such a process has no timer.
func TestAFrozenProcessLosesItsLocks(t *testing.T) {
	t.Parallel()
	ctx, db := t.Context(), pgtest.New(t)
	if _, err := db.Pool.Exec(ctx, `INSERT INTO accounts (id, name) VALUES (1, 'a')`); err != nil {
		t.Fatal(err)
	}
	pool, err := Connect(ctx, db.PrimaryURL, 4, Session, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	frozen, err := pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = frozen.Rollback(ctx) }()
	const lock = `SELECT id FROM accounts WHERE id = 1 FOR UPDATE`
	if _, err = frozen.Exec(ctx, lock); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for {
		_, err = pool.Exec(ctx, lock)
		if err == nil {
			return
		}
		if !Contention(err) || time.Since(begin) > 10*time.Second {
			t.Fatalf("after %v: %v", time.Since(begin), err)
		}
	}
}
