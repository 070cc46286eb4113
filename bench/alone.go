package main

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// plain sends the statements that were recorded of an order once more: the same texts, prepared, with arguments of the same types, in the same round trips, by
// pgx and nothing else. Each order has an id, a key and a lock of its own.
type plain struct {
	conn  *pgxpool.Conn
	of    *pgbench
	trips [][]pgx.TraceQueryStartData
	n     int64
}

func (p *plain) place(ctx context.Context) error {
	p.n++
	id, key := uuid.Must(uuid.NewV7()), "pgbench-"+uuid.NewString()
	for _, trip := range p.trips {
		batch := &pgx.Batch{}
		for _, s := range trip {
			arguments := make([]any, len(s.Args))
			for i, a := range s.Args {
				arguments[i] = a
				if own := p.own(reflect.ValueOf(a), id, key); own.IsValid() {
					arguments[i] = own.Interface()
				}
			}
			batch.Queue(s.SQL, arguments...)
		}
		if err := p.conn.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
	}
	return nil
}

// own is a list with what this order has for itself in the place of what the recorded one had.
func (p *plain) own(list reflect.Value, id uuid.UUID, key string) (own reflect.Value) {
	if list.Kind() != reflect.Slice {
		return own
	}
	own = reflect.MakeSlice(list.Type(), list.Len(), list.Len())
	for i := range list.Len() {
		v := own.Index(i)
		v.Set(list.Index(i))
		switch recorded := v.Interface().(type) {
		case string:
			if recorded == p.of.key {
				v.SetString(key)
			}
		case int64:
			if list.Len() == 1 && lock.MatchString(fmt.Sprintf("{%d}", recorded)) {
				v.SetInt(time.Now().UnixNano() + p.n)
			}
		default:
			bytes := v
			if v.Kind() == reflect.Struct { // pgtype.UUID
				bytes = v.FieldByName("Bytes")
			}
			if bytes.IsValid() && bytes.Type().ConvertibleTo(reflect.TypeFor[[16]byte]()) && bytes.Kind() == reflect.Array &&
				bytes.Convert(reflect.TypeFor[[16]byte]()).Interface() == [16]byte(p.of.id) {
				bytes.Set(reflect.ValueOf([16]byte(id)).Convert(bytes.Type()))
			}
		}
	}
	return own
}

// measureAlone compares the time of an order of one caller, who has the program for itself, with that of a plain call.
func measureAlone(ctx context.Context, b *writeBench) {
	p := b.pgbench(ctx, "alone", b.draft(0))
	pool := try(pgxpool.NewWithConfig(ctx, func() *pgxpool.Config {
		c := b.components.Primary.Config()
		c.ConnConfig.Tracer = nil
		return c
	}()))
	defer pool.Close()
	conn := try(pool.Acquire(ctx))
	defer conn.Release()
	call := &plain{conn: conn, of: p, trips: p.recorded.trips}
	const legPlain = "plain call"
	b.writeTheSame(ctx, []contender{
		b.insideLeg(), {name: legPlain, one: func(ctx context.Context) { must(call.place(ctx)) }},
	})
	c := b.components.NewCommands(b.components.Primary, nil)
	ours := func(n int64) error {
		_, err := b.place(ctx, c, fmt.Sprintf("alone-%012d", n), b.draft(n))
		return err
	}
	one := func(name string, work func(n int64) error) contender {
		return contender{name: name, clients: 1, load: func(ctx context.Context, _ int) *load { return b.calls(ctx, 1, work) }}
	}
	rows := b.compare(ctx, "alone", 1, one(legInside, ours), one(legPlain, func(int64) error { return call.place(ctx) }))
	p50 := func(leg string) []float64 { return each(rows, leg, func(r row) float64 { return r.P50 }) }
	program := func(leg string) []float64 { return each(rows, leg, func(r row) float64 { return r.Program }) }
	b.add(
		newFigure("one caller alone / a plain call of the same statements, p50", "ms", "<= 1.05", p50(legInside), p50(legPlain)),
		newFigure("CPU of this process for it", "us", "", program(legInside), program(legPlain)),
	)
}
