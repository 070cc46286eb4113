package main

import (
	"container/heap"
	"fmt"
	"math/rand/v2"

	"github.com/hashicorp/golang-lru/arc/v2"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/maypok86/otter/v2"
)

// hits is the share of reads that a policy answered on a trace.
type hits struct {
	Trace    string             `json:"trace"`
	Capacity int                `json:"capacity"`
	Ratios   map[string]float64 `json:"ratios"` // by policy
}

// policy is what the policies have in common.
type policy interface {
	Get(key uint64) (struct{}, bool)
	Add(key uint64)
}

// ours is the policy of query.New: 2Q, of whose entries a fiftieth are for keys that were read once. golang-lru's default is a quarter.
const ours = "2Q 0.02/0.50"

// policies are ours and those that it is measured beside.
var policies = map[string]func(size int) policy{
	ours:         func(size int) policy { return twoQueues(size, 0.02, lru.Default2QGhostEntries) },
	"2Q default": func(size int) policy { return twoQueues(size, lru.Default2QRecentRatio, lru.Default2QGhostEntries) },
	"LRU":        func(size int) policy { c, _ := lru.New[uint64, struct{}](size); return plain{c} },
	"ARC":        func(size int) policy { c, _ := arc.NewARC[uint64, struct{}](size); return adaptive{c} },
	"W-TinyLFU": func(size int) policy {
		return tiny{otter.Must(&otter.Options[uint64, struct{}]{MaximumSize: size, Executor: func(run func()) { run() }})}
	},
}

func twoQueues(size int, recent, ghosts float64) policy {
	c, err := lru.New2QParams[uint64, struct{}](size, recent, ghosts)
	if err != nil {
		panic(err)
	}
	return queues{c}
}

type (
	queues struct {
		*lru.TwoQueueCache[uint64, struct{}]
	}
	adaptive struct {
		*arc.ARCCache[uint64, struct{}]
	}
	plain struct{ *lru.Cache[uint64, struct{}] }
	tiny  struct{ *otter.Cache[uint64, struct{}] }
)

func (c queues) Add(key uint64)   { c.TwoQueueCache.Add(key, struct{}{}) }
func (c adaptive) Add(key uint64) { c.ARCCache.Add(key, struct{}{}) }
func (c plain) Add(key uint64)    { c.Cache.Add(key, struct{}{}) }

func (c tiny) Get(key uint64) (struct{}, bool) { return c.GetIfPresent(key) }
func (c tiny) Add(key uint64)                  { c.Set(key, struct{}{}) }

// access reads a key, or writes it through.
type access struct {
	key   uint64
	write bool
}

// ratio replays a trace. The first half fills the cache.
func ratio(c policy, trace []access) float64 {
	reads, found := 0, 0
	for i, a := range trace {
		_, hit := c.Get(a.key)
		if !hit || a.write {
			c.Add(a.key)
		}
		if !a.write && i > len(trace)/2 {
			if reads++; hit {
				found++
			}
		}
	}
	return float64(found) / float64(reads)
}

const accesses = 600_000

// zipf reads 100,000 keys, some much more often than others.
func zipf() (trace []access) {
	keys := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.01, 1, 100_000-1)
	for range accesses {
		trace = append(trace, access{key: keys.Uint64()})
	}
	return trace
}

// lifecycle is what orders are read like: each is written when it is placed and as it goes on, polled less and less often for a while, and
// then read seldom. One read in ten is of any order that there ever was.
func lifecycle() (trace []access) {
	random := rand.New(rand.NewPCG(3, 4))
	var due events
	orders := uint64(0)
	for now := 0.0; len(trace) < accesses; now += random.ExpFloat64() { // an order a unit of time
		for len(due) > 0 && due[0].at < now {
			e := heap.Pop(&due).(event) //nolint:forcetypeassert // nothing else is there
			trace = append(trace, e.access)
			if random.Float64() < 0.1 {
				trace = append(trace, access{key: random.Uint64N(orders)})
			}
		}
		at, wait := now, 50.0
		for poll := 0; poll < 2 || random.Float64() < 0.85; poll++ {
			at += wait * (0.5 + random.Float64())
			wait *= 1.6
			heap.Push(&due, event{at, access{key: orders, write: poll < 3 && poll%2 == 0}})
		}
		trace = append(trace, access{key: orders, write: true})
		orders++
	}
	return trace
}

type event struct {
	at float64
	access
}

type events []event

func (e *events) Len() int           { return len(*e) }
func (e *events) Less(i, j int) bool { return (*e)[i].at < (*e)[j].at }
func (e *events) Swap(i, j int)      { (*e)[i], (*e)[j] = (*e)[j], (*e)[i] }
func (e *events) Push(x any)         { *e = append(*e, x.(event)) } //nolint:forcetypeassert // nothing else is pushed
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// simulate replays both traces at two capacities by each policy; with search by 2Q of many parameters instead.
func simulate(search bool) (all []hits) {
	contenders := policies
	if search {
		contenders = map[string]func(int) policy{}
		for _, recent := range []float64{0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5} {
			for _, ghosts := range []float64{0.1, 0.25, 0.5, 1} {
				contenders[fmt.Sprintf("2Q %.2f/%.2f", recent, ghosts)] = func(size int) policy { return twoQueues(size, recent, ghosts) }
			}
		}
	}
	for of, trace := range map[string][]access{"Zipf": zipf(), "order lifecycle": lifecycle()} {
		for _, capacity := range []int{1000, 5000} {
			h := hits{Trace: of, Capacity: capacity, Ratios: map[string]float64{}}
			for name, contender := range contenders {
				h.Ratios[name] = ratio(contender(capacity), trace)
			}
			all = append(all, h)
		}
	}
	return all
}
