package app

import (
	"fmt"
	"io/fs"
	"math"
	"path"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
)

const (
	gcPercent = 400 // of the live heap may be allocated between two collections: docs/performance.md has what others cost
	// memoryShare is the part of the memory that the heap, stacks and the runtime may have. The rest is for the program's text, the kernel's buffers
	// of connections, and what is allocated while a collection runs.
	memoryShare = 0.6
	maxMemory   = 2 << 30 // bytes: of a machine with more, others may want theirs
)

// tuneGC sets the garbage collector, but for what GOGC and GOMEMLIMIT of the environment set, and returns for the log what is in force. root
// is the file system, which tells how much memory there is.
func tuneGC(getenv func(string) string, root fs.FS) map[string]any {
	if getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	available := availableMemory(root)
	if getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit(available))
	}
	samples := []metrics.Sample{{Name: "/gc/gogc:percent"}, {Name: "/gc/gomemlimit:bytes"}}
	metrics.Read(samples)
	orOff := func(n, off uint64) any { // the runtime has a number for off
		if n == off {
			return "off"
		}
		return n
	}
	return map[string]any{
		"GOGC": orOff(samples[0].Value.Uint64(), math.MaxUint64), "GOMEMLIMIT": orOff(samples[1].Value.Uint64(), math.MaxInt64), "available": available,
	}
}

// checkGC refuses a GOGC that Go's runtime does not understand: it would take 100 without a word. A wrong GOMEMLIMIT ends the process before main.
func checkGC(getenv func(string) string) error {
	text := getenv("GOGC")
	if _, err := strconv.ParseInt(text, 10, 32); err != nil && text != "" && text != "off" {
		return fmt.Errorf("cannot parse GOGC: %q must be off or a whole number of percent", text)
	}
	return nil
}

// memoryLimit is the limit for a process that has so many bytes; 0: it is not known.
func memoryLimit(available int64) int64 {
	if available == 0 {
		return maxMemory
	}
	return min(maxMemory, int64(memoryShare*float64(available)))
}

// availableMemory is how many bytes the process may use: what the machine has, or less by a limit of its cgroup or of one above that, of
// version 2 or 1. 0: it is not known.
func availableMemory(root fs.FS) int64 {
	var limits []int64
	note := func(text string, unit int64) {
		if n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil && n > 0 { // "max" is none
			limits = append(limits, n*unit)
		}
	}
	var kilobytes string
	eachLine(root, "proc/meminfo", func(line string) {
		if _, err := fmt.Sscanf(line, "MemTotal: %s kB", &kilobytes); err == nil {
			note(kilobytes, 1<<10)
		}
	})
	eachLine(root, "proc/self/cgroup", func(line string) {
		parts := strings.SplitN(line, ":", 3) // number, controllers, path
		if len(parts) < 3 {
			return
		}
		mount, file := "sys/fs/cgroup", "memory.max"
		if parts[1] != "" {
			mount, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		}
		if parts[1] != "" && !slices.Contains(strings.Split(parts[1], ","), "memory") {
			return
		}
		for group := path.Join("/", parts[2]); ; group = path.Dir(group) { // a container may see its own as the root
			if text, err := fs.ReadFile(root, path.Join(mount, group, file)); err == nil {
				note(string(text), 1)
			}
			if group == "/" {
				return
			}
		}
	})
	if len(limits) == 0 {
		return 0
	}
	return slices.Min(limits)
}

// eachLine calls f with each line of a file; one that cannot be read has none.
func eachLine(root fs.FS, name string, f func(string)) {
	text, _ := fs.ReadFile(root, name)
	for line := range strings.Lines(string(text)) {
		f(strings.TrimSpace(line))
	}
}
