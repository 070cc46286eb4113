// Package devstack runs a real PostgreSQL primary, its streaming replicas and a Redis as child processes on private loopback
// ports, so that one command starts everything and tests run on the real servers. The system's own servers are left alone.
package devstack

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed" // install.sh
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Config lists the servers of a stack and the folder of their data.
type Config struct {
	Dir      string       // absolute path of the data folder, made if missing; used by one run at a time
	Replicas []Replica    // the first start, and a replica that fell too far behind, copies the primary
	Programs []Program    // started after the servers
	MinFree  int64        // bytes; a start with less free space on the disk is refused
	Progress func(string) // called with a line about each step that takes time; may be nil

	// Prepare may change the command of a server before each of its starts. It may be nil.
	Prepare func(name string, cmd *exec.Cmd)
}

// Replica is a streaming replica of the primary.
type Replica struct {
	Name       string        // lower-case letters, digits and underscores; not primary, not redis
	ApplyDelay time.Duration // each commit is seen this much later than it was made
}

// Program is a process of ours that runs beside the servers, as our user.
type Program struct {
	Name    string // as a replica's
	URL     string // where it listens, for Running; may be empty
	Command func() *exec.Cmd
	Ready   func(context.Context) error // asked until it returns nil
}

// Stack is a running primary, its replicas and Redis.
type Stack struct {
	PrimaryURL  string   // database ordergate, as superuser
	ReplicaURLs []string // the same on the replicas, in the order of Config.Replicas
	RedisURL    string   // keeps nothing on disk; evicts by LRU past 256 MB

	cfg      Config
	bin      string              // folder of initdb and postgres
	user     *syscall.Credential // of the children; nil: ours
	lock     *os.File
	state    state
	servers  []server // in the order of their start
	forks    chan func()
	exits    chan Exit
	stopping chan struct{}
}

// server is one of a stack. start prepares it, starts it and returns when it is ready.
type server struct {
	name  string
	start func(context.Context) (*child, error)
}

// state is kept between runs in state.json of the data folder.
type state struct {
	Password string         `json:"password"`
	Ports    map[string]int `json:"ports"` // by server: primary, redis, names of the replicas

	URLs map[string]string `json:"urls,omitempty"` // by program
}

// DataDir is where a project keeps its stack's data: in its own .ordergate folder, but as root below /var/lib, because
// PostgreSQL refuses root and the user that it runs as instead cannot enter a project below root's home.
func DataDir(project string) string {
	if abs, err := filepath.Abs(project); err == nil {
		project = abs
	}
	if os.Getuid() != 0 {
		return filepath.Join(project, ".ordergate")
	}
	sum := sha256.Sum256([]byte(project))
	return filepath.Join("/var/lib/ordergate", hex.EncodeToString(sum[:6]))
}

//go:embed install.sh
var installScript string

// Install runs install.sh, which installs PostgreSQL and Redis where they are missing. Its output goes to out.
func Install(ctx context.Context, out io.Writer) error {
	cmd := exec.CommandContext(ctx, "sh", "-c", installScript)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, out, out
	cmd.Cancel = func() error { return nil } // the installer ends by itself
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("install PostgreSQL and Redis: %w", cmp.Or(ctx.Err(), err))
	}
	return nil
}

// Start starts the stack and returns when every server answers and every replica streams. It uses the data of an earlier run,
// after a crash too, and first stops servers that the run left. Ports stay the same between runs if they are still free.
// The caller must call Stop; when it is killed the children end by themselves (on Linux). On a full disk the error says so; when ctx
// ends, the error is that of ctx and nothing runs.
func Start(ctx context.Context, cfg Config) (_ *Stack, err error) {
	if cfg.Progress == nil {
		cfg.Progress = func(string) {}
	}
	s := &Stack{cfg: cfg, forks: make(chan func()), stopping: make(chan struct{})}
	s.exits = make(chan Exit, 2+len(cfg.Replicas)+len(cfg.Programs)) // a server ends once before it is started again
	go s.runForks()
	defer func() {
		if err != nil {
			err = DiskFull(cfg.Dir, fmt.Errorf("start the servers in %s: %w", cfg.Dir, cmp.Or(ctx.Err(), err))) // before Stop frees space
			err = errors.Join(err, s.Stop(ctx))
		}
	}()
	if s.user, err = childUser(); err != nil {
		return nil, err
	}
	if s.lock, err = lockDir(s.cfg.Dir); err != nil {
		return nil, err
	}
	if free, err := freeSpace(s.cfg.Dir); err == nil && free < cfg.MinFree {
		return nil, fmt.Errorf("%w: %d MB are free, a start needs %d MB", errDiskFull, free>>20, cfg.MinFree>>20)
	}
	s.servers = []server{{"redis", s.startRedis}, {"primary", s.startPrimary}}
	for _, r := range cfg.Replicas {
		if exists(s.path(r.Name)) && !exists(s.path("primary")) {
			return nil, fmt.Errorf("the primary's data is gone, %s may have the last copy of it: restore it, or remove the folder to begin anew",
				s.path(r.Name))
		}
		s.servers = append(s.servers, server{r.Name, func(ctx context.Context) (*child, error) { return s.startReplica(ctx, r) }})
	}
	if err = endAll(ctx, s.cfg.Dir); err != nil {
		return nil, err
	}
	if err = s.loadState(); err != nil {
		return nil, err
	}
	if s.bin, err = postgresBin(s.path("primary")); err != nil {
		return nil, err
	}
	for _, r := range cfg.Replicas {
		s.ReplicaURLs = append(s.ReplicaURLs, s.url(r.Name, "ordergate"))
	}
	s.PrimaryURL = s.url("primary", "ordergate")
	s.RedisURL = fmt.Sprintf("redis://:%s@127.0.0.1:%d/0", s.state.Password, s.state.Ports["redis"])
	for _, p := range cfg.Programs {
		s.servers = append(s.servers, server{p.Name, func(ctx context.Context) (*child, error) {
			ctx, cancel := context.WithTimeout(ctx, stopTimeout)
			defer cancel()
			cmd := p.Command()
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			return s.launch(ctx, p.Name, cmd, p.Ready)
		}})
	}
	for _, server := range s.servers {
		c, err := server.start(ctx)
		if err != nil {
			return nil, err
		}
		go s.watch(c)
	}
	return s, nil
}

// Exit is the end of a server that nobody stopped.
type Exit struct {
	Name string // primary, redis, or of the replica or program
	Err  error  // its first line says why, and where the log is; the rest is the log's tail
}

// Exits receives the servers that ended and that nobody stopped. The others go on.
func (s *Stack) Exits() <-chan Exit { return s.exits }

// Restart starts a server that ended: at its address, the primary and a replica on their data, Redis empty. It must not run
// beside Stop.
func (s *Stack) Restart(ctx context.Context, name string) error {
	if err := end(ctx, s.cfg.Dir, name); err != nil { // its children may outlive it for a moment
		return err
	}
	i := slices.IndexFunc(s.servers, func(server server) bool { return server.name == name })
	c, err := s.servers[i].start(ctx)
	if err != nil {
		return fmt.Errorf("restart %s: %w", name, DiskFull(s.cfg.Dir, err))
	}
	go s.watch(c)
	return nil
}

func (s *Stack) watch(c *child) {
	<-c.done
	select {
	case <-s.stopping:
	default:
		s.exits <- Exit{c.name, c.exitError()}
	}
}

// Stop stops the replicas, then the primary, then Redis, and returns when they and all their processes are gone. When ctx is
// done it no longer waits for orderly shutdowns; committed data is safe all the same. It is called once.
func (s *Stack) Stop(ctx context.Context) error {
	close(s.stopping)
	defer close(s.forks)
	if s.lock == nil {
		return nil
	}
	return errors.Join(endAll(ctx, s.cfg.Dir), s.lock.Close())
}

// Free returns an error that names the process that uses the data folder, if one does, or why there can be none. It leaves nothing behind that it
// made to find out.
func Free(dir string) error {
	var made []string // the deepest first
	for d := filepath.Join(dir, "lock"); !exists(d) && d != filepath.Dir(d); d = filepath.Dir(d) {
		made = append(made, d)
	}
	lock, err := lockDir(dir)
	if err != nil && len(made) > 0 {
		made = made[1:] // the lock is that of another run
	}
	for _, d := range made {
		_ = os.Remove(d) // fails if something else is in it
	}
	if err == nil {
		err = lock.Close()
	}
	return err
}

// Running returns the URLs of the stack that another process runs in a data folder: of its primary, and of its programs by their names.
// The error says that none runs there. It may return while the stack is still starting.
func Running(dir string) (primary string, programs map[string]string, err error) {
	s := &Stack{cfg: Config{Dir: dir}}
	b, err := os.ReadFile(s.path("state.json"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && Free(dir) == nil {
		return "", nil, fmt.Errorf("no stack runs in %s", dir)
	}
	if err == nil {
		err = json.Unmarshal(b, &s.state)
	}
	if err != nil {
		return "", nil, fmt.Errorf("cannot read the state of the stack: %w", err)
	}
	return s.url("primary", "ordergate"), s.state.URLs, nil
}

// Remove stops servers that a killed run left in a data folder, and deletes it. A folder in use is refused.
func Remove(ctx context.Context, dir string) error {
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	return errors.Join(endAll(ctx, dir), os.RemoveAll(dir))
}

// Scratch makes a folder for a throw-away stack, in memory (7 times as fast for tests) if 3 GiB of it are free. It removes the
// folders of killed runs.
func Scratch(ctx context.Context) (string, error) {
	base := os.TempDir()
	if free, err := freeSpace("/dev/shm"); err == nil && free >= 3<<30 {
		base = "/dev/shm"
	}
	old, _ := filepath.Glob(filepath.Join(base, "ordergate-scratch-*"))
	for _, dir := range old {
		var owner syscall.Stat_t
		info, err := os.Lstat(dir)
		if err == nil && info.IsDir() && time.Since(info.ModTime()) >= time.Minute &&
			syscall.Lstat(dir, &owner) == nil && owner.Uid == uint32(os.Getuid()) {
			_ = Remove(ctx, dir) // fails if it is in use; the run of a younger folder may not have claimed it yet
		}
	}
	return os.MkdirTemp(base, "ordergate-scratch-")
}

// MakeDir makes a data folder that the children can enter, if there is none.
func MakeDir(dir string) error {
	if os.Mkdir(filepath.Dir(dir), 0o755) == nil {
		_ = os.Chmod(filepath.Dir(dir), 0o755) // independent of the umask
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	return os.Chmod(dir, 0o711)
}

// lockDir makes a data folder and takes its lock, which ends with this process.
func lockDir(dir string) (*os.File, error) {
	if err := MakeDir(dir); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if flock(lock) != nil {
		defer lock.Close()
		holder := "another run"
		if pid, _ := io.ReadAll(lock); len(pid) > 0 { // empty: it has just begun
			holder += ", process " + string(pid)
		}
		return nil, fmt.Errorf("%s is in use by %s: stop that first", dir, holder)
	}
	if now, err := os.Stat(lock.Name()); err != nil || !sameFile(lock, now) { // Free removed it meanwhile
		_ = lock.Close()
		return lockDir(dir)
	}
	_ = os.WriteFile(lock.Name(), []byte(strconv.Itoa(os.Getpid())), 0o600) // for the message above
	return lock, nil
}

func sameFile(f *os.File, info os.FileInfo) bool {
	its, err := f.Stat()
	return err == nil && os.SameFile(its, info)
}

func freeSpace(dir string) (int64, error) {
	var disk syscall.Statfs_t
	err := syscall.Statfs(dir, &disk)
	return int64(disk.Bavail) * int64(disk.Bsize), err //nolint:unconvert // macOS has a uint32
}

// fullBelow is one segment of PostgreSQL's log, the smallest amount that it asks for.
const fullBelow = 16 << 20

var errDiskFull = errors.New("the disk is full")

// DiskFull returns err, with the sentence that the disk is full before it if that of dir is, or if err tells of a full disk.
func DiskFull(dir string, err error) error {
	if err == nil || errors.Is(err, errDiskFull) {
		return err
	}
	free, errStat := freeSpace(dir)
	if errStat == nil && free < fullBelow || errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "No space left on device") {
		return fmt.Errorf("%w (%d MB are free in %s now): %w", errDiskFull, free>>20, dir, err)
	}
	return err
}

// childUser returns the user of the children: as root the system's user postgres or nobody, otherwise ours (nil).
func childUser() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			c := &syscall.Credential{}
			_, err = fmt.Sscan(u.Uid+" "+u.Gid, &c.Uid, &c.Gid)
			return c, err
		}
	}
	return nil, errors.New("PostgreSQL refuses root, and there is no user postgres or nobody to run it as")
}

// loadState reads the password and ports of the last run and settles those of this one.
func (s *Stack) loadState() error {
	b, err := os.ReadFile(s.path("state.json"))
	switch {
	case err == nil:
		if err = json.Unmarshal(b, &s.state); err == nil && (s.state.Password == "" || s.state.Ports == nil) {
			err = errors.New("it has no password or no ports")
		}
		if err != nil {
			return fmt.Errorf("state.json, which has the password of the data, cannot be read: restore it, "+
				"or remove the folder to begin anew (%w)", err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case exists(s.path("primary")):
		return errors.New("state.json is gone, and with it the password of the data: restore it, or remove the folder to begin anew")
	default:
		s.state = state{Password: strings.ToLower(rand.Text()), Ports: map[string]int{}}
	}
	for _, server := range s.servers {
		l, port, err := listen(s.state.Ports[server.name])
		if err != nil {
			return err
		}
		defer l.Close() // held until all are settled
		s.state.Ports[server.name] = port
	}
	s.state.URLs = map[string]string{}
	for _, p := range s.cfg.Programs {
		s.state.URLs[p.Name] = p.URL
	}
	now, err := json.Marshal(s.state)
	if err != nil || bytes.Equal(b, now) {
		return err
	}
	return WriteFile(s.path("state.json"), now)
}

// WriteFile replaces a file that only its owner may read. After a crash or on a full disk it has the old content or the new.
func WriteFile(path string, content []byte) error {
	tmp, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = tmp.Write(content)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return os.Rename(tmp.Name(), path)
}

// listen takes the port, or a free one if that is 0 or taken, and returns which. New ones lie below the ranges from which systems
// draw the local ports of outgoing connections, so that none of those takes it before the server does.
func listen(port int) (l net.Listener, _ int, err error) {
	for range 100 {
		if port == 0 {
			port = 20000 + mathrand.IntN(10000)
		}
		if l, err = net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			return l, port, nil
		}
		port = 0
	}
	return nil, 0, err
}

// FreePort returns a loopback port for a server, which was free a moment ago.
func FreePort() (int, error) {
	l, port, err := listen(0)
	if err != nil {
		return 0, err
	}
	return port, l.Close()
}

// startRedis starts Redis. Its configuration goes through standard input, which keeps the password out of the process list.
func (s *Stack) startRedis(ctx context.Context) (*child, error) {
	var program string
	for _, name := range []string{"redis-server", "/opt/homebrew/bin/redis-server", "/usr/local/bin/redis-server"} {
		if path, err := exec.LookPath(name); err == nil {
			program = cmp.Or(program, path)
		}
	}
	if program == "" {
		return nil, errors.New("redis-server is needed: install Redis")
	}
	cmd := s.asChild(exec.Command(program, "-"), s.cfg.Dir)
	cmd.Stdin = strings.NewReader(fmt.Sprintf("bind 127.0.0.1\nport %d\nrequirepass %s\nsave \"\"\nappendonly no\n"+
		"maxmemory 256mb\nmaxmemory-policy allkeys-lru\n", s.state.Ports["redis"], s.state.Password))
	return s.launch(ctx, "redis", cmd, func(context.Context) error {
		conn, err := net.DialTimeout("tcp", "127.0.0.1:"+strconv.Itoa(s.state.Ports["redis"]), time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		fmt.Fprintf(conn, "AUTH %s\r\n", s.state.Password)
		if answer, err := bufio.NewReader(conn).ReadString('\n'); err != nil || answer != "+OK\r\n" {
			return fmt.Errorf("redis answers %q: %w", answer, err)
		}
		return nil
	})
}

func (s *Stack) path(name string) string { return filepath.Join(s.cfg.Dir, name) }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
