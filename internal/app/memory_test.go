package app

import (
	"math"
	"runtime/debug"
	"testing"
	"testing/fstest"
)

// TestMemoryFollowsTheCgroup: the limit is a part of what the container has, whichever version and layout its cgroup has, else of the machine.
func TestMemoryFollowsTheCgroup(t *testing.T) {
	t.Parallel()
	const mb = int64(1) << 20
	machine := "MemFree: 1 kB\nMemTotal:       8388608 kB\n"
	for name, c := range map[string]struct {
		files           map[string]string
		available, want int64
	}{
		"a machine":           {map[string]string{"proc/meminfo": machine}, 8192 * mb, 2048 * mb},
		"a small machine":     {map[string]string{"proc/meminfo": "MemTotal: 1048576 kB\n"}, 1024 * mb, 1024 * mb * 6 / 10},
		"no Linux":            {nil, 0, 2048 * mb},
		"version 2":           {map[string]string{"proc/meminfo": machine, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "268435456\n"}, 256 * mb, 256 * mb * 6 / 10},
		"version 2, no limit": {map[string]string{"proc/meminfo": machine, "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n"}, 8192 * mb, 2048 * mb},
		"version 2, a group above has less": {map[string]string{
			"proc/meminfo": machine, "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "1073741824\n", "sys/fs/cgroup/a/b/memory.max": "4294967296\n",
		}, 1024 * mb, 1024 * mb * 6 / 10},
		"version 1": {map[string]string{
			"proc/meminfo": machine, "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/x\n0::/\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "536870912\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 512 * mb, 512 * mb * 6 / 10},
		"version 1, the path is the host's": {map[string]string{
			"proc/meminfo": machine, "proc/self/cgroup": "4:hugetlb,memory:/docker/abc\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n",
		}, 512 * mb, 512 * mb * 6 / 10},
		"version 1, no limit": {map[string]string{
			"proc/meminfo": machine, "proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 8192 * mb, 2048 * mb},
	} {
		root := fstest.MapFS{}
		for name, text := range c.files {
			root[name] = &fstest.MapFile{Data: []byte(text)}
		}
		available := availableMemory(root)
		if limit := memoryLimit(available); available != c.available || limit/mb != c.want/mb {
			t.Errorf("%s: %d available, limit %d MB, want %d", name, available, limit/mb, c.want/mb)
		}
	}
}

// TestTheEnvironmentTunesTheGC: GOGC and GOMEMLIMIT that are set stay as they are, each by itself. The log has what is in force.
func TestTheEnvironmentTunesTheGC(t *testing.T) {
	const percent, limit = 123, 456 << 20
	defer debug.SetGCPercent(debug.SetGCPercent(percent))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(limit))
	for _, c := range []struct {
		env                  map[string]string
		percentSet, limitSet int64 // by the runtime, from the environment
		percent, limit       any
	}{
		{map[string]string{"GOGC": "123", "GOMEMLIMIT": "456MiB"}, percent, limit, uint64(percent), uint64(limit)},
		{map[string]string{"GOGC": "123"}, percent, limit, uint64(percent), uint64(maxMemory)},
		{map[string]string{"GOMEMLIMIT": "456MiB"}, percent, limit, uint64(gcPercent), uint64(limit)},
		{nil, percent, limit, uint64(gcPercent), uint64(maxMemory)},
		{map[string]string{"GOGC": "off", "GOMEMLIMIT": "off"}, -1, math.MaxInt64, "off", "off"},
		{map[string]string{"GOGC": "0", "GOMEMLIMIT": "0"}, 0, 0, uint64(0), uint64(0)},
	} {
		debug.SetGCPercent(int(c.percentSet))
		debug.SetMemoryLimit(c.limitSet)
		got := tuneGC(func(name string) string { return c.env[name] }, fstest.MapFS{})
		if got["GOGC"] != c.percent || got["GOMEMLIMIT"] != c.limit {
			t.Errorf("%v: %v", c.env, got)
		}
	}
}

// TestGOGC: what Go's runtime would take for 100 is refused, and nothing else.
func TestGOGC(t *testing.T) {
	t.Parallel()
	for text, right := range map[string]bool{
		"": true, "off": true, "100": true, "0": true, "-1": true, "+50": true, "2147483647": true, "abc": false, "OFF": false, "100%": false, "1 00": false, "1e2": false, "2147483648": false,
	} {
		if err := checkGC(func(string) string { return text }); (err == nil) != right {
			t.Errorf("%q: %v", text, err)
		}
	}
}
