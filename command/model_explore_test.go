package command

import (
	"fmt"
	"hash/maphash"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// state is one state of an explored model. It never changes.
type state interface {
	// next yields every state that one transition can lead to. An environment's transition need never happen: a fault, a client, the time.
	next(yield func(transition))
	// appendKey appends what tells the state from others. States with one key have one future.
	appendKey(b []byte) []byte
	// broken is the rule that the state, or the transition to it, breaks.
	broken() *breach
	// end names the state, in which nothing happens any more unless the environment does something, and tells the rule that it breaks.
	end() (name string, b *breach)
}

type transition struct {
	label       string
	environment bool
	to          state
}

// breach is a rule that does not hold, and how.
type breach struct{ rule, how string }

func breaks(rule, format string, args ...any) *breach {
	return &breach{rule, fmt.Sprintf(format, args...)}
}

// ruleEnds is the explorer's own rule: no run goes on for ever, and none stops where it may not.
const ruleEnds = "every run ends"

// maxDepth is the length of a run that is taken for one that never ends.
const maxDepth = 200

// exploration is what was explored, or the shortest run to the first breach.
type exploration struct {
	states, transitions, depth int
	ends                       map[string]int // by what end says of them
	took                       time.Duration
	breach                     *breach
	path                       []string
}

func (x *exploration) String() string {
	s := fmt.Sprintf("%d states, %d transitions, depth %d, %.1f s", x.states, x.transitions, x.depth, x.took.Seconds())
	if x.breach != nil {
		s += fmt.Sprintf(": broken: %s: %s\n  %s", x.breach.rule, x.breach.how, strings.Join(x.path, "\n  "))
	}
	return s
}

// node is a state that was reached.
type node struct {
	parent int32 // -1 of the first
	label  string
	to     []int32
}

// explore visits every state that can be reached, breadth first, so that a breach is shown with a shortest run. States are told apart by
// 128 bits of a hash of their keys.
func explore(first state) *exploration {
	x := &exploration{ends: map[string]int{}}
	begin := time.Now()
	defer func() { x.took = time.Since(begin) }()
	seeds := [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}
	hash := func(buffer []byte, s state) ([]byte, [2]uint64) {
		buffer = s.appendKey(buffer[:0])
		return buffer, [2]uint64{maphash.Bytes(seeds[0], buffer), maphash.Bytes(seeds[1], buffer)}
	}
	type reached struct {
		id int32
		state
	}
	var mu sync.Mutex // guards the fields of x and what follows
	_, h := hash(nil, first)
	seen, nodes := map[[2]uint64]int32{h: 0}, []node{{parent: -1}}
	// found keeps a breach with a run to it. Of several at one depth it is always one of the same rule.
	found := func(b *breach, at int32, last string) {
		if b == nil || x.breach != nil && x.breach.rule <= b.rule {
			return
		}
		x.breach, x.path = b, nil
		if last != "" {
			x.path = []string{last}
		}
		for ; at >= 0 && nodes[at].parent >= 0; at = nodes[at].parent {
			x.path = append(x.path, nodes[at].label)
		}
		slices.Reverse(x.path)
	}
	frontier := []reached{{0, first}}
	for ; len(frontier) > 0 && x.breach == nil; x.depth++ {
		if x.depth == maxDepth {
			found(breaks(ruleEnds, "a run goes on for ever"), frontier[0].id, "")
			break
		}
		var following []reached
		var workers sync.WaitGroup
		work := make(chan []reached)
		for range runtime.GOMAXPROCS(0) {
			workers.Go(func() {
				var buffer []byte
				for batch := range work {
					for _, from := range batch {
						moves := false
						_, own := hash(buffer, from.state)
						from.next(func(t transition) {
							var h [2]uint64
							buffer, h = hash(buffer, t.to)
							b := t.to.broken()
							if h == own && b == nil {
								return // nothing happened
							}
							moves = moves || !t.environment
							mu.Lock()
							defer mu.Unlock()
							x.transitions++
							found(b, from.id, t.label)
							id, known := seen[h]
							if !known {
								id = int32(len(nodes))
								seen[h], nodes = id, append(nodes, node{parent: from.id, label: t.label})
								following = append(following, reached{id, t.to})
							}
							nodes[from.id].to = append(nodes[from.id].to, id)
						})
						if !moves {
							name, b := from.end()
							mu.Lock()
							x.ends[name]++
							found(b, from.id, "")
							mu.Unlock()
						}
					}
				}
			})
		}
		for batch := range slices.Chunk(frontier, 64) {
			work <- batch
		}
		close(work)
		workers.Wait()
		frontier = following
	}
	x.states = len(nodes)
	if x.breach == nil {
		x.depth-- // nothing new is behind the last states
		if at := onCycle(nodes); at >= 0 {
			found(breaks(ruleEnds, "a state comes back"), at, "")
		}
	}
	return x
}

// onCycle is a state that a run can come back to; -1: there is none. With it, and with end, every run ends: from each state one that does
// not go on, within finitely many transitions.
func onCycle(nodes []node) int32 {
	before := make([]int32, len(nodes)) // transitions to the state from states that are not yet taken away
	for _, n := range nodes {
		for _, to := range n.to {
			before[to]++
		}
	}
	var free []int32
	for id, n := range before {
		if n == 0 {
			free = append(free, int32(id))
		}
	}
	left := len(nodes)
	for ; len(free) > 0; left-- {
		n := nodes[free[len(free)-1]]
		free = free[:len(free)-1]
		for _, to := range n.to {
			if before[to]--; before[to] == 0 {
				free = append(free, to)
			}
		}
	}
	if left == 0 {
		return -1
	}
	return int32(slices.IndexFunc(before, func(n int32) bool { return n > 0 }))
}
