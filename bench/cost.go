package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/ordergate/ordergate/query"
)

// servers are the processes beside the program's own. A PostgreSQL server is its postmaster and all that this has started.
type servers struct {
	primary, redis int // pid
	replicas       []int
}

func findServers(ctx context.Context) (s servers) {
	s.primary = postmaster(ctx, os.Getenv("ORDERGATE_TEST_PRIMARY"))
	for _, name := range []string{"ORDERGATE_TEST_REPLICA", "ORDERGATE_TEST_LAGGING"} {
		if url := os.Getenv(name); url != "" {
			s.replicas = append(s.replicas, postmaster(ctx, url))
		}
	}
	client := try(query.OpenRedis(os.Getenv("ORDERGATE_TEST_REDIS")))
	defer func() { _ = client.Close() }()
	info := try(client.Info(ctx, "server").Result())
	s.redis = try(strconv.Atoi(regexp.MustCompile(`process_id:(\d+)`).FindStringSubmatch(info)[1]))
	return s
}

// postmaster is the process of a server on this machine.
func postmaster(ctx context.Context, url string) int {
	db := try(pgx.Connect(ctx, url))
	defer func() { _ = db.Close(ctx) }()
	var dir string
	must(db.QueryRow(ctx, "SELECT current_setting('data_directory')").Scan(&dir))
	first, _, _ := bytes.Cut(try(os.ReadFile(filepath.Join(dir, "postmaster.pid"))), []byte("\n"))
	return try(strconv.Atoi(string(first)))
}

// cpuOf is the CPU time of a process so far, in user and kernel mode, by the scheduler's own clock (clock_getcpuclockid): the ticks of
// /proc/PID/stat are 10 ms.
func cpuOf(pid int) (time.Duration, error) {
	var t unix.Timespec
	err := unix.ClockGettime(int32(^pid)<<3|2, &t)
	return time.Duration(t.Nano()), err
}

// cpuOfTree is the CPU time of a process, of its children, and of those that have ended.
func cpuOfTree(pid int) time.Duration {
	sum := try(cpuOf(pid))
	children := try(os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)))
	stat := string(try(os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))))
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	for _, ticks := range fields[13:15] { // cutime, cstime
		sum += time.Duration(try(strconv.Atoi(ticks))) * 10 * time.Millisecond
	}
	for child := range strings.FieldsSeq(string(children)) {
		if t, err := cpuOf(try(strconv.Atoi(child))); err == nil { // else it has ended since
			sum += t
		}
	}
	return sum
}

// costs are what orders take, up to a moment or between two.
type costs struct {
	took                                       time.Duration
	program, primary, replicas, redis, clients time.Duration // CPU
	wal                                        int64         // bytes
	allocations                                float64
}

// load keeps a program busy until end.
type load struct {
	program, clients func() time.Duration // CPU so far; nil: there is none
	allocations      func() float64       // so far; nil: none are counted
	end              func() []answered
	answers          *atomic.Int64 // so far; nil: not counted
}

// answered is a request that has its answer.
type answered struct {
	at   time.Time
	took time.Duration
	kind kind
}

type kind byte

const (
	accepted kind = iota
	refused       // for now: the machine has too much to do
	soldOut
)

// now is what was spent so far.
func (g *gateway) now(ctx context.Context, l *load) (c costs) {
	must(g.db.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn() - '0/0'").Scan(&c.wal))
	if l.program != nil {
		c.program = l.program()
	}
	if l.clients != nil {
		c.clients = l.clients()
	}
	if l.allocations != nil {
		c.allocations = l.allocations()
	}
	c.primary, c.redis = cpuOfTree(g.servers.primary), cpuOfTree(g.servers.redis)
	for _, replica := range g.servers.replicas {
		c.replicas += cpuOfTree(replica)
	}
	c.took = time.Since(started)
	return c
}

func (c costs) since(from costs) costs {
	return costs{c.took - from.took, c.program - from.program, c.primary - from.primary, c.replicas - from.replicas, c.redis - from.redis, c.clients - from.clients,
		c.wal - from.wal, c.allocations - from.allocations}
}

// row is what a leg of the write path did in a round. CPU and all behind it are of an order.
type row struct {
	Part        string  `json:"part"`
	Leg         string  `json:"leg"`
	Clients     int     `json:"clients"`
	Round       int     `json:"round"`
	Orders      int     `json:"orders"`
	Rate        float64 `json:"per_second"`
	P50         float64 `json:"p50_ms"`
	P99         float64 `json:"p99_ms"`
	Program     float64 `json:"program_us"`
	Primary     float64 `json:"primary_us"`
	Replicas    float64 `json:"replicas_us"`
	Redis       float64 `json:"redis_us"`
	Load        float64 `json:"clients_us"`
	WAL         float64 `json:"wal_bytes"`
	Allocations float64 `json:"allocations,omitempty"`
}

// all is the CPU of an order, of all processes.
func (r row) all() float64 { return r.Program + r.Primary + r.Replicas + r.Redis + r.Load }

// measure is a row of what was accepted while a load is kept up. It has no orders if nothing was.
func (g *gateway) measure(ctx context.Context, p pace, l *load) row {
	from, to := g.watch(ctx, p, l)
	return newRow(from, to, l.end(), accepted)
}

// watch lets a load run, and returns what was spent up to the begin and the end of the time that counts. Each load beside it, if it counts its answers, has
// one in that time.
func (g *gateway) watch(ctx context.Context, p pace, l *load, beside ...*load) (from, to costs) {
	pause(ctx, p.warm)
	from = g.now(ctx, l)
	before := make([]int64, len(beside))
	for i, other := range beside {
		before[i] = other.answers.Load()
	}
	pause(ctx, p.measure)
	for i, other := range beside {
		for other.answers.Load() == before[i] && ctx.Err() == nil {
			pause(ctx, time.Millisecond)
		}
	}
	to = g.now(ctx, l)
	return from, to
}

// newRow is a row of the answers of a kind between two moments.
func newRow(from, to costs, all []answered, of kind) row {
	spent, late := to.since(from), 0
	var took []float64
	for _, a := range all {
		if at := a.at.Sub(started); at < from.took || at >= to.took {
			continue
		}
		switch a.kind {
		case of:
			took = append(took, float64(a.took.Microseconds())/1000)
		case refused:
			late++
		default:
		}
	}
	if late > 0 {
		sayf("%d refused for now: the machine has too much to do, this round says little", late)
	}
	if len(took) == 0 {
		return row{}
	}
	return row{P50: percentile(took, 0.5), P99: percentile(took, 0.99)}.of(spent, len(took))
}

// of gives a row the costs of n orders.
func (r row) of(spent costs, n int) row {
	us := func(d time.Duration) float64 { return round(float64(d.Nanoseconds()) / 1000 / float64(n)) }
	r.Orders, r.Rate = n, math.Round(float64(n)/spent.took.Seconds())
	r.Program, r.Primary, r.Replicas, r.Redis, r.Load = us(spent.program), us(spent.primary), us(spent.replicas), us(spent.redis), us(spent.clients)
	r.WAL, r.Allocations = math.Round(float64(spent.wal)/float64(n)), round(spent.allocations/float64(n))
	return r
}

func percentile(v []float64, p float64) float64 {
	sorted := slices.Sorted(slices.Values(v))
	return round(sorted[int(p*float64(len(sorted)-1))])
}

// each is one number of the rows of a leg, by round.
func each(rows []row, leg string, of func(row) float64) (all []float64) {
	for _, r := range rows {
		if r.Leg == leg {
			all = append(all, of(r))
		}
	}
	return all
}

func rate(r row) float64 { return r.Rate }

// medians is a row of the medians of a leg's rounds.
func medians(rows []row, leg string) row {
	m := func(of func(row) float64) float64 { return median(each(rows, leg, of)) }
	return row{
		Leg: leg, Clients: int(m(func(r row) float64 { return float64(r.Clients) })), Rate: m(rate),
		P50: m(func(r row) float64 { return r.P50 }), P99: m(func(r row) float64 { return r.P99 }),
		Program: m(func(r row) float64 { return r.Program }), Primary: m(func(r row) float64 { return r.Primary }),
		Replicas: m(func(r row) float64 { return r.Replicas }), Redis: m(func(r row) float64 { return r.Redis }), Load: m(func(r row) float64 { return r.Load }),
		WAL: m(func(r row) float64 { return r.WAL }), Allocations: m(func(r row) float64 { return r.Allocations }),
	}
}

const rowHeader = "leg\tclients\torders/s\tp50 ms\tp99 ms\tus: program\tprimary\treplicas\tRedis\tclients\tall\tWAL bytes\tallocations\t"

func (r row) line() string {
	numbers := []float64{r.Rate, r.P50, r.P99, r.Program, r.Primary, r.Replicas, r.Redis, r.Load, r.all(), r.WAL, r.Allocations}
	cells := make([]string, len(numbers))
	for i, v := range numbers {
		cells[i] = short(v)
	}
	return r.Leg + "\t" + strconv.Itoa(r.Clients) + "\t" + strings.Join(cells, "\t") + "\t"
}

// rowsJSON has a row a line.
func rowsJSON(rows []row) string {
	lines := make([]string, len(rows))
	for i, r := range rows {
		lines[i] = "  " + string(try(json.Marshal(r)))
	}
	return "[\n" + strings.Join(lines, ",\n") + "\n ]"
}
